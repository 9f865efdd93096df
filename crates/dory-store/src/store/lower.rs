//! Other engines' stores below this one: their images are here too, and nothing of them is downloaded or copied.
//!
//! ```text
//! <lower>/images.json               read whenever it changed and a name or a layer is not found
//! <lower>/content/sha256/<hex>      configurations: copied when an image is adopted, they are small
//! <lower>/layers/<diff-id hex>/fs   used in place, as lower directories of overlayfs
//! ```
//!
//! An image of a lower store is *adopted*: it stands in this store's index like any other, and names, removals and
//! containers are this store's own affair. An image that was removed here is not adopted again. What this store uses of
//! a lower one stands in a lease, which the lower store's owner reads before it deletes anything: see `children`.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dory_types::{Digest, ImageId};
use rustix::fs::{self, AtFlags, Mode, OFlags};

use super::children::Lease;
use super::{State, Store};
use crate::content::Content;
use crate::directory;
use crate::error::StoreError;
use crate::image::{ImageEntry, ImageIndex};
use crate::layer::{self, LayerRecord};
use crate::record::read_record;

/// A layer that its owner moves away and finds leased comes back within this time.
const COMES_BACK: Duration = Duration::from_millis(200);

/// A store to use from below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowerOptions {
    /// Its data-root, or what its engine shares of it; may be read-only.
    pub path: PathBuf,
    /// Where to say what is used: a directory that its owner made for this store. `None` for one of this store's own
    /// making among the owner's `children`, where that can be written.
    pub lease: Option<PathBuf>,
}

/// A lower store that is in use.
#[derive(Debug)]
pub(super) struct LowerStore {
    path: PathBuf,
    root: OwnedFd,
    layers: OwnedFd,
    content: Content,
    lease: Option<Lease>,
    /// Inode and change time of the index that was adopted last.
    adopted: Mutex<Option<(u64, i64, u64)>>,
}

impl LowerStore {
    /// Opens the store at `options`; `own` names this one among the owner's children.
    pub(super) fn open(options: &LowerOptions, own: &str) -> Result<Self, StoreError> {
        let error = |source: io::Error| StoreError::Directory { path: options.path.clone(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = options.path.canonicalize().map_err(error)?;
        let root = fs::open(&path, flags, Mode::empty()).map_err(|errno| error(errno.into()))?;
        let child = |name: &str| {
            directory::open_beneath(&root, name)
                .map_err(|errno| StoreError::Directory { path: path.join(name), source: errno.into() })
        };
        let layers =
            fs::openat(&root, "layers", flags, Mode::empty()).map_err(|errno| error(errno.into()))?;
        let content = fs::openat(&root, "content/sha256", flags, Mode::empty());
        let content = Content { directory: content.map_err(|errno| error(errno.into()))? };
        let lease = match &options.lease {
            Some(directory) => Lease::open(directory).map_err(error).map(Some)?,
            None => child("children").ok().and_then(|children| Lease::make(&children, own).ok()),
        };
        if lease.is_none() {
            tracing::warn!(
                store = %path.display(),
                "The lower store cannot be told what is used of it: its engine may delete that"
            );
        }
        Ok(Self { path, root, layers, content, lease, adopted: Mutex::default() })
    }

    /// The index, where it changed since it was read last.
    fn changed_index(&self) -> Option<ImageIndex> {
        let stat = fs::statat(&self.root, ImageIndex::RECORD, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let version = (stat.st_ino, stat.st_mtime, stat.st_mtime_nsec);
        let mut adopted = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        if *adopted == Some(version) {
            return None;
        }
        let index = read_record(&self.root, ImageIndex::RECORD).unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "Cannot read a lower store's index");
            None
        });
        *adopted = Some(version);
        index
    }

    fn layer(&self, diff_id: &Digest) -> Option<LayerRecord> {
        let directory = directory::open_child(&self.layers, diff_id.hex()).ok()?;
        read_record(&directory, layer::RECORD).ok()?
    }
}

impl Store {
    /// Takes in what the lower stores have and this one has not, where they changed.
    pub(super) fn adopt(&self, state: &mut State) {
        for (number, lower) in self.lower.iter().enumerate() {
            let Some(index) = lower.changed_index() else { continue };
            self.forget_adopted(state, &index);
            for (id, entry) in &index.images {
                let is_new = !state.index.images.contains_key(id) && !state.index.adopted.contains(id);
                if is_new && self.adopt_layers(state, number, entry) && self.adopt_config(lower, id) {
                    let entry = ImageEntry { adopted: true, parent: None, ..entry.clone() };
                    state.index.images.insert(id.clone(), entry);
                    state.index.adopted.insert(id.clone());
                } else if state.index.images.contains_key(id) {
                    self.adopt_layers(state, number, entry);
                }
            }
            for (reference, id) in &index.references {
                let is_adopted = state.index.images.get(id).is_some_and(|entry| entry.adopted);
                // The owner's newer image takes a name over only from the owner's older one.
                let own = state.index.references.get(reference).and_then(|id| state.index.images.get(id));
                if is_adopted && own.is_none_or(|own| own.adopted) {
                    state.index.references.insert(reference.clone(), id.clone());
                }
            }
        }
    }

