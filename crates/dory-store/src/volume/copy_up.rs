//! What an image has where a new volume is mounted is copied into the volume, once.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::directory;

/// Something cannot be copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy `{path}` into the volume")]
pub struct CopyUpError {
    /// Its path below the copied directory.
    pub path: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl CopyUpError {
    fn at(path: &[u8], source: impl Into<io::Error>) -> Self {
        Self { path: String::from_utf8_lossy(path).into_owned(), source: source.into() }
    }
}

/// Copies everything in the directory `source` into the directory `destination`, and the directory's own owner and
/// permissions with it, unless `destination` has something in it already; false then. Both are open for reading.
///
/// Owners, permissions, extended attributes, times and hard links are kept. Nothing outside the two directories is
/// reached, whatever symbolic links say.
///
/// # Errors
/// [`CopyUpError`] with what could not be copied; what was copied before stays.
pub fn copy_up(source: BorrowedFd<'_>, destination: BorrowedFd<'_>) -> Result<bool, CopyUpError> {
    if !directory::names(destination).map_err(|errno| CopyUpError::at(b".", errno))?.is_empty() {
        return Ok(false);
    }
    let mut copy = Copy { source, destination, links: HashMap::new(), directories: vec![b".".to_vec()] };
    let mut next = 0;
    while let Some(path) = copy.directories.get(next).cloned() {
        copy.content(&path)?;
        next += 1;
    }
    // The deepest first: each change in a directory changes its time.
    for path in std::mem::take(&mut copy.directories).iter().rev() {
        copy.finish_directory(path).map_err(|error| CopyUpError::at(path, error))?;
    }
    Ok(true)
}

/// A copy in the making; directories are reached by their paths, so that few descriptors are open at any depth.
struct Copy<'a> {
    source: BorrowedFd<'a>,
    destination: BorrowedFd<'a>,
    /// Where a file with several names was copied to, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Every directory, parents first.
    directories: Vec<Vec<u8>>,
}

impl Copy<'_> {
    /// Copies what is in the directory `path`, and notes the directories among it.
    fn content(&mut self, path: &[u8]) -> Result<(), CopyUpError> {
        let error = |errno: Errno| CopyUpError::at(path, errno);
        let from = directory::open_beneath(self.source, path).map_err(error)?;
        let to = directory::open_beneath(self.destination, path).map_err(error)?;
        for (name, _) in directory::names(&from).map_err(error)? {
            let below = [path, b"/", &name].concat();
            self.entry(&from, &to, &name, &below).map_err(|error| CopyUpError::at(&below, error))?;
        }
        Ok(())
    }

    /// Copies one entry.
    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8], path: &[u8]) -> io::Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            self.directories.push(path.to_vec());
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                return self.link(first, to, name);
            }
            self.links.insert(key, path.to_vec());
        }
        match kind {
            FileType::RegularFile => copy_file(from, to, name, &stat),
            FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new())?;
                fs::symlinkat(&*target, to, name)?;
                finish_node(to, name, &stat, kind)
            }
            FileType::Socket => Ok(()),
            _ => {
                fs::mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
                finish_node(to, name, &stat, kind)
            }
        }
    }

    /// Gives what was copied to `first` another name.
    fn link(&self, first: &[u8], to: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let slash = first.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let directory = directory::open_beneath(self.destination, &first[..slash])?;
        Ok(fs::linkat(&directory, &first[slash + 1..], to, name, AtFlags::empty())?)
    }

    /// Gives a directory, whose content is there, what its source has.
    fn finish_directory(&self, path: &[u8]) -> io::Result<()> {
        let from = directory::open_beneath(self.source, path)?;
        let to = directory::open_beneath(self.destination, path)?;
        let stat = fs::fstat(&from)?;
        copy_metadata(from.as_fd(), to.as_fd(), &stat)
    }
}

/// Copies a regular file, by reference where the filesystem can.
fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &[u8], stat: &Stat) -> io::Result<()> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut source = std::fs::File::from(fs::openat(from, name, flags | OFlags::RDONLY, Mode::empty())?);
    let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mut target = std::fs::File::from(fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?);
    if fs::ioctl_ficlone(&target, &source).is_err() {
        io::copy(&mut source, &mut target)?;
    }
    copy_metadata(source.as_fd(), target.as_fd(), stat)
}

/// Owner, then permissions and attributes (a change of owner takes some of them away), then times.
fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(from, to)?;
    fs::futimens(to, &timestamps(stat))?;
    Ok(())
}

/// Copies attributes; those of overlayfs are about the source only, and what is not allowed is left out.
fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0; 64 << 10];
    let length = match fs::flistxattr(from, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    let mut value = vec![0; 64 << 10];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let length = fs::fgetxattr(from, name, value.as_mut_slice())?;
        match fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Owner, permissions and times of what is not opened.
fn finish_node(to: &OwnedFd, name: &[u8], stat: &Stat, kind: FileType) -> io::Result<()> {
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    fs::utimensat(to, name, &timestamps(stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn timestamps(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}
