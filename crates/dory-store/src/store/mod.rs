//! The store as a whole: opening, repairing, and changing what there is under one lock.

mod build_cache;
mod children;
mod distribution;
mod layers;
mod lower;
mod shared;

use build_cache::BuildCache;
pub use build_cache::{BuildRecord, Scratch};
pub use children::Share;
pub use distribution::Distribution;
use distribution::Distributions;
pub use layers::{ExpectedLayer, LayerLease};
pub use lower::LowerOptions;
use lower::LowerStore;
use shared::Images;
pub(crate) use shared::StateGuard;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use dory_types::{ContainerId, Digest, ImageId, VolumeName};
use rustix::fs::{self, Mode, OFlags};

use crate::content::Content;
use crate::directory;
use crate::error::StoreError;
use crate::image::{Image, ImageConfig, ImageIndex};
use crate::layer::{LayerRecord, UnpackLimits};
use crate::lock::DataRootLock;
use crate::record::{Durability, TEMPORARY_PREFIX, read_record, write_record};
use crate::snapshot::SnapshotRecord;
use crate::trash::Trash;
use crate::volume::VolumeRecord;

/// What the data-root lies on, for the engine to choose by and to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingFilesystem {
    /// The kernel's name, such as `extfs` or `overlayfs` as in `docker info`; hexadecimal where it is unknown.
    pub name: String,
    /// False where the kernel refuses an upper directory of overlayfs: on overlayfs itself.
    pub overlay_upper: bool,
}

impl BackingFilesystem {
    /// Names of dockerd for the magic numbers of statfs(2).
    const NAMES: [(u32, &'static str); 10] = [
        (0xef53, "extfs"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x0102_1994, "tmpfs"),
        (0x794c_7630, "overlayfs"),
        (0x2fc1_2fc1, "zfs"),
        (0x6969, "nfs"),
        (0xf2f5_2010, "f2fs"),
        (0x6573_5546, "fuse"),
        (0x0102_1997, "9p"),
    ];
    /// overlayfs's own.
    const OVERLAYFS: u32 = 0x794c_7630;

    fn of(directory: &OwnedFd) -> io::Result<Self> {
        let magic = fs::fstatfs(directory)?.f_type as u32;
        let known = Self::NAMES.iter().find(|(number, _)| *number == magic);
        let name = known.map_or_else(|| format!("0x{magic:x}"), |(_, name)| (*name).to_owned());
        Ok(Self { name, overlay_upper: magic != Self::OVERLAYFS })
    }
}

/// A data-root, opened by the one engine that may.
#[derive(Debug)]
pub struct Store {
    data_root: PathBuf,
    root: OwnedFd,
    images: Images,
    pub(crate) content: Content,
    layers: OwnedFd,
    /// The leases of stores that use this one from below.
    children: OwnedFd,
    /// Stores that this one uses from below, the first one first.
    lower: Vec<LowerStore>,
    /// Which of them has a layer that is not this store's own. Taken after `state`, where both are.
    homes: Mutex<HashMap<Digest, usize>>,
    temporary: OwnedFd,
    pub(crate) containers: OwnedFd,
    pub(crate) volumes: OwnedFd,
    pub(crate) trash: Trash,
    backing: BackingFilesystem,
    state: Mutex<State>,
    limits: OnceLock<UnpackLimits>,
    _lock: DataRootLock,
}

/// What the store knows without looking at the disk.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) index: ImageIndex,
    /// Every layer that has its name.
    pub(crate) layers: HashMap<Digest, LayerRecord>,
    /// How many leases each layer has: what is in the making counts on them.
    pub(crate) leases: HashMap<Digest, usize>,
    /// Layers that broken-off pulls have left, and until when they stay.
    pub(crate) left: HashMap<Digest, Instant>,
    /// Layers that the disk may not have yet.
    pub(crate) unsynced: HashSet<Digest>,
    /// As which blobs layers are known to registries.
    distributions: Distributions,
    /// Which layers containers use.
    pub(crate) snapshots: HashMap<ContainerId, SnapshotRecord>,
    pub(crate) volumes: HashMap<VolumeName, VolumeRecord>,
    /// What builds have made.
    build_cache: BuildCache,
    /// True where other engines' changes cannot be read.
    is_stale: bool,
    /// Configurations that were read before.
    configs: HashMap<ImageId, Arc<ImageConfig>>,
}

