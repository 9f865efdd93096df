//! One engine per data-root: a lock that dies with its holder and says who that is.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::StoreError;

/// The lock's file, in the data-root.
const FILE: &str = "lock";
/// How much of the holder's words is repeated, in bytes.
const HOLDER_LENGTH_MAX: u64 = 4096;

/// How often a lock that somebody holds is tried.
const ATTEMPTS: u32 = 30;
/// How long to wait in between.
const PAUSE: Duration = Duration::from_millis(10);

/// The data-root's lock, held until dropped.
#[derive(Debug)]
pub(crate) struct DataRootLock {
    /// The open file is the lock; close-on-exec, because a container's shim must not hold it on.
    _file: std::fs::File,
}

impl DataRootLock {
    /// Takes the lock and leaves `holder` and this process's id for whoever comes second.
    pub(crate) fn acquire(data_root: &Path, directory: impl AsFd, holder: &str) -> Result<Self, StoreError> {
        Self::take(data_root, directory, holder, FlockOperation::NonBlockingLockExclusive)
    }

    /// As [`DataRootLock::acquire`], together with others who share it.
    pub(crate) fn share(data_root: &Path, directory: impl AsFd, holder: &str) -> Result<Self, StoreError> {
        Self::take(data_root, directory, holder, FlockOperation::NonBlockingLockShared)
    }

    fn take(
        data_root: &Path,
        directory: impl AsFd,
        holder: &str,
        operation: FlockOperation,
    ) -> Result<Self, StoreError> {
        let error = |source| StoreError::Directory { path: data_root.join(FILE), source };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(directory, FILE, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| error(errno.into()))?;
        let mut file = std::fs::File::from(file);
        match lock(&file, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Who holds it is a courtesy: without it the refusal stands all the same.
                let _ = file.take(HOLDER_LENGTH_MAX).read_to_string(&mut text);
                let holder = text.lines().collect::<Vec<_>>().join(", ");
                return Err(StoreError::InUse { data_root: data_root.to_owned(), holder });
            }
            Err(errno) => return Err(error(errno.into())),
        }
        file.set_len(0).map_err(error)?;
        write!(file, "pid {}\n{holder}\n", std::process::id()).map_err(error)?;
        Ok(Self { _file: file })
    }
}

/// Locks, with patience: a child that the last holder started has a copy of the lock until it executes its program, so the
/// lock may outlive its holder by a moment.
fn lock(file: impl AsFd, operation: FlockOperation) -> Result<(), Errno> {
    for _ in 0..ATTEMPTS {
        match fs::flock(&file, operation) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
    Err(Errno::WOULDBLOCK)
}
