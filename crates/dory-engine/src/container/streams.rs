//! What outlasts a call: waits, attached streams, logs.

use std::os::unix::net::UnixStream as StdUnixStream;

use bytes::Bytes;
use dory_types::ContainerId;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::request::WaitOutcome;
use crate::{EngineError, Result};

/// A wait that has begun: what happens from now on is not missed. The docker CLI starts a container only after the
/// answer to its wait has begun, so that the two phases are apart here too.
#[derive(Debug)]
pub struct ContainerWait {
    pub(crate) receiver: oneshot::Receiver<WaitOutcome>,
}

impl ContainerWait {
    /// The outcome. A container that vanishes with its engine has none.
    ///
    /// # Errors
    /// `Unavailable` where the engine goes away first.
    pub async fn outcome(self) -> Result<WaitOutcome> {
        self.receiver
            .await
            .map_err(|_| EngineError::new(crate::ErrorKind::Unavailable, "the engine is shutting down"))
    }
}

/// What becomes of a client's input (moby `container/stream/attach.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientStdin {
    /// It is not taken: not asked for, or the container has no standard input.
    Ignored,
    /// It reaches the process, and its end is the end of the process's standard input.
    Once,
    /// It reaches the process, and its end ends the attachment: others may follow, or there is a terminal.
    Shared,
}

/// A client's way into a container's streams.
#[derive(Debug)]
pub struct Attachment {
    /// The container.
    pub container: ContainerId,
    /// A terminal: output is raw. Otherwise it is framed (8-byte headers) as the API sends it.
    pub tty: bool,
    /// What becomes of the client's input.
    pub stdin: ClientStdin,
    /// The log so far, where asked for: to be sent first, framed in the same way.
    pub logs: Option<LogStream>,
    /// The live streams, where asked for.
    pub stream: Option<PendingStream>,
}

/// A stream of a container that may not have started yet.
#[derive(Debug)]
pub struct PendingStream {
    pub(crate) receiver: oneshot::Receiver<StdUnixStream>,
}

impl PendingStream {
    /// Waits for the start. What is written reaches the process (shut down for writing = end of its input), what is
    /// read is its output; the end of file is the end of the container's output. `None` where the container was
    /// removed, or failed to start: the client's stream ends then.
    pub async fn connect(self) -> Option<UnixStream> {
        let stream = self.receiver.await.ok()?;
        stream.set_nonblocking(true).ok()?;
        UnixStream::from_std(stream).ok()
    }
}

/// A log being read.
#[derive(Debug)]
pub struct ContainerLogs {
    /// A terminal: the bytes are raw, not framed.
    pub tty: bool,
    /// The bytes.
    pub stream: LogStream,
}

/// Log bytes as the API sends them (framed unless the container has a terminal; times and attributes in place).
/// Dropping it ends the reading.
#[derive(Debug)]
pub struct LogStream {
    pub(crate) receiver: mpsc::Receiver<Result<Bytes>>,
}

impl LogStream {
    /// The next chunk; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        self.receiver.recv().await
    }
}
