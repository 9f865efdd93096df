//! Stores that use this one from below: what they use is not deleted.
//!
//! ```text
//! children/<name>/lease.json   the diff-ids in use, written by the child
//! children/<name>/alive        locked by the child as long as its engine runs
//! share/                       what a child gets to see, with mount points for the rest
//! share/images.json            a copy of the index
//! share/{layers,content}       empty; the engine mounts `layers` and `content` over them, read-only
//! ```
//!
//! **What the owner does**: a layer that nothing else uses and no lease names is renamed away, then the leases are read
//! again, and only then it is deleted; if a lease names it by now, it is renamed back. **What the child does**: it writes
//! its lease, and then looks whether the layer is there, for a fifth of a second. So one of the two always sees the other,
//! and neither holds a lock that the other waits for.
//!
//! **When a lease ends**: with the container that it was made for; or when its child's engine does not run, and has not
//! written it for a week. A child can keep layers by its lease and do nothing else: everything in its directory is
//! foreign data, read with bounds.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dory_types::{ContainerId, Digest};
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{State, Store};
use crate::directory;
use crate::error::StoreError;
use crate::image::ImageIndex;
use crate::record::{Durability, parse_record, write_record};

/// The lease's record.
const LEASE: &str = "lease.json";
/// The file that a child locks while it lives.
const ALIVE: &str = "alive";
/// The directory with what children see.
const SHARE: &str = "share";
/// The longest lease that is read, in bytes: fifty thousand layers.
const LEASE_LENGTH_MAX: u64 = 4 << 20;
/// How long the lease of a child stays that does not run.
const EXPIRES: Duration = Duration::from_secs(7 * 24 * 3600);

/// This store's lease in the store below it.
#[derive(Debug)]
pub(super) struct Lease {
    directory: OwnedFd,
    /// What was written last.
    written: Mutex<Option<BTreeSet<Digest>>>,
    /// Locked as long as it is open.
    _alive: OwnedFd,
}

impl Lease {
    /// Uses the directory that the owner made.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::of(fs::open(path, flags, Mode::empty())?)?)
    }

    /// Makes a directory among the owner's `children`.
    pub(super) fn make(children: &OwnedFd, name: &str) -> Result<Self, Errno> {
        Self::of(directory::make_and_open(children, name, 0o700)?)
    }

    fn of(directory: OwnedFd) -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let alive = fs::openat(&directory, ALIVE, flags, Mode::from_raw_mode(0o600))?;
        fs::flock(&alive, FlockOperation::NonBlockingLockExclusive)?;
        // What an earlier holder left; nobody else writes here.
        if let Err(error) = crate::record::remove_temporaries(&directory) {
            tracing::warn!(%error, "Cannot clean a lease's directory");
        }
        Ok(Self { directory, written: Mutex::default(), _alive: alive })
    }

    /// Says what is used, where that has changed.
    pub(super) fn renew(&self, used: BTreeSet<Digest>) -> Result<(), crate::RecordError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.as_ref() != Some(&used) {
            write_record(&self.directory, LEASE, &used, Durability::Unsynced)?;
            *written = Some(used);
        }
        Ok(())
    }
}

impl Store {
    /// Everything that children use, of which some are perhaps gone.
    ///
    /// # Errors
    /// In a store that several engines write to, a lease that cannot be read: it may name anything. A child that only reads
    /// keeps nothing with such a one.
    pub(super) fn leased_to_children(&self) -> Result<HashSet<Digest>, StoreError> {
        let names = directory::names(&self.children).unwrap_or_default();
        let mut leased = HashSet::new();
        for (name, _) in names {
            let Ok(child) = directory::open_child(&self.children, &name) else { continue };
            match read_lease(&child) {
                Ok(lease) => leased.extend(lease),
                Err(error) if self.images.membership.is_some() => return Err(self.images.error(error)),
                Err(error) => {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    tracing::warn!(child = name, %error, "A child's lease cannot be read");
                }
            }
        }
        Ok(leased)
    }