    /// Finds the layers in lower stores that this store's own images and containers use, and lets adopted images go whose
    /// layers are nowhere: their store is not below this one any more.
    pub(super) fn find_in_lower(&self, state: &mut State) {
        let images = state.index.images.values().flat_map(|entry| &entry.layers);
        let snapshots = state.snapshots.values().flat_map(|snapshot| &snapshot.layers);
        let used: BTreeSet<Digest> = images.chain(snapshots).copied().collect();
        for layer in used {
            if state.layers.contains_key(&layer) {
                continue;
            }
            let mut found = self.lower.iter().enumerate();
            if let Some((home, record)) =
                found.find_map(|(number, lower)| Some((number, lower.layer(&layer)?)))
            {
                state.layers.insert(layer, record);
                self.homes().insert(layer, home);
            }
        }
        let State { index, layers, .. } = state;
        let is_lost = |entry: &ImageEntry| {
            entry.adopted && entry.layers.iter().any(|layer| !layers.contains_key(layer))
        };
        let lost: Vec<ImageId> =
            index.images.iter().filter(|(_, entry)| is_lost(entry)).map(|(id, _)| id.clone()).collect();
        for id in lost {
            index.forget(&id);
        }
    }

    /// Lets adopted images go whose owner has let them go.
    fn forget_adopted(&self, state: &mut State, index: &ImageIndex) {
        let is_gone = |layer: &Digest| {
            let home = self.home(layer);
            home.is_some_and(|home| {
                fs::statat(&self.lower[home].layers, layer.hex(), AtFlags::SYMLINK_NOFOLLOW).is_err()
            })
        };
        let gone: Vec<ImageId> = state
            .index
            .images
            .iter()
            .filter(|(id, entry)| entry.adopted && !index.images.contains_key(*id))
            .filter(|(_, entry)| entry.layers.iter().any(is_gone))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            state.index.forget(&id);
        }
    }

    /// Makes an image's layers known; false where one of them is nowhere.
    fn adopt_layers(&self, state: &mut State, number: usize, entry: &ImageEntry) -> bool {
        entry.layers.iter().all(|layer| {
            if state.layers.contains_key(layer) {
                return true;
            }
            let Some(record) = self.lower[number].layer(layer) else { return false };
            state.layers.insert(*layer, record);
            self.homes().insert(*layer, number);
            true
        })
    }

    /// Copies an image's configuration.
    fn adopt_config(&self, lower: &LowerStore, id: &ImageId) -> bool {
        let copied = lower.content.get(&id.into()).and_then(|bytes| self.content.put_unsynced(&bytes));
        copied
            .inspect_err(|error| {
                tracing::warn!(
                    image = %id,
                    error = error as &dyn std::error::Error,
                    "Cannot adopt a lower store's image"
                );
            })
            .is_ok()
    }

    /// Which lower store has `layer`; `None` where it is this store's own, or nowhere.
    pub(super) fn home(&self, layer: &Digest) -> Option<usize> {
        self.homes().get(layer).copied()
    }

    pub(super) fn homes(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, usize>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of all layers that has `layer`.
    pub(super) fn layers_with(&self, layer: &Digest) -> (&OwnedFd, PathBuf) {
        match self.home(layer) {
            Some(home) => (&self.lower[home].layers, self.lower[home].path.join("layers")),
            None => (&self.layers, self.images.path.join("layers")),
        }
    }

    /// Tells the owners of lower stores which of their layers are in use; after this they stay.
    pub(crate) fn renew_leases(&self, state: &State) {
        if self.lower.is_empty() {
            return;
        }
        let mut used: Vec<BTreeSet<Digest>> = vec![BTreeSet::new(); self.lower.len()];
        let images =
            state.index.images.values().filter(|entry| !entry.adopted).flat_map(|entry| &entry.layers);
        let snapshots = state.snapshots.values().flat_map(|snapshot| &snapshot.layers);
        for layer in state.leases.keys().chain(images).chain(snapshots) {
            if let Some(home) = self.home(layer) {
                used[home].insert(*layer);
            }
        }
        for (lower, used) in self.lower.iter().zip(used) {
            let Some(lease) = &lower.lease else { continue };
            if let Err(error) = lease.renew(used) {
                tracing::warn!(
                    store = %lower.path.display(),
                    %error,
                    "The lower store cannot be told what is used of it: its engine may delete that"
                );
            }
        }
    }

    /// True where the leased `layers` are there. Their owner may have just moved one away and not read the lease yet:
    /// then it comes back at once.
    pub(crate) fn are_there(&self, layers: &[Digest]) -> Result<(), Digest> {
        let is_there = |layer: &Digest| {
            let Some(home) = self.home(layer) else { return true };
            fs::statat(&self.lower[home].layers, layer.hex(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
        };
        for attempt in 0..10 {
            match layers.iter().find(|layer| !is_there(layer)) {
                None => return Ok(()),
                Some(missing) if attempt == 9 => return Err(*missing),
                Some(_) => thread::sleep(COMES_BACK / 10),
            }
        }
        Ok(())
    }

    /// The directories of the lower stores, for messages.
    pub fn lower_stores(&self) -> impl Iterator<Item = &Path> {
        self.lower.iter().map(|lower| lower.path.as_path())
    }
}
