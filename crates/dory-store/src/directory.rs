//! Directories by descriptor: opening beneath a root, and removing trees of any size.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::record::temporary_name;

/// How a directory is opened for everything that needs more than its place in the tree.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// How many directories a removal holds open; deeper ones are first moved up.
const DEPTH_MAX: usize = 64;

/// Opens the directory `name` in `parent`; `name` is one component, and no symbolic link is followed.
pub(crate) fn open_child(parent: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    fs::openat(parent, name, DIRECTORY, Mode::empty())
}

/// Opens the directory `path` as a process sees it whose root is `root`: symbolic links and `..` end there.
pub(crate) fn open_in_root(root: impl AsFd, path: impl Arg + Copy) -> Result<OwnedFd, Errno> {
    let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    retry_race(|| fs::openat2(&root, &*path.as_cow_c_str()?, flags, Mode::empty(), resolve))
}

/// Opens the file `path` as a process sees it whose root is `root`, with `flags`.
pub(crate) fn open_file_in_root(
    root: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    retry_race(|| fs::openat2(&root, &*path.as_cow_c_str()?, flags, Mode::empty(), resolve))
}

/// Opens the directory `path` beneath `root`, where no component may be a symbolic link.
pub(crate) fn open_beneath(root: impl AsFd, path: impl Arg + Copy) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    retry_race(|| fs::openat2(&root, &*path.as_cow_c_str()?, DIRECTORY, Mode::empty(), resolve))
}

/// Calls `open` again where a rename anywhere in the system disturbed a confined walk (openat2(2), EAGAIN).
fn retry_race(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    loop {
        match open() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Makes the directory `name` in `parent` where there is none, and opens it; a symbolic link is not followed.
///
/// # Errors
/// Those of mkdirat(2), but for `EEXIST`, and of openat(2).
pub fn make_and_open(parent: impl AsFd, name: &str, mode: u32) -> Result<OwnedFd, Errno> {
    match fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => open_child(parent, name),
        Err(errno) => Err(errno),
    }
}

/// The names in `directory`, without `.` and `..`, and what kind of file each is.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<(Vec<u8>, FileType)>, Errno> {
    // A descriptor of its own: reading moves the offset that duplicates share.
    let own = open_child(directory, ".")?;
    let mut names = Vec::new();
    for entry in Dir::new(own)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(names)
}

/// How much the files in a tree take on the disk, in bytes; a file with several names counts once.
pub(crate) fn size(root: &OwnedFd) -> Result<u64, Errno> {
    let mut total = 0;
    let mut seen = HashSet::new();
    let mut left = vec![b".".to_vec()];
    while let Some(path) = left.pop() {
        let directory = match open_beneath(root, path.as_slice()) {
            // Containers go on working in their volumes meanwhile.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            directory => directory?,
        };
        for (name, _) in names(&directory)? {
            let Ok(stat) = fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Directory {
                left.push([&path, b"/".as_slice(), &name].concat());
            } else if stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) {
                total += stat.st_blocks.unsigned_abs() * 512;
            }
        }
    }
    Ok(total)
}

/// Removes `name` in `parent`, whatever it is and whatever is in it. Nothing there is no error.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let mut remover = Remover { top: parent, moved: Vec::new() };
    remover.directory(parent, name, 0)?;
    while let Some(moved) = remover.moved.pop() {
        remover.directory(parent, moved.as_bytes(), 0)?;
    }
    Ok(())
}

/// Removes a tree with a bounded number of open descriptors and a bounded stack.
struct Remover<'a> {
    /// Where too deep directories are moved to.
    top: BorrowedFd<'a>,
    /// What they are called there.
    moved: Vec<String>,
}

impl Remover<'_> {
    /// Removes the directory `name`, which is `depth` levels below the top, or moves it there.
    fn directory(&mut self, parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<(), Errno> {
        match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        if depth >= DEPTH_MAX {
            let moved = temporary_name();
            gone_is_fine(fs::renameat(parent, name, self.top, &moved))?;
            self.moved.push(moved);
            return Ok(());
        }
        let directory = match open_child(parent, name) {
            Err(Errno::NOENT) => return Ok(()),
            directory => directory?,
        };
        self.content(&directory, depth)?;
        drop(directory);
        gone_is_fine(fs::unlinkat(parent, name, AtFlags::REMOVEDIR))
    }

    /// Removes everything in `directory`.
    fn content(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), Errno> {
        let mut directories = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_bytes() == b"." || name.to_bytes() == b".." {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                directories.push(name.to_bytes().to_vec());
                continue;
            }
            match fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Filesystems that tell no type in their listing.
                Err(Errno::ISDIR | Errno::PERM) => directories.push(name.to_bytes().to_vec()),
                Err(errno) => return Err(errno),
            }
        }
        directories.iter().try_for_each(|name| self.directory(directory.as_fd(), name, depth + 1))
    }
}

/// Somebody else, such as the thread of an engine that is just ending, may delete the same tree.
fn gone_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_deep_and_wide_trees() {
        let path = tempfile::tempdir().unwrap();
        let top = std::fs::File::open(path.path()).unwrap();
        fs::mkdirat(&top, "tree", Mode::from_raw_mode(0o700)).unwrap();
        let mut directory = open_child(&top, "tree").unwrap();
        for level in 0..2000 {
            std::os::unix::fs::symlink("/etc", path.path().join(format!("tree/link{level}"))).unwrap();
            fs::mkdirat(&directory, "d", Mode::from_raw_mode(0o700)).unwrap();
            directory = open_child(&directory, "d").unwrap();
        }
        remove(top.as_fd(), b"tree").unwrap();
        remove(top.as_fd(), b"tree").unwrap();
        assert_eq!(names(&top).unwrap(), []);
        assert!(std::path::Path::new("/etc/passwd").exists());
    }

    #[test]
    fn confined_opening() {
        let path = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(path.path().join("root/inner")).unwrap();
        std::fs::create_dir(path.path().join("outside")).unwrap();
        for (target, link) in [("../outside", "climbs"), ("/inner", "absolute"), ("inner", "relative")] {
            std::os::unix::fs::symlink(target, path.path().join("root").join(link)).unwrap();
        }
        let root = std::fs::File::open(path.path().join("root")).unwrap();
        assert_eq!(open_in_root(&root, "climbs").unwrap_err(), Errno::NOENT);
        for inside in ["absolute", "relative", "inner", "../../inner"] {
            open_in_root(&root, inside).unwrap();
        }
        for refused in ["climbs", "absolute", "relative", "../outside", "/etc"] {
            assert!(open_beneath(&root, refused).is_err(), "{refused}");
        }
        open_beneath(&root, "inner").unwrap();
    }
}