    /// Makes ready what the container `child` needs to use this store from below. The answer's paths are what it gets to
    /// see, each with its place below the first one, and the directory for its lease, which it may write.
    ///
    /// # Errors
    /// [`StoreError::Directory`] and [`StoreError::Record`].
    pub fn share_with(&self, child: &ContainerId) -> Result<Share, StoreError> {
        let error = |name: &str| {
            let path = self.images.path.join(name);
            move |errno: Errno| StoreError::Directory { path, source: errno.into() }
        };
        let share = directory::make_and_open(&self.images.root, SHARE, 0o700).map_err(error(SHARE))?;
        for place in ["layers", "content"] {
            directory::make_and_open(&share, place, 0o700).map_err(error(SHARE))?;
        }
        directory::make_and_open(&self.children, child.as_str(), 0o700).map_err(error("children"))?;
        let state = self.lock();
        write_record(&share, ImageIndex::RECORD, &state.index, Durability::Unsynced)?;
        let below = |name: &str| self.images.path.join(name);
        Ok(Share {
            root: below(SHARE),
            layers: below("layers"),
            content: below("content"),
            lease: below("children").join(child.as_str()),
        })
    }

    /// Brings the children's copy of the index up to date, where there are any.
    pub(super) fn publish_index(&self, index: &ImageIndex) {
        let published = match directory::open_child(&self.images.root, SHARE) {
            Ok(share) => {
                // We hold the state, so a temporary name there is a dead engine's. Where it stays it costs a little room.
                let _left = crate::record::remove_temporaries(&share);
                write_record(&share, ImageIndex::RECORD, index, Durability::Unsynced)
            }
            Err(_) => return,
        };
        if let Err(error) = published {
            tracing::warn!(%error, "Children cannot be told of a new image");
        }
    }

    /// Ends the lease of a container that is gone.
    pub(crate) fn end_lease(&self, child: &ContainerId) {
        // What is left is found at the next start.
        let _ = self.layer_trash().discard(&self.children, child.as_str().as_bytes());
    }

    /// Ends leases of containers that are gone, and of engines that have not been seen for long.
    /// Engines that share the store keep theirs: their containers may wait for years to be started again.
    pub(super) fn expire_leases(&self, state: &State) {
        if self.images.membership.is_some() {
            return;
        }
        for (name, _) in directory::names(&self.children).unwrap_or_default() {
            let container = std::str::from_utf8(&name).ok().and_then(|name| name.parse::<ContainerId>().ok());
            let is_over = match container {
                Some(container) => !state.snapshots.contains_key(&container),
                None => !self.is_alive(&name),
            };
            if is_over {
                let _ = self.layer_trash().discard(&self.children, &name);
            }
        }
    }

    /// True for a child whose engine runs or did so within the last week.
    fn is_alive(&self, name: &[u8]) -> bool {
        let Ok(child) = directory::open_child(&self.children, name) else { return false };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = fs::openat(&child, ALIVE, flags, Mode::empty());
        if lock.is_ok_and(|lock| {
            fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
        }) {
            return true;
        }
        let written = fs::statat(&child, LEASE, AtFlags::SYMLINK_NOFOLLOW).or_else(|_| fs::fstat(&child));
        let Ok(written) = written else { return false };
        let written = UNIX_EPOCH + Duration::from_secs(u64::try_from(written.st_mtime).unwrap_or(0));
        SystemTime::now().duration_since(written).is_ok_and(|age| age < EXPIRES)
    }
}

/// What a container sees of this store. All but the lease is to be mounted read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The directory with the index.
    pub root: PathBuf,
    /// To be mounted on its `layers`.
    pub layers: PathBuf,
    /// To be mounted on its `content`.
    pub content: PathBuf,
    /// Where the child writes its lease.
    pub lease: PathBuf,
}

/// Reads a lease: a regular file of sensible length, whatever the child made of it.
fn read_lease(child: &OwnedFd) -> io::Result<BTreeSet<Digest>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match fs::openat(child, LEASE, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(BTreeSet::new()),
        file => file?,
    };
    let stat = fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut content = Vec::new();
    std::fs::File::from(file).take(LEASE_LENGTH_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LEASE_LENGTH_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    parse_record(LEASE, &content).map_err(io::Error::other)
}
