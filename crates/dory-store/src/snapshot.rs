//! A container's own files: the directory that overlayfs writes to, and which layers lie below it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use dory_sys::fault_point;
use dory_types::{ContainerId, Digest, ImageId};
use rustix::fs::{self, Gid, Mode, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::directory;
use crate::error::StoreError;
use crate::image::ImageConfig;
use crate::record::{Durability, read_record, temporary_name, write_record};
use crate::store::{State, Store};

/// The record's file name.
const RECORD: &str = "snapshot.json";

/// Who a snapshot's directories belong to: the container's root as the engine's user namespace sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A container's writable files and what lies below them, as overlayfs takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The container's directory, which has the two below and whatever the engine keeps there.
    pub directory: PathBuf,
    /// `upperdir`.
    pub upper: PathBuf,
    /// `workdir`.
    pub work: PathBuf,
    /// `lowerdir`s, the top layer first.
    pub layers: Vec<PathBuf>,
}

/// What a snapshot keeps from being deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    /// Diff-ids, the lowest first.
    pub(crate) layers: Vec<Digest>,
}

impl Store {
    /// The directories of an image's layers, the top one first as overlayfs wants them, and its configuration.
    ///
    /// # Errors
    /// [`StoreError::Resolve`] where there is no such image, [`StoreError::MissingLayer`] where it is damaged.
    pub fn layer_chain(&self, id: &ImageId) -> Result<(Vec<PathBuf>, Arc<ImageConfig>), StoreError> {
        let mut state = self.lock();
        let (layers, config) = self.layers_of(&mut state, id)?;
        Ok((self.lower_directories(&layers), config))
    }

    /// Makes `containers/<id>/{upper,work}` for a container of `image`, owned by `owner`. The image's layers stay
    /// until the snapshot is removed, even where the image itself is removed by force. No image means no layers.
    ///
    /// # Errors
    /// [`StoreError::Resolve`] and [`StoreError::MissingLayer`] as for [`Store::layer_chain`], [`StoreError::Snapshot`]
    /// where the directories cannot be made; nothing is left then.
    pub fn create_snapshot(
        &self,
        container: &ContainerId,
        image: Option<&ImageId>,
        owner: Owner,
    ) -> Result<Snapshot, StoreError> {
        let layers = match image {
            None => Vec::new(),
            Some(image) => self.layers_of(&mut self.lock(), image)?.0,
        };
        self.create_snapshot_over(container, layers, owner).map_err(|error| match (error, image) {
            (StoreError::MissingLayer { layer, .. }, Some(image)) => {
                StoreError::MissingLayer { image: image.clone(), layer }
            }
            (error, _) => error,
        })
    }

    /// As [`Store::create_snapshot`], over layers that something keeps meanwhile, the lowest first.
    pub(crate) fn create_snapshot_over(
        &self,
        container: &ContainerId,
        layers: Vec<Digest>,
        owner: Owner,
    ) -> Result<Snapshot, StoreError> {
        let mut state = self.lock();
        if let Some(missing) = layers.iter().find(|layer| !state.layers.contains_key(layer)) {
            return Err(StoreError::MissingLayer { image: ImageId::from(*missing), layer: *missing });
        }
        let record = SnapshotRecord { layers };
        let temporary = temporary_name();
        let made = self.make_snapshot(&temporary, &record, owner).and_then(|()| {
            fault_point!("snapshot.made");
            Ok(fs::renameat_with(
                self.temporary(),
                &temporary,
                &self.containers,
                container.as_str(),
                fs::RenameFlags::NOREPLACE,
            )?)
        });
        if let Err(source) = made {
            // What stays behind in spite of this is discarded at the next start.
            let _ = self.trash.discard(self.temporary(), temporary.as_bytes());
            return Err(StoreError::Snapshot { operation: "create", container: container.clone(), source });
        }
        let layers = record.layers.clone();
        let snapshot = self.describe_snapshot(container, &record);
        state.snapshots.insert(container.clone(), record);
        self.renew_leases(&state);
        if let Err(source) = self.claim(&state) {
            drop(state);
            self.remove_snapshot(container)?;
            return Err(StoreError::Snapshot { operation: "create", container: container.clone(), source });
        }
        if let Err(layer) = self.are_there(&layers) {
            drop(state);
            self.remove_snapshot(container)?;
            return Err(StoreError::MissingLayer { image: ImageId::from(layer), layer });
        }
        Ok(snapshot)
    }

