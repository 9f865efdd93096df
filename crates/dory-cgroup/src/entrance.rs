//! Joining without the wait that moving another process costs.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::error::CgroupError;

/// The way into a container's groups for a process that is yet to be made.
///
/// Moving a process by its pid makes the kernel lock out every fork on the machine, and that lock first waits for a
/// grace period: 6 to 12 ms were measured for eight v1 trees. A process that is cloned straight into its v2 group, and a
/// single-threaded one that moves itself on v1 by writing `0` to `tasks`, need no such lock: 0.25 ms.
///
/// Opened by the engine or shim; the child may already be without privilege or in a user namespace of its own when it
/// enters, since the kernel looks at who opened the files.
#[derive(Debug)]
pub struct Entrance {
    v1: Vec<(PathBuf, File)>,
    v2: Option<OwnedFd>,
}

impl Entrance {
    /// Opens groups, given as whether they are v2 and where they are.
    pub(crate) fn open(groups: impl Iterator<Item = (bool, PathBuf)>) -> Result<Self, CgroupError> {
        let mut entrance = Self { v1: Vec::new(), v2: None };
        for (is_v2, path) in groups {
            let failed = |path: &PathBuf, source: io::Error| CgroupError::Open { path: path.clone(), source };
            if is_v2 {
                entrance.v2 = Some(open_directory(&path).map_err(|source| failed(&path, source))?);
            } else {
                let path = path.join("tasks");
                let file = File::options().write(true).open(&path).map_err(|source| failed(&path, source))?;
                entrance.v1.push((path, file));
            }
        }
        Ok(entrance)
    }

    /// What `CLONE_INTO_CGROUP` takes (clone3(2), 5.7); `None` without a v2 tree. A process made otherwise must be
    /// moved with [`crate::Group::join`] or [`crate::Group::join_for_exec`].
    pub fn v2(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process into all v1 trees. It must have one thread only, for no other is moved.
    ///
    /// # Errors
    /// [`CgroupError::Write`] at the first tree that refuses.
    pub fn enter_v1(&self) -> Result<(), CgroupError> {
        self.v1.iter().try_for_each(|(path, file)| {
            let mut file = file;
            file.write_all(b"0").map_err(|source| CgroupError::Write {
                path: path.clone(),
                value: "0".to_owned(),
                source,
            })
        })
    }
}

fn open_directory(path: &PathBuf) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
