//! What goes wrong with a container's files.

use std::io;

use rustix::io::Errno;

use crate::tar_stream::TarError;

/// A container's files cannot be packed, unpacked or compared.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is nothing at the path.
    #[error("`{path}` does not exist")]
    NotFound {
        /// The path in the container.
        path: String,
    },
    /// An archive is to be unpacked into something else than a directory; dockerd's message.
    #[error("extraction point is not a directory")]
    NotADirectory,
    /// The directory lies on a read-only mount.
    #[error("`{path}` is read-only")]
    ReadOnly {
        /// The path in the container.
        path: String,
    },
    /// One operation on one path failed.
    #[error("{operation} {path}")]
    Path {
        /// What was tried, as the name of the system call.
        operation: &'static str,
        /// The path in the container.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive is damaged.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry's name leads out of the directory that the archive is unpacked into.
    #[error("`{path}` leads out of the directory that the archive is unpacked into")]
    ClimbsOut {
        /// The entry's name.
        path: String,
    },
    /// An entry's name has a zero byte.
    #[error("`{path}` is no name of a file")]
    InvalidName {
        /// The entry's name.
        path: String,
    },
    /// An entry is of a kind that is no file.
    #[error("`{path}` has the unknown type {kind:?}")]
    UnknownKind {
        /// The entry's name.
        path: String,
        /// The type's byte.
        kind: char,
    },
    /// A directory would be replaced by something else; dockerd's message.
    #[error("cannot overwrite directory \"{path}\" with non-directory")]
    OverwritesDirectory {
        /// Where.
        path: String,
    },
    /// What would be replaced is mounted there; dockerd's message.
    #[error("unlinkat /{path}: device or resource busy")]
    Mounted {
        /// Where.
        path: String,
    },
    /// Something else would be replaced by a directory; dockerd's message.
    #[error("cannot overwrite non-directory \"{path}\" with directory")]
    OverwritesFile {
        /// Where.
        path: String,
    },
    /// An owner has no id outside of the container.
    #[error("the owner {uid}:{gid} of `{path}` has no ids in this container")]
    OwnerNotMapped {
        /// The entry's name.
        path: String,
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// Directories lie deeper within one another than a path can name.
    #[error("`{path}` lies too deep")]
    TooDeep {
        /// Its beginning.
        path: String,
    },
    /// The archive's reader or writer is gone.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl FileError {
    /// A failed system call on `path`.
    pub(super) fn at(operation: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Path { operation, path: text(path), source: source.into() }
    }

    /// True where the archive or the path is at fault, not the engine.
    pub fn is_callers(&self) -> bool {
        !matches!(
            self,
            Self::Path { .. } | Self::Mounted { .. } | Self::Write(_) | Self::Tar(TarError::Read(_))
        )
    }
}

/// A path for messages.
pub(super) fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// True for what a container's own changes can do to a walk through its files.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE)
}
