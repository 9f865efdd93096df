//! One store of images for several engines, which write to it in turn.
//!
//! ```text
//! <images>/lock                       held shared by every engine that is open; an engine that has it alone keeps all out
//! <images>/turn                       locked by whoever looks or writes; its eight bytes count the changes
//! <images>/images.json, layers/, content/
//! <images>/children/<engine>/         that engine's lease (see `children`), its tmp/ and its trash/
//! ```
//!
//! Each engine knows the store by heart, as one that has it alone. Before it looks or writes it takes its turn, and reads
//! again what others have changed since, which the count tells it at the cost of one read. **The count goes up before a
//! change is made**: an engine that dies between the two has the others read once for nothing, and never leaves them with an
//! index that is not the disk's.
//!
//! What an engine's containers, builds and pulls use stands in its lease before its turn ends, and whoever deletes layers
//! reads all leases within his own turn. A lease that cannot be read keeps everything.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::children::Lease;
use super::{State, Store};
use crate::directory;
use crate::error::StoreError;
use crate::image::ImageIndex;
use crate::lock::DataRootLock;
use crate::record::read_record;
use crate::trash::Trash;

/// The file with the count.
const TURN: &str = "turn";
/// What no count is: nothing has been read yet.
const UNREAD: u64 = u64::MAX;

/// This engine's part in a store that others write to as well.
#[derive(Debug)]
pub(super) struct Membership {
    /// Locked for a turn; the lock is the open file's, so it ends with this process at the latest.
    turn: File,
    /// The count when everything was read last.
    seen: AtomicU64,
    pub(super) lease: Lease,
    pub(super) temporary: OwnedFd,
    pub(super) trash: Trash,
    _lock: DataRootLock,
}

/// Where images and layers are.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) path: PathBuf,
    pub(super) root: OwnedFd,
    /// `None` for the data-root itself, which this engine has alone.
    pub(super) membership: Option<Membership>,
}

impl Images {
    /// The images of the data-root itself.
    pub(super) fn alone(path: &Path, root: &OwnedFd) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), root: root.try_clone()?, membership: None })
    }

    /// Takes part in the store at `path`, which is made where there is none, under the `name` of this one.
    pub(super) fn shared(path: &Path, name: &str, holder: &str) -> Result<Self, StoreError> {
        let error = |source: io::Error| StoreError::Directory { path: path.to_owned(), source };
        let path = super::make_root(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(&path, flags, Mode::empty()).map_err(|errno| error(errno.into()))?;
        let lock = DataRootLock::share(&path, &root, holder)?;
        let membership = Self::join(&root, name, lock).map_err(error)?;
        Ok(Self { path, root, membership: Some(membership) })
    }

    fn join(root: &OwnedFd, name: &str, lock: DataRootLock) -> io::Result<Membership> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let turn = File::from(fs::openat(root, TURN, flags, Mode::from_raw_mode(0o600))?);
        let children = directory::make_and_open(root, "children", 0o700)?;
        let own = directory::make_and_open(&children, name, 0o700)?;
        let child = |name: &str| directory::make_and_open(&own, name, 0o700);
        let (temporary, trash) = (child("tmp")?, Trash::new(child("trash")?)?);
        let lease = Lease::make(&children, name)?;
        Ok(Membership { turn, seen: AtomicU64::new(UNREAD), lease, temporary, trash, _lock: lock })
    }

    /// Says that a change comes, within this engine's turn.
    ///
    /// # Errors
    /// The count cannot be written: the change must not be made.
    pub(super) fn announce(&self) -> io::Result<()> {
        self.membership.as_ref().map_or(Ok(()), Membership::announce)
    }

    /// What is wrong with the directory as a whole.
    pub(super) fn error(&self, source: io::Error) -> StoreError {
        StoreError::Directory { path: self.path.clone(), source }
    }
}

