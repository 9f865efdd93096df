//! What can fail while a log is written or read.

use std::io;

/// A failed operation on a log's files; `name` is the file's name within the container's directory.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file could not be opened or created.
    #[error("cannot open the log file `{name}`")]
    Open {
        /// File name within the log's directory.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The file could not be examined.
    #[error("cannot examine the log file `{name}`")]
    Stat {
        /// File name within the log's directory.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A torn last line, left by a killed writer, could not be cut off.
    #[error("cannot cut the torn last line off the log file `{name}`")]
    Repair {
        /// File name within the log's directory.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Records could not be appended; what was half written has been taken back.
    #[error("cannot append to the log file `{name}`")]
    Write {
        /// File name within the log's directory.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The chain of files could not be moved on; records still go to the file that was open.
    #[error("cannot rotate the log file `{name}`")]
    Rotate {
        /// File name within the log's directory.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The process that appends to the files of a log with `mode=non-blocking` is gone; another one will be started.
    #[error("the log's recorder ended early")]
    RecorderGone,
    /// That process did not write everything within the time that the end of a container may take.
    #[error("the log's recorder did not keep up: the end of the log is missing")]
    RecorderLate,
    /// Records could not be read.
    #[error("cannot read the log file `{name}`")]
    Read {
        /// File name within the log's directory.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The log's directory could not be watched for changes.
    #[error("cannot watch the log directory for changes")]
    Watch {
        /// The system's answer; `EMFILE` and `ENOSPC` mean that the user's inotify limits are used up.
        #[source]
        source: io::Error,
    },
}
