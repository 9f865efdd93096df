//! Paths inside a container, always resolved beneath its root descriptor.
//!
//! openat2(2) with `RESOLVE_IN_ROOT` makes the kernel resolve `..`, absolute names and symlinks as if the descriptor were
//! `/`. What lies there belongs to an image or to other containers' volumes and may change under us; nothing here ever
//! leaves the root, whatever happens in between.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As many symlinks as the kernel follows in one path (`MAXSYMLINKS`).
const SYMLINK_LIMIT: u32 = 40;

/// A container's root directory.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    directory: BorrowedFd<'a>,
}

impl<'a> Root<'a> {
    /// The root that `directory` refers to.
    pub fn new(directory: BorrowedFd<'a>) -> Self {
        Self { directory }
    }

    /// Opens `path` (absolute or not, it starts at the root) with `flags`.
    pub fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat2(
            self.directory,
            in_root(path),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )?)
    }

    /// A descriptor for use as a place (`O_PATH`).
    pub fn locate(&self, path: &str) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// The whole content of a small file; at most `limit` bytes of it.
    pub fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        use std::io::Read;
        // O_NONBLOCK: an image may have a FIFO where a file is expected, and opening that would wait for ever.
        let file = std::fs::File::from(self.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let mut content = Vec::new();
        file.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }

    /// The directory `path`, made with all its missing parents (mode 0755).
    pub fn ensure_directory(&self, path: &str) -> io::Result<OwnedFd> {
        self.ensure(path, Leaf::Directory)
    }

    /// The file `path`, made empty where missing, with its parents: a place to bind a file on.
    pub fn ensure_file(&self, path: &str) -> io::Result<OwnedFd> {
        self.ensure(path, Leaf::File)
    }

    fn ensure(&self, path: &str, leaf: Leaf) -> io::Result<OwnedFd> {
        match self.locate(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        // Something is missing: walk, making what is not there. A dangling symlink is followed to where it points.
        let mut budget = SYMLINK_LIMIT;
        let mut pending: Vec<String> = components(path).rev().collect();
        let mut walked: Vec<String> = Vec::new();
        while let Some(name) = pending.pop() {
            if name == ".." {
                walked.pop();
                continue;
            }
            let parent = self.locate(&walked.join("/"))?;
            match rustix::fs::statat(&parent, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    budget = budget.checked_sub(1).ok_or(Errno::LOOP)?;
                    let target = rustix::fs::readlinkat(&parent, name.as_str(), Vec::new())?;
                    let target = target.to_str().map_err(|_| Errno::INVAL)?;
                    if target.starts_with('/') {
                        walked.clear();
                    }
                    pending.extend(components(target).rev());
                    continue;
                }
                Ok(_) => {}
                Err(Errno::NOENT) => {
                    make(parent.as_fd(), &name, if pending.is_empty() { leaf } else { Leaf::Directory })?
                }
                Err(error) => return Err(error.into()),
            }
            walked.push(name);
        }
        self.locate(&walked.join("/"))
    }
}

#[derive(Clone, Copy)]
enum Leaf {
    Directory,
    File,
}

fn make(parent: BorrowedFd<'_>, name: &str, leaf: Leaf) -> io::Result<()> {
    let result = match leaf {
        Leaf::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Leaf::File => rustix::fs::openat(
            parent,
            name,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::from_raw_mode(0o644),
        )
        .map(drop),
    };
    match result {
        // Somebody else made it meanwhile: as good.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn components(path: &str) -> std::vec::IntoIter<String> {
    let parts: Vec<String> = Path::new(path)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str().map(str::to_owned),
            Component::ParentDir => Some("..".to_owned()),
            _ => None,
        })
        .collect();
    parts.into_iter()
}

/// openat2 takes no empty path; the root itself is `.`.
fn in_root(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn with_root(test: impl FnOnce(&Path, Root<'_>)) {
        let directory = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(directory.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        test(directory.path(), Root::new(fd.as_fd()));
    }

    #[test]
    fn makes_missing_directories_and_files_beneath_the_root() {
        with_root(|path, root| {
            root.ensure_directory("/a/b/../c").unwrap();
            root.ensure_file("/etc/x/resolv.conf").unwrap();
            assert!(path.join("a/c").is_dir());
            assert!(path.join("etc/x/resolv.conf").is_file());
        });
    }

    #[test]
    fn follows_dangling_links_inside_and_never_leaves() {
        with_root(|path, root| {
            symlink("/run", path.join("var-run")).unwrap();
            symlink("../../../../outside", path.join("climber")).unwrap();
            symlink("loop", path.join("loop")).unwrap();
            root.ensure_directory("/var-run/lock").unwrap();
            root.ensure_directory("/climber/x").unwrap();
            assert!(path.join("run/lock").is_dir());
            assert!(path.join("outside/x").is_dir(), "`..` stops at the root");
            assert!(root.ensure_directory("/loop/x").is_err());
        });
    }
}
