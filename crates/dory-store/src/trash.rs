//! What is to be removed is renamed away at once and deleted behind everybody's back.
//!
//! A tree of a million files takes seconds to delete; whoever asked for it waits for one rename only. What is left
//! when the process dies is deleted at the next start.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use dory_sys::fault_point;
use rustix::fs;
use rustix::io::Errno;

use crate::directory;
use crate::record::temporary_name;

/// The directory `trash/` and the thread that empties it.
#[derive(Debug)]
pub(crate) struct Trash {
    directory: Arc<OwnedFd>,
    deletions: Sender<Vec<u8>>,
    pending: Arc<Pending>,
}

/// How many deletions are still to be done.
#[derive(Debug, Default)]
struct Pending {
    count: Mutex<usize>,
    emptied: Condvar,
}

impl Pending {
    /// Adds `change` to the count, and wakes waiters at zero.
    fn add(&self, change: isize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add_signed(change);
        if *count == 0 {
            self.emptied.notify_all();
        }
    }
}

impl Trash {
    /// Takes over the trash directory; what an earlier process left in it is deleted.
    pub(crate) fn new(directory: OwnedFd) -> std::io::Result<Self> {
        let directory = Arc::new(directory);
        let left = directory::names(&*directory)?;
        let (deletions, receiver) = mpsc::channel();
        let pending = Arc::new(Pending::default());
        let (own, own_pending) = (Arc::clone(&directory), Arc::clone(&pending));
        thread::Builder::new()
            .name("store-trash".into())
            .spawn(move || empty(&own, &own_pending, &receiver))?;
        let trash = Self { directory, deletions, pending };
        for (name, _) in left {
            trash.delete(name);
        }
        Ok(trash)
    }

    /// Takes `name` out of `parent` and deletes it later. Nothing there is no error.
    pub(crate) fn discard(&self, parent: impl AsFd, name: &[u8]) -> Result<(), Errno> {
        let discarded = temporary_name();
        match fs::renameat(parent, name, &*self.directory, &discarded) {
            Ok(()) => self.delete(discarded.into_bytes()),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Waits until everything discarded so far is gone from the disk.
    pub(crate) fn wait_until_empty(&self) {
        let count = self.pending.count.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.pending.emptied.wait_while(count, |count| *count > 0));
    }

    /// Hands `name` to the thread.
    fn delete(&self, name: Vec<u8>) {
        self.pending.add(1);
        if self.deletions.send(name).is_err() {
            self.pending.add(-1);
        }
    }
}

/// The thread's work: deletes what it is told to until the store is dropped.
fn empty(directory: &OwnedFd, pending: &Pending, deletions: &Receiver<Vec<u8>>) {
    for name in deletions {
        fault_point!("trash.before-deletion");
        if let Err(errno) = directory::remove(directory.as_fd(), &name) {
            tracing::warn!(name = %String::from_utf8_lossy(&name), %errno, "Cannot delete discarded files");
        }
        pending.add(-1);
    }
}
