//! Log drivers and the 8-byte stream frames: the shim writes, the engine reads.
//!
//! A container's log is a chain of files in its own directory, newest first:
//!
//! ```text
//! <id>-json.log      being written; one JSON record per line, dockerd's `json-file` format
//! <id>-json.log.1    the previous one, complete
//! <id>-json.log.2    ...
//! ```
//!
//! Invariants:
//!
//! - one writer per chain (the shim), any number of readers (the engine), no lock between them;
//! - the writer appends whole lines, and truncates only a torn last line, before its first append;
//! - a rotated file never changes again, and files only move upwards in the chain (`.1` to `.2`), so that a reader
//!   that holds a file open finds its successor one step below it;
//! - nothing is ever fsynced: a log line is not worth a millisecond of the container's time.
//!
//! The crate is synchronous and knows no tokio: the shim is single-threaded, and the engine waits on
//! [`LogWatch`]'s descriptor by its own means.

mod attributes;
mod config;
mod error;
mod frame;
mod json;
mod reader;
mod rotate;
mod timestamp;
mod watch;
mod writer;

pub use attributes::LogSubject;
pub use config::{JsonFile, LogConfig, LogConfigError, LogDriver};
pub use error::LogError;
pub use frame::{FrameDecoder, FrameError, HEADER_LENGTH, Stream, header};
pub use json::MAX_LINE;
pub use reader::{LogReader, ReadOptions, ReadOutcome, Record, Tail};
pub use timestamp::Timestamp;
pub use watch::LogWatch;
pub use writer::LogWriter;