impl Store {
    /// Opens the data-root, which is made where there is none, locks it and repairs what a dead engine left half
    /// done. `holder` says to whoever comes second which engine this is: its sockets, one a line.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another engine has it; [`StoreError::Directory`] and [`StoreError::Record`] where
    /// it cannot be used.
    pub fn open(data_root: &Path, holder: &str) -> Result<Arc<Self>, StoreError> {
        Self::open_above(data_root, holder, &[])
    }

    /// As [`Store::open`], with other stores below: their images are here too.
    ///
    /// # Errors
    /// As [`Store::open`]; [`StoreError::Directory`] for a lower store that is none.
    pub fn open_above(
        data_root: &Path,
        holder: &str,
        lower: &[LowerOptions],
    ) -> Result<Arc<Self>, StoreError> {
        Self::open_with(data_root, holder, lower, None)
    }

    /// As [`Store::open`], with images and layers in the directory `images`, where other engines may have theirs too: see
    /// `shared`. Containers, volumes and what builds remember are in the data-root.
    ///
    /// # Errors
    /// As [`Store::open`], for either directory.
    pub fn open_sharing(data_root: &Path, holder: &str, images: &Path) -> Result<Arc<Self>, StoreError> {
        Self::open_with(data_root, holder, &[], Some(images))
    }

    fn open_with(
        data_root: &Path,
        holder: &str,
        lower: &[LowerOptions],
        images: Option<&Path>,
    ) -> Result<Arc<Self>, StoreError> {
        let error = |source: io::Error| StoreError::Directory { path: data_root.to_owned(), source };
        let data_root = make_root(data_root)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(&data_root, flags, Mode::empty()).map_err(|errno| error(errno.into()))?;
        let lock = DataRootLock::acquire(&data_root, &root, holder)?;
        let child = |parent: &OwnedFd, name: &str| {
            // Images have setuid programs: no other user of the machine may reach one by its path (CVE-2021-41091).
            directory::make_and_open(parent, name, 0o700)
                .and_then(|fd| fs::fchmod(&fd, Mode::from_raw_mode(0o700)).map(|()| fd))
                .map_err(|errno| StoreError::Directory { path: data_root.join(name), source: errno.into() })
        };
        let trash = Trash::new(child(&root, "trash")?).map_err(error)?;
        let name = store_name(&root)?;
        let images = match images {
            Some(images) => Images::shared(images, &name, holder)?,
            None => Images::alone(&data_root, &root).map_err(error)?,
        };
        let content = child(&child(&images.root, "content")?, "sha256")?;
        let lower = lower.iter().map(|options| LowerStore::open(options, &name));
        let store = Self {
            content: Content { directory: content },
            layers: child(&images.root, "layers")?,
            children: child(&images.root, "children")?,
            lower: lower.collect::<Result<_, _>>()?,
            homes: Mutex::default(),
            temporary: child(&root, "tmp")?,
            containers: child(&root, "containers")?,
            volumes: child(&root, "volumes")?,
            trash,
            backing: BackingFilesystem::of(&root).map_err(error)?,
            state: Mutex::default(),
            limits: OnceLock::new(),
            _lock: lock,
            images,
            root,
            data_root,
        };
        store.repair()?;
        Ok(Arc::new(store))
    }

    /// The data-root's absolute path, without symbolic links.
    pub fn data_root(&self) -> &Path {
        &self.data_root
    }

    /// What the data-root lies on.
    pub fn backing(&self) -> &BackingFilesystem {
        &self.backing
    }

    /// The data-root's descriptor, for records that the engine keeps beside the store's own.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Waits until everything that was removed is gone from the disk; removals return before.
    pub fn wait_until_removed(&self) {
        self.trash.wait_until_empty();
    }

