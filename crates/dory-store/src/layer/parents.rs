//! The directories that entries are made in, opened once for the many entries that share them.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, Mode};
use rustix::io::Errno;

use crate::directory;

/// How many directories stay open; archives come nearly always in the order of a walk.
const OPEN_MAX: usize = 64;
/// The permissions of directories that an archive leaves out; Docker's `ImpliedDirectoryMode`.
const IMPLIED_MODE: u32 = 0o755;

/// An open directory.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) fd: OwnedFd,
    /// New files take over the directory's group, and new directories this bit too.
    pub(super) set_group_id: bool,
}

impl Parent {
    pub(super) fn new(fd: OwnedFd) -> Result<Self, Errno> {
        let mode = Mode::from_raw_mode(fs::fstat(&fd)?.st_mode);
        Ok(Self { fd, set_group_id: mode.contains(Mode::SGID) })
    }
}

/// Open directories by their path below the layer's root.
pub(super) struct Parents<'a> {
    root: BorrowedFd<'a>,
    open: HashMap<Vec<u8>, Rc<Parent>>,
}

impl<'a> Parents<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, open: HashMap::new() }
    }

    /// The directory `path`; the ones that are missing on the way are made. Symbolic links that the layer itself has
    /// are followed, as by a process whose root is the layer.
    pub(super) fn get(&mut self, path: &[u8]) -> Result<Rc<Parent>, Errno> {
        if let Some(parent) = self.open.get(path) {
            return Ok(Rc::clone(parent));
        }
        let fd = match self.open(path) {
            Err(Errno::NOENT) => {
                self.make_implied(path)?;
                self.open(path)?
            }
            result => result?,
        };
        self.insert(path, Parent::new(fd)?)
    }

    /// Remembers a directory that was opened otherwise.
    pub(super) fn insert(&mut self, path: &[u8], parent: Parent) -> Result<Rc<Parent>, Errno> {
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        let parent = Rc::new(parent);
        self.open.insert(path.to_vec(), Rc::clone(&parent));
        Ok(parent)
    }

    /// Closes everything: something that may have been a directory or a link to one was replaced.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// Opens `path` confined to the layer; the empty path is its root.
    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        directory::open_in_root(self.root, if path.is_empty() { b"." } else { path })
    }

    /// Makes `path` and the directories above it.
    fn make_implied(&self, path: &[u8]) -> Result<(), Errno> {
        let mut directory = self.open(b"")?;
        let mut done = 0;
        for component in path.split(|byte| *byte == b'/') {
            done += component.len() + 1;
            match fs::mkdirat(&directory, component, Mode::from_raw_mode(IMPLIED_MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            directory = self.open(&path[..done - 1])?;
        }
        Ok(())
    }
}