impl Membership {
    /// Waits for this engine's turn. Turns are short: the longest thing in one is a sync of the index.
    fn begin_turn(&self) -> Result<Turn<'_>, Errno> {
        loop {
            match fs::flock(&self.turn, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                result => return result.map(|()| Turn(&self.turn)),
            }
        }
    }

    /// How many changes there were.
    fn count(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        match self.turn.read_at(&mut bytes, 0)? {
            0 => Ok(0),
            8 => Ok(u64::from_le_bytes(bytes)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn announce(&self) -> io::Result<()> {
        // A count that a power cut has torn begins anew; whoever is open has read everything by then.
        let next = self.count().unwrap_or(0).wrapping_add(1);
        self.turn.write_all_at(&next.to_le_bytes(), 0)?;
        self.seen.store(next, Ordering::Relaxed);
        Ok(())
    }
}

/// A turn, until dropped.
#[derive(Debug)]
struct Turn<'a>(&'a File);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Nothing but a closed descriptor makes it fail.
        let _ = fs::flock(self.0.as_fd(), FlockOperation::Unlock);
    }
}

/// The store's state, nobody else's for as long as this exists: no other thread's and no other engine's.
#[derive(Debug)]
pub(crate) struct StateGuard<'a> {
    // Ends first: all threads take turns through one open file, so a thread must not end another one's.
    _turn: Option<Turn<'a>>,
    state: MutexGuard<'a, State>,
}

impl Deref for StateGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Store {
    /// Begins a turn, and reads what others have changed. Where that fails the state is what it was and marked as stale:
    /// good to look at, nothing to build a change on.
    pub(super) fn take_turn<'a>(&'a self, mut state: MutexGuard<'a, State>) -> StateGuard<'a> {
        let Some(membership) = &self.images.membership else { return StateGuard { _turn: None, state } };
        let turn = membership.begin_turn().map_err(io::Error::from);
        let read = match &turn {
            Ok(_) => self.catch_up(membership, &mut state),
            Err(error) => Err(io::Error::from(error.kind())),
        };
        state.is_stale = read.is_err();
        if let Err(error) = read {
            tracing::warn!(store = %self.images.path.display(), %error, "Cannot read what other engines have changed");
        }
        StateGuard { _turn: turn.ok(), state }
    }

    fn catch_up(&self, membership: &Membership, state: &mut State) -> io::Result<()> {
        let count = membership.count()?;
        let seen = membership.seen.load(Ordering::Relaxed);
        if count == seen {
            return Ok(());
        }
        if seen == UNREAD {
            // The store is being opened and reads everything anyway.
            membership.seen.store(count, Ordering::Relaxed);
            return Ok(());
        }
        let index: Option<ImageIndex> =
            read_record(&self.images.root, ImageIndex::RECORD).map_err(io::Error::other)?;
        self.find_changed_layers(state)?;
        state.index = index.unwrap_or_default();
        let State { configs, index, .. } = state;
        configs.retain(|id, _| index.images.contains_key(id));
        membership.seen.store(count, Ordering::Relaxed);
        Ok(())
    }

    /// Takes in layers that others have made, and forgets those that they have deleted.
    fn find_changed_layers(&self, state: &mut State) -> Result<(), Errno> {
        let names: std::collections::HashSet<Vec<u8>> =
            directory::names(&self.layers)?.into_iter().map(|(name, _)| name).collect();
        let State { layers, unsynced, .. } = state;
        layers.retain(|layer, _| names.contains(layer.hex().as_bytes()));
        unsynced.retain(|layer| layers.contains_key(layer));
        for name in names {
            if let Some((layer, record)) = self.read_layer(&name)
                && layers.insert(layer, record).is_none()
            {
                // Whoever made it may not have synced it before this engine's index names it.
                unsynced.insert(layer);
            }
        }
        Ok(())
    }

    /// Says in this engine's lease what it uses, where others delete layers too.
    ///
    /// # Errors
    /// The lease cannot be written: nothing may be used that was not used before.
    pub(crate) fn claim(&self, state: &State) -> io::Result<()> {
        let Some(membership) = &self.images.membership else { return Ok(()) };
        let mut used: std::collections::BTreeSet<_> =
            state.leases.keys().chain(state.left.keys()).copied().collect();
        used.extend(state.snapshots.values().flat_map(|snapshot| &snapshot.layers));
        used.extend(state.build_cache.layers());
        membership.lease.renew(used).map_err(io::Error::other)
    }

    /// Refuses to build a change on a state that is not the disk's.
    ///
    /// # Errors
    /// Where it is not.
    pub(super) fn ensure_current(&self, state: &State) -> io::Result<()> {
        match state.is_stale {
            false => Ok(()),
            true => Err(io::Error::other("what other engines have changed in it cannot be read")),
        }
    }
}
