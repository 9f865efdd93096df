//! Log drivers and the 8-byte stream frames: the shim writes, the engine reads.
//!
//! A container's log is a chain of files in its own directory, newest first:
//!
//! ```text
//! container.log         being written: one JSON record per line, dockerd's `json-file` format, or our own of `local`
//! container.log.1       the previous one, complete, and about to be compressed where that was asked for
//! container.log.2.gz    the one before, compressed
//! ```
//!
//! Invariants:
//!
//! - one writer per chain (the shim, or with `mode=non-blocking` its recorder), any number of readers (the engine), no lock between them;
//! - the writer appends whole records, and truncates only a torn last record, before its first append;
//! - a rotated file never changes again, and files only move upwards in the chain (`.1` to `.2`), so that a reader
//!   that holds a file open finds its successor one step below it;
//! - a compressed file carries the identity of the file that it was made of, and is there before that one goes;
//! - nothing is ever fsynced: a log line is not worth a millisecond of the container's time.
//!
//! The crate is synchronous and knows no tokio: the shim is single-threaded, and the engine waits on
//! [`LogWatch`]'s descriptor by its own means.

mod attributes;
mod config;
mod error;
mod frame;
mod frames;
mod identity;
mod json;
mod local;
mod options;
mod reader;
mod rotate;
mod timestamp;
mod watch;
mod writer;

pub use attributes::LogSubject;
pub use config::{FileOptions, LogConfig, LogConfigError, LogDriver, LogFormat};
pub use error::LogError;
pub use frame::{FrameDecoder, FrameError, HEADER_LENGTH, Stream, header};
pub use json::MAX_LINE;
pub use reader::{LogReader, ReadOptions, ReadOutcome, Record, Tail};
pub use timestamp::Timestamp;
pub use watch::LogWatch;
pub use writer::{LogFiles, LogWriter, RecordQueue};
