//! What can go wrong, and limits that could not be set.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// An operation on groups failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of /proc that describes the hierarchies cannot be read.
    #[error("reading `{path}` failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A control file cannot be written.
    #[error("writing `{value}` to `{path}` failed")]
    Write {
        /// The control file.
        path: PathBuf,
        /// What should have been written.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A control file holds something else than the kernel documents.
    #[error("`{path}` holds `{text}`, which is not understood")]
    Content {
        /// The control file.
        path: PathBuf,
        /// Its text.
        text: String,
    },
    /// A group cannot be made.
    #[error("making group `{path}` failed")]
    Make {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A group's directory cannot be opened.
    #[error("opening group `{path}` failed")]
    Open {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A group cannot be removed.
    #[error("removing group `{path}` failed")]
    Remove {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A delegated group's file cannot be given to the container's root.
    #[error("giving `{path}` to user `{uid}` failed")]
    Chown {
        /// The directory or control file.
        path: PathBuf,
        /// The container's root as seen from here.
        uid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process cannot be killed.
    #[error("killing process `{pid}` failed")]
    Kill {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The group did not come to the wanted state in time.
    #[error("group `{path}` was still not {state} after `{milliseconds}` ms")]
    Timeout {
        /// Its directory.
        path: PathBuf,
        /// The state that was waited for.
        state: &'static str,
        /// How long.
        milliseconds: u64,
    },
    /// A parent was named in a way that could leave the engine's part of the tree.
    #[error("invalid cgroup parent `{0}`: it must be a path without `..`")]
    InvalidParent(String),
    /// No writable hierarchy offers the operation.
    #[error("no usable control group hierarchy offers `{0}`")]
    NotAvailable(&'static str),
    /// A device program cannot be loaded or attached.
    #[error("attaching the device program to `{path}` failed")]
    DeviceProgram {
        /// The group.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A fresh mount of a hierarchy was refused.
    #[error("mounting `{kind}` at `{path}` failed")]
    Mount {
        /// File system type or controller.
        kind: String,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A limit that is not in force, and why. Where the caller asked for it by name that is an error to report; else it is
/// a fact to state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was refused, by the name of the field of [`crate::Resources`], or `group`, `delegation`, `controllers`.
    pub what: String,
    /// True where the caller asked for it by name.
    pub requested: bool,
    /// The reason, with the file and the kernel's error.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` is not in force: {}", self.what, self.reason)
    }
}

impl Refusal {
    /// A limit that the caller asked for.
    pub(crate) fn requested(what: &str, error: &CgroupError) -> Self {
        Self { what: what.to_owned(), requested: true, reason: dory_types::with_causes(error) }
    }

    /// Something that the engine does by itself.
    pub(crate) fn stated(what: &str, error: &CgroupError) -> Self {
        Self { what: what.to_owned(), requested: false, reason: dory_types::with_causes(error) }
    }
}
