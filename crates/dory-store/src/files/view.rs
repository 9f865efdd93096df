//! Files to copy from, read without any mount: a directory, or layers merged.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::FileError;
use super::layered::{Merged, MergedEntry};
use super::links::follow;
use super::tree::{is, reopen};

/// A tree of files as one sees it whose root it is: links and `..` lead nowhere out of it.
#[derive(Debug)]
pub struct View {
    /// The topmost first.
    layers: Vec<OwnedFd>,
    root: Merged,
}

/// A file of a [`View`], open as a mere reference.
#[derive(Debug)]
pub struct Node {
    fd: OwnedFd,
    stat: Stat,
    directory: Option<Merged>,
}

impl View {
    /// The files in one directory.
    ///
    /// # Errors
    /// [`FileError::Path`] where it is none.
    pub fn of_directory(root: OwnedFd) -> Result<Self, FileError> {
        Self::over(vec![root])
    }

    /// Layers' directories merged, the topmost first.
    ///
    /// # Errors
    /// [`FileError::Path`] for one that cannot be opened.
    pub fn of_layers(layers: &[PathBuf]) -> Result<Self, FileError> {
        let open = |path: &PathBuf| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fs::open(path, flags, Mode::empty())
                .map_err(|errno| FileError::at("open", path.as_os_str().as_encoded_bytes(), errno))
        };
        Self::over(layers.iter().map(open).collect::<Result<_, _>>()?)
    }

    fn over(layers: Vec<OwnedFd>) -> Result<Self, FileError> {
        let root = Merged::root(&layers).map_err(|errno| FileError::at("open", b"/", errno))?;
        Ok(Self { layers, root })
    }

    /// The root directory; `None` where there is no layer at all.
    ///
    /// # Errors
    /// [`FileError::Path`].
    pub fn root(&self) -> Result<Option<Node>, FileError> {
        let failed = |errno| FileError::at("open", b"/", errno);
        let Some(top) = self.layers.first() else { return Ok(None) };
        let root = Merged::root(&self.layers).map_err(failed)?;
        let fd = top.try_clone().map_err(|error| FileError::at("dup", b"/", error))?;
        let stat = fs::fstat(&fd).map_err(failed)?;
        Ok(Some(Node { fd, stat, directory: Some(root) }))
    }

    /// What is at `path`, no component of which may be a link; `None` where there is nothing.
    fn exactly(&self, components: &[Vec<u8>]) -> Result<Option<Node>, FileError> {
        let failed = |errno| FileError::at("lstat", &components.join(&b'/'), errno);
        let Some((last, above)) = components.split_last() else { return self.root() };
        let mut directory: Option<Merged> = None;
        for name in above {
            let entry = directory.as_ref().unwrap_or(&self.root).look(name).map_err(failed)?;
            match entry.and_then(|entry| entry.directory) {
                Some(inner) => directory = Some(inner),
                None => return Ok(None),
            }
        }
        let entry = directory.as_ref().unwrap_or(&self.root).look(last).map_err(failed)?;
        Ok(entry.map(Node::from))
    }

    /// `path` with every link on the way followed, the last one too where `follow_last`; what does not exist is taken as it
    /// is written. Components without a slash.
    ///
    /// # Errors
    /// [`FileError::Path`]; a link that leads round in circles is `ELOOP`.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Vec<Vec<u8>>, FileError> {
        let components = path.split(|byte| *byte == b'/');
        let read_link = |walked: &[Vec<u8>]| match self.exactly(walked)? {
            Some(node) if node.kind() == FileType::Symlink => node.link_target().map(Some),
            _ => Ok(None),
        };
        follow(components, follow_last, read_link)?
            .ok_or_else(|| FileError::at("readlink", path, Errno::LOOP))
    }

    /// What is at `path`, links on the way followed, the last one too where `follow_last`; `None` where there is nothing.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn find(&self, path: &[u8], follow_last: bool) -> Result<Option<Node>, FileError> {
        self.exactly(&self.resolve(path, follow_last)?)
    }

    /// What is at a path that [`Self::resolve`] gave.
    ///
    /// # Errors
    /// [`FileError::Path`].
    pub fn at(&self, resolved: &[Vec<u8>]) -> Result<Option<Node>, FileError> {
        self.exactly(resolved)
    }
}

impl From<MergedEntry> for Node {
    fn from(entry: MergedEntry) -> Self {
        Self { fd: entry.fd, stat: entry.stat, directory: entry.directory }
    }
}

impl Node {
    /// What it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Everything that stat(2) says.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// The reference (`O_PATH`).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// True for a directory.
    pub fn is_directory(&self) -> bool {
        is(&self.stat, FileType::Directory)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// [`FileError::Path`].
    pub fn link_target(&self) -> Result<Vec<u8>, FileError> {
        let target = fs::readlinkat(&self.fd, "", Vec::new());
        target.map(|target| target.into_bytes()).map_err(|errno| FileError::at("readlink", b"a link", errno))
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`FileError::Path`].
    pub fn open(&self) -> Result<File, FileError> {
        reopen(self.fd(), OFlags::RDONLY)
            .map(File::from)
            .map_err(|errno| FileError::at("open", b"a file", errno))
    }

    /// The names in a directory, in the order of their bytes; some may turn out to be deleted.
    ///
    /// # Errors
    /// [`FileError::Path`].
    pub fn names(&self) -> Result<Vec<Vec<u8>>, FileError> {
        match &self.directory {
            Some(directory) => Ok(directory.names(b"")?.into_iter().collect()),
            None => Ok(Vec::new()),
        }
    }

    /// A second reference to the same, without what is in it.
    ///
    /// # Errors
    /// [`FileError::Path`] where there are no descriptors left.
    pub fn reopened(&self) -> Result<Node, FileError> {
        let fd = self.fd.try_clone().map_err(|error| FileError::at("dup", b"a file", error))?;
        Ok(Self { fd, stat: self.stat, directory: None })
    }

    /// What `name` is in a directory; `None` where there is nothing.
    ///
    /// # Errors
    /// [`FileError::Path`].
    pub fn child(&self, name: &[u8]) -> Result<Option<Node>, FileError> {
        let Some(directory) = &self.directory else { return Ok(None) };
        let found = directory.look(name).map_err(|errno| FileError::at("lstat", name, errno))?;
        Ok(found.map(Self::from))
    }
}