    /// The snapshot of `container`; `None` where it has none.
    pub fn snapshot(&self, container: &ContainerId) -> Option<Snapshot> {
        let state = self.lock();
        state.snapshots.get(container).map(|record| self.describe_snapshot(container, record))
    }

    /// The containers that have a snapshot.
    pub fn snapshots(&self) -> Vec<ContainerId> {
        self.lock().snapshots.keys().cloned().collect()
    }

    /// Takes the container's whole directory away, and the layers that only it used. Returns when nobody can find
    /// them any more; the deletion goes on behind. None there is no error.
    ///
    /// # Errors
    /// [`StoreError::Snapshot`].
    pub fn remove_snapshot(&self, container: &ContainerId) -> Result<(), StoreError> {
        let mut state = self.lock();
        self.trash.discard(&self.containers, container.as_str().as_bytes()).map_err(|errno| {
            StoreError::Snapshot { operation: "remove", container: container.clone(), source: errno.into() }
        })?;
        fault_point!("snapshot.discarded");
        state.snapshots.remove(container);
        self.end_lease(container);
        self.renew_leases(&state);
        self.collect_garbage(&mut state);
        Ok(())
    }

    /// An image's layers, the lowest first, all of which are there, and its configuration.
    fn layers_of(
        &self,
        state: &mut State,
        id: &ImageId,
    ) -> Result<(Vec<Digest>, Arc<ImageConfig>), StoreError> {
        let id = state.index.resolve(id.as_str())?;
        let config = self.config(state, &id)?;
        let layers = config.rootfs.diff_ids.clone();
        match layers.iter().find(|layer| !state.layers.contains_key(layer)) {
            Some(missing) => Err(StoreError::MissingLayer { image: id, layer: *missing }),
            None => Ok((layers, config)),
        }
    }

    /// Makes a snapshot's directories in `tmp/`.
    fn make_snapshot(&self, name: &str, record: &SnapshotRecord, owner: Owner) -> io::Result<()> {
        let directory = directory::make_and_open(self.temporary(), name, 0o711)?;
        fault_point!("snapshot.directory-made");
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        for child in ["upper", "work"] {
            let child = directory::make_and_open(&directory, child, 0o755)?;
            if (owner.uid, owner.gid) != own {
                fs::fchown(&child, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
            }
            // The container's `/` has these, whatever the engine's umask is.
            fs::fchmod(&child, Mode::from_raw_mode(0o755))?;
        }
        write_record(&directory, RECORD, record, Durability::Unsynced).map_err(io::Error::other)
    }

    fn describe_snapshot(&self, container: &ContainerId, record: &SnapshotRecord) -> Snapshot {
        let directory = self.data_root().join("containers").join(container.as_str());
        Snapshot {
            upper: directory.join("upper"),
            work: directory.join("work"),
            layers: self.lower_directories(&record.layers),
            directory,
        }
    }

    /// Layers' directories, the top one first. A layer that an image has twice counts where it is uppermost: that
    /// hides all it has further down, and overlayfs refuses one directory in two places (ELOOP).
    pub(crate) fn lower_directories(&self, diff_ids: &[Digest]) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        diff_ids
            .iter()
            .rev()
            .filter(|layer| seen.insert(**layer))
            .map(|layer| self.layer_path(layer))
            .collect()
    }

    /// Finds the snapshots on the disk. One whose record was torn by a power cut counts as using nothing: its
    /// container is then the engine's to judge.
    pub(crate) fn read_snapshots(&self) -> Result<HashMap<ContainerId, SnapshotRecord>, StoreError> {
        let error = |errno: Errno| StoreError::Directory {
            path: self.data_root().join("containers"),
            source: errno.into(),
        };
        let mut snapshots = HashMap::new();
        for (name, _) in directory::names(&self.containers).map_err(error)? {
            let id = std::str::from_utf8(&name).ok().and_then(|name| name.parse::<ContainerId>().ok());
            let Some(id) = id else { continue };
            let directory = directory::open_child(&self.containers, &name).map_err(error)?;
            let record = match read_record(&directory, RECORD) {
                // Not torn: nobody may take the layers from a container because there were no descriptors.
                Err(error) if error.is_scarcity() => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(container.id = %id, %error, "A snapshot's record is torn");
                    Some(SnapshotRecord::default())
                }
                Ok(record) => record,
            };
            if let Some(record) = record {
                snapshots.insert(id, record);
            }
        }
        Ok(snapshots)
    }
}
