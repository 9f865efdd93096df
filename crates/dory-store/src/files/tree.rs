//! A container's files as the container sees them.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::FileError;
use super::error::text;
use super::ids::IdMap;
use super::links::follow;
use super::pack::Packer;
use super::place::Place;

/// How often a walk is begun again that renames elsewhere disturbed (openat2(2), `EAGAIN`).
const DISTURBED_MAX: usize = 10_000;

/// What is at a path; API 1.51, header `X-Docker-Container-Path-Stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last component of the path that was asked for: `/` for the root, `.` for a path that ends so.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Type and permissions, as in `st_mode` (inode(7)).
    pub mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// For a symbolic link, the absolute path in the container that it leads to at last; otherwise empty.
    pub link_target: String,
}

/// A container's files, mounts included.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    ids: IdMap,
}

/// Something in a [`Tree`], open as a reference.
#[derive(Debug)]
pub struct Found<'a> {
    tree: &'a Tree,
    place: Place,
    fd: OwnedFd,
    stat: Stat,
}

impl Tree {
    /// The tree below `root`, a directory that may be open as a mere reference (`O_PATH`), in any mount namespace. Owners
    /// are shown and given in the container's ids.
    pub fn new(root: OwnedFd, ids: IdMap) -> Self {
        Self { root, ids }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(super) fn ids(&self) -> &IdMap {
        &self.ids
    }

    /// What is at `path`. Its last component is followed only where something stands behind it, be it `/`.
    ///
    /// # Errors
    /// [`FileError::NotFound`], or [`FileError::Path`] for what cannot be looked at.
    pub fn find(&self, path: &str) -> Result<Found<'_>, FileError> {
        let place = Place::parse(path);
        let failed = |errno| match errno {
            Errno::NOENT => FileError::NotFound { path: path.to_owned() },
            errno => FileError::at("lstat", place.display().as_bytes(), errno),
        };
        let (directory, name) = place.split();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut fd = open_in_root(self.root(), &directory, flags, ResolveFlags::empty()).map_err(failed)?;
        if let Some(name) = name {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fd = fs::openat(&fd, name, flags, Mode::empty()).map_err(failed)?;
        }
        let stat = fs::fstat(&fd).map_err(failed)?;
        Ok(Found { tree: self, place, fd, stat })
    }

    /// Follows every link of `place` as the container would; what does not exist is taken as it is written.
    fn evaluate(&self, place: &Place) -> Result<Vec<u8>, Errno> {
        let read_link = |walked: &[Vec<u8>]| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            match open_in_root(self.root(), &walked.join(&b'/'), flags, ResolveFlags::NO_SYMLINKS) {
                Ok(fd) if is(&fs::fstat(&fd)?, FileType::Symlink) => {
                    fs::readlinkat(&fd, "", Vec::new()).map(|target| Some(target.into_bytes()))
                }
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(errno) => Err(errno),
            }
        };
        let end = follow(place.components().iter().cloned(), true, read_link)?.ok_or(Errno::LOOP)?;
        Ok(end.join(&b'/'))
    }
}

impl Found<'_> {
    /// What it is.
    ///
    /// # Errors
    /// [`FileError::Path`] for a link that leads round in circles.
    pub fn stat(&self) -> Result<PathStat, FileError> {
        let mut link_target = String::new();
        if is(&self.stat, FileType::Symlink) {
            let end = self.tree.evaluate(&self.place);
            let end =
                end.map_err(|errno| FileError::at("readlink", self.place.display().as_bytes(), errno))?;
            link_target = format!("/{}", text(&end));
        }
        Ok(PathStat {
            name: text(&self.place.name()),
            size: self.stat.st_size,
            mode: self.stat.st_mode,
            modified: (self.stat.st_mtime, self.stat.st_mtime_nsec as u32),
            link_target,
        })
    }

    /// Writes an archive of it, and of everything in it, to `sink`; the entries' names begin with its own.
    ///
    /// # Errors
    /// [`FileError::Write`] where the sink is gone, [`FileError::Path`] for what cannot be read: the archive is then
    /// without its end.
    pub fn pack(self, sink: impl Write) -> Result<(), FileError> {
        let name = self.place.prefix();
        self.pack_as(&name, sink)
    }

    /// As [`Self::pack`], with entries whose names begin with `name`.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub fn pack_as(self, name: &[u8], mut sink: impl Write) -> Result<(), FileError> {
        let mut packer = Packer::new(&mut sink);
        if is(&self.stat, FileType::Directory) {
            packer.tree(self.fd, &self.stat, name.to_vec(), self.tree.ids())?;
        } else {
            packer.entry(self.fd.as_fd(), &self.stat, name, self.tree.ids())?;
        }
        packer.finish()
    }
}

pub(super) fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// Opens `path` as a process sees it whose root is `root`: symbolic links and `..` end there.
pub(super) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { b"." } else { path };
    for _ in 0..DISTURBED_MAX {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens for reading what `reference` refers to: the very file that was looked at, whatever has its name by now.
pub(super) fn reopen(reference: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    fs::open(proc_path(reference), flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

/// The path by which the kernel finds what a descriptor refers to.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd))
}

/// Opens `name` in `directory` as a reference, and says what it is.
pub(super) fn look(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, Stat), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(directory, name, flags, Mode::empty())?;
    let stat = fs::statat(&fd, "", AtFlags::EMPTY_PATH)?;
    Ok((fd, stat))
}