    /// Where things are made before they get their place.
    pub(crate) fn temporary(&self) -> BorrowedFd<'_> {
        self.temporary.as_fd()
    }

    /// Where layers are made: on the file system that they stay on.
    fn staging(&self) -> BorrowedFd<'_> {
        match &self.images.membership {
            Some(membership) => membership.temporary.as_fd(),
            None => self.temporary.as_fd(),
        }
    }

    /// Where layers go that nobody uses.
    fn layer_trash(&self) -> &Trash {
        self.images.membership.as_ref().map_or(&self.trash, |membership| &membership.trash)
    }

    pub(crate) fn lock(&self) -> StateGuard<'_> {
        self.take_turn(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The image that `text` means: a name, an id or the start of one.
    ///
    /// # Errors
    /// [`StoreError::Resolve`].
    pub fn resolve(&self, text: &str) -> Result<ImageId, StoreError> {
        let mut state = self.lock();
        self.adopt(&mut state);
        Ok(state.index.resolve(text)?)
    }

    /// The image that `text` means, with everything about it.
    ///
    /// # Errors
    /// [`StoreError::Resolve`]; [`StoreError::ReadBlob`] and [`StoreError::Config`] where the store is damaged.
    pub fn image(&self, text: &str) -> Result<Image, StoreError> {
        let mut state = self.lock();
        self.adopt(&mut state);
        let id = state.index.resolve(text)?;
        self.describe(&mut state, &id)
    }

    /// All images, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError::ReadBlob`] and [`StoreError::Config`] where the store is damaged.
    pub fn images(&self) -> Result<Vec<Image>, StoreError> {
        let mut state = self.lock();
        self.adopt(&mut state);
        let ids: Vec<_> = state.index.images.keys().cloned().collect();
        ids.iter().map(|id| self.describe(&mut state, id)).collect()
    }

    /// The bytes of an image's configuration, as they came.
    ///
    /// # Errors
    /// [`StoreError::ReadBlob`].
    pub fn config_bytes(&self, id: &ImageId) -> Result<Vec<u8>, StoreError> {
        self.content.get(&id.into())
    }

    /// Everything about an image that is in the index.
    pub(crate) fn describe(&self, state: &mut State, id: &ImageId) -> Result<Image, StoreError> {
        let config = self.config(state, id)?;
        let sizes = config.rootfs.diff_ids.iter().filter_map(|layer| state.layers.get(layer));
        let entry = state.index.images.get(id).cloned().unwrap_or_default();
        Ok(Image {
            id: id.clone(),
            references: state.index.references_of(id),
            size: sizes.map(|layer| layer.size).sum(),
            last_tagged: entry.last_tagged,
            parent: entry.parent,
            config,
        })
    }

    /// An image's configuration, read once.
    pub(crate) fn config(&self, state: &mut State, id: &ImageId) -> Result<Arc<ImageConfig>, StoreError> {
        if let Some(config) = state.configs.get(id) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(parse_config(&self.config_bytes(id)?)?);
        state.configs.insert(id.clone(), Arc::clone(&config));
        Ok(config)
    }

    /// Begins a change of the index that counts on `leases`: those layers are on the disk from here on.
    pub(crate) fn change(&self, leases: Vec<LayerLease>) -> Result<Change<'_>, StoreError> {
        let layers: Vec<_> = leases.iter().map(LayerLease::diff_id).collect();
        self.sync_layers(&layers)?;
        let mut state = self.lock();
        self.ensure_current(&state).map_err(|error| self.images.error(error))?;
        self.adopt(&mut state);
        let index = state.index.clone();
        Ok(Change { store: self, state, index, leases })
    }

    /// Deletes layers that no image, no container and nothing in the making uses. What cannot be deleted stays for the
    /// next time: nobody who asked for something else has to fail for it.
    pub(crate) fn collect_garbage(&self, state: &mut State) {
        if let Err(error) = self.discard_unused(state) {
            tracing::warn!(error = &error as &dyn std::error::Error, "Cannot delete unused layers");
        }
    }

    fn discard_unused(&self, state: &mut State) -> Result<(), StoreError> {
        self.ensure_current(state)
            .and_then(|()| self.claim(state))
            .map_err(|error| self.images.error(error))?;
        let now = Instant::now();
        state.left.retain(|_, until| *until > now);
        let mut used: HashSet<Digest> = state.leases.keys().chain(state.left.keys()).copied().collect();
        used.extend(state.index.images.values().flat_map(|image| &image.layers));
        used.extend(state.snapshots.values().flat_map(|snapshot| &snapshot.layers));
        used.extend(state.build_cache.layers());
        let is_own = |layer: &&Digest| self.home(layer).is_none();
        let unused = state.layers.keys().filter(|layer| !used.contains(*layer)).filter(is_own);
        let unused: Vec<Digest> = unused.copied().collect();
        if unused.is_empty() {
            return Ok(());
        }
        let leased = self.leased_to_children()?;
        let unused: Vec<_> = unused.into_iter().filter(|layer| !leased.contains(layer)).collect();
        self.discard_layers(state, &unused)
    }

    /// Brings the store into a state in which the invariants hold, whatever moment the last engine died at.
    fn repair(&self) -> Result<(), StoreError> {
        let error =
            |name: &str, source: io::Error| StoreError::Directory { path: self.data_root.join(name), source };
        for (parent, trash) in [(self.temporary(), &self.trash), (self.staging(), self.layer_trash())] {
            for (name, _) in directory::names(parent).map_err(|errno| error("tmp", errno.into()))? {
                trash.discard(parent, &name).map_err(|errno| error("tmp", errno.into()))?;
            }
        }
        crate::record::remove_temporaries(&self.root).map_err(|source| error("", source))?;
        let mut state = self.lock();
        self.images.announce().map_err(|source| self.images.error(source))?;
        state.index = read_record(&self.images.root, ImageIndex::RECORD)?.unwrap_or_default();
        self.bring_back().map_err(|errno| error("layers", errno.into()))?;
        state.layers = self.read_layers()?;
        state.snapshots = self.read_snapshots()?;
        state.build_cache = self.read_build_cache(&state.layers)?;
        state.volumes = self.read_volumes()?;
        state.distributions = self.read_distributions();
        self.expire_leases(&state);
        self.find_in_lower(&mut state);
        self.adopt(&mut state);
        self.publish_index(&state.index);
        self.renew_leases(&state);
        self.collect_garbage(&mut state);
        for (name, _) in
            directory::names(&self.content.directory).map_err(|errno| error("content", errno.into()))?
        {
            let digest = std::str::from_utf8(&name).ok().and_then(|name| Digest::from_hex(name).ok());
            if !digest.is_some_and(|digest| state.index.images.contains_key(&ImageId::from(digest))) {
                self.content.remove(&name).map_err(|errno| error("content", errno.into()))?;
            }
        }
        Ok(())
    }
}

