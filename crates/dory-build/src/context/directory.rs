//! A directory of this machine as a build context.

use std::path::PathBuf;

use rustix::fs::{self, Mode, OFlags};

use super::{Context, ContextError, ContextTree, Need};
use crate::cancel::Cancel;
use crate::images::TransferProgress;

/// A directory.
#[derive(Debug, Clone)]
pub struct DirectoryContext {
    path: PathBuf,
    plain: bool,
}

impl DirectoryContext {
    /// The directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), plain: false }
    }

    /// The same; ignore files in it are files like any other.
    pub fn plain(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), plain: true }
    }
}

impl Context for DirectoryContext {
    fn open(&self, _: &Need, _: &TransferProgress<'_>, _: &Cancel) -> Result<ContextTree, ContextError> {
        let error = |source: std::io::Error| ContextError::Read { path: self.path.clone(), source };
        let path = self.path.canonicalize().map_err(error)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(&path, flags, Mode::empty()).map_err(|errno| error(errno.into()))?;
        let identity = Some(format!("directory:{}", path.display()));
        Ok(ContextTree { root, identity, keep: None })
    }

    fn has_ignore_file(&self) -> bool {
        !self.plain
    }
}
