//! Build contexts: directories of files that come from somewhere.
//!
//! However a context comes (a directory of this machine, an archive, a client's session, git, an address), it is a directory
//! in the end: files are opened beneath its descriptor only, links in it lead nowhere out of it, and what changes in it
//! while it is read is noticed no worse than by any other program.

mod archive;
mod directory;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use archive::ArchiveContext;
pub use directory::DirectoryContext;

use crate::cancel::Cancel;
use crate::images::TransferProgress;

/// What a build needs of a context. A context may bring more, and nothing beyond `paths` is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    /// Paths and patterns (Go's, as in `COPY`) relative to the root, as BuildKit's follow paths; empty for everything.
    pub paths: Vec<String>,
    /// Lines of the ignore file that keep files out; the builder applies them in any case.
    pub ignore: Vec<String>,
}

/// A context that is there.
#[derive(Debug)]
pub struct ContextTree {
    /// Its root directory.
    pub root: OwnedFd,
    /// Names the place across builds, such as the directory's path or a client's shared key: what is known of files from
    /// the last build (their digests by inode, size and times) is looked up by it. `None` where nothing can be known.
    pub identity: Option<String>,
    /// Whatever has to live as long: a temporary directory that is removed at the end, for one.
    pub keep: Option<Box<dyn Keep>>,
}

/// What a [`ContextTree`] keeps alive.
pub trait Keep: Any + Debug + Send + Sync {}

impl<T: Any + Debug + Send + Sync> Keep for T {}

/// A context cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// A directory or file of it cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The archive is none, or hostile.
    #[error("cannot unpack the build context: {0}")]
    Archive(String),
    /// The place that has it cannot be reached, or has no such thing.
    #[error("cannot fetch the build context `{address}`: {message}")]
    Fetch {
        /// Where it would come from.
        address: String,
        /// Why it does not.
        message: String,
    },
    /// The client that has it went away or refused.
    #[error("the client does not send the build context: {0}")]
    Client(String),
    /// The build was cancelled meanwhile.
    #[error("the build was cancelled")]
    Cancelled,
}

/// Where files of a build come from.
pub trait Context: Debug + Send + Sync {
    /// Brings what `need` says. Called at most once for each need of a build; blocks.
    ///
    /// # Errors
    /// [`ContextError`].
    fn open(
        &self,
        need: &Need,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<ContextTree, ContextError>;

    /// Whether an ignore file in it keeps files out.
    fn has_ignore_file(&self) -> bool {
        true
    }

    /// Shown in `[internal] load NAME`.
    fn name(&self) -> String {
        "build context".to_owned()
    }
}