/// Makes a store's directory where there is none, closed to others, and gives its path without symbolic links.
fn make_root(path: &Path) -> Result<PathBuf, StoreError> {
    std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
        .create(path)
        .and_then(|()| path.canonicalize())
        .map_err(|source| StoreError::Directory { path: path.to_owned(), source })
}

/// The name of this store among a lower store's children; made once.
fn store_name(root: &OwnedFd) -> Result<String, StoreError> {
    const RECORD: &str = "store.json";
    if let Ok(Some(name)) = read_record(root, RECORD) {
        return Ok(name);
    }
    let name = crate::record::temporary_name().trim_start_matches(TEMPORARY_PREFIX).to_owned();
    write_record(root, RECORD, &name, Durability::Unsynced)?;
    Ok(name)
}

/// Reads a configuration's bytes.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<ImageConfig, StoreError> {
    ImageConfig::parse(bytes).map_err(|source| StoreError::Config { image: Digest::of(bytes), source })
}

/// A new version of the index, which counts when it is committed; dropped, it leaves nothing behind.
pub(crate) struct Change<'a> {
    store: &'a Store,
    pub(crate) state: StateGuard<'a>,
    pub(crate) index: ImageIndex,
    leases: Vec<LayerLease>,
}

impl Change<'_> {
    /// Takes an image in, whose layers the change holds.
    pub(crate) fn add_image(&mut self, config: &[u8]) -> Result<ImageId, StoreError> {
        let layers = parse_config(config)?.rootfs.diff_ids;
        let id = ImageId::from(self.store.content.put(config)?);
        self.index.images.entry(id.clone()).or_default().layers = layers;
        Ok(id)
    }

    /// Writes the new index, and deletes what it does not use any more.
    pub(crate) fn commit(mut self) -> Result<(), StoreError> {
        self.store.images.announce().map_err(|source| self.store.images.error(source))?;
        write_record(&self.store.images.root, ImageIndex::RECORD, &self.index, Durability::Synced)?;
        self.store.publish_index(&self.index);
        let old = std::mem::replace(&mut self.state.index, std::mem::take(&mut self.index));
        self.store.renew_leases(&self.state);
        for id in old.images.keys() {
            if self.state.index.images.contains_key(id) {
                continue;
            }
            self.state.configs.remove(id);
            // The record says already that the image is gone; the next start tries again.
            let hex = Digest::from(id).hex();
            if let Err(errno) = self.store.content.remove(hex.as_bytes()) {
                tracing::warn!(image = %id, %errno, "Cannot delete an image's configuration");
            }
        }
        Ok(())
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        for lease in self.leases.drain(..) {
            lease.release(&mut self.state);
        }
        self.store.collect_garbage(&mut self.state);
    }
}
