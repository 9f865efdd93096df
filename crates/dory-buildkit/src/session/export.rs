//! Results that go to the client: a stream (`--output type=tar`, `oci`, `docker`) or a directory (`type=local`).

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::packet::BytesMessage;
use dory_build::{Cancel, Sink};
use tokio::runtime::Handle;

use super::Session;
use crate::filesync::{PacketStream, SendError, send};
use crate::grpc::{Answers, CHUNK, Sender};

const DIFF_COPY: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Metadata that tell the client which of its outputs it is.
const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
/// Prefix of metadata about the result.
const EXPORTER_METADATA: &str = "exporter-md-";

/// A stream that the client writes to a file of its own.
#[derive(Debug, Clone)]
pub struct StreamExport {
    session: Arc<Session>,
    id: usize,
    metadata: Vec<(String, String)>,
    runtime: Handle,
}

impl StreamExport {
    /// The output number `id` of `session`; `metadata` tell the client about it.
    pub fn new(session: Arc<Session>, id: usize, metadata: &[(&str, String)], runtime: Handle) -> Self {
        let metadata = metadata
            .iter()
            .map(|(name, value)| (format!("{EXPORTER_METADATA}{name}"), value.clone()))
            .collect();
        Self { session, id, metadata, runtime }
    }
}

impl Sink for StreamExport {
    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        let channel = self.session.channel(DIFF_COPY).map_err(io::Error::other)?;
        let id = self.id.to_string();
        let mut metadata = vec![(EXPORTER_ID, id.as_str())];
        metadata.extend(self.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let (sender, answers) = channel.stream(DIFF_COPY, &metadata).map_err(io::Error::other)?;
        let buffer = Vec::with_capacity(CHUNK);
        Ok(Box::new(Export { sender: Some(sender), answers, buffer, runtime: self.runtime.clone() }))
    }
}

/// Sends what is written. `flush` ends the stream and waits until the client has it: nothing may be written after it.
struct Export {
    sender: Option<Sender>,
    answers: Answers,
    buffer: Vec<u8>,
    runtime: Handle,
}

impl Export {
    fn send(&mut self) -> io::Result<()> {
        let Some(sender) = &self.sender else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let message = BytesMessage { data: std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK)) };
        let answers = &mut self.answers;
        self.runtime.block_on(async {
            tokio::select! {
                sent = sender.send(&message) => sent.map_err(io::Error::other),
                // A client that cannot write its file ends the call before we have sent all.
                ended = answers.next::<BytesMessage>() => Err(match ended {
                    Err(status) => io::Error::other(status),
                    Ok(_) => io::ErrorKind::BrokenPipe.into(),
                }),
            }
        })
    }
}

impl Write for Export {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        if self.buffer.len() == CHUNK {
            self.send()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.sender.is_none() {
            return Ok(());
        }
        if !self.buffer.is_empty() {
            self.send()?;
        }
        self.sender = None;
        let answers = &mut self.answers;
        self.runtime.block_on(async {
            while answers.next::<BytesMessage>().await.map_err(io::Error::other)?.is_some() {}
            Ok(())
        })
    }
}

/// A directory that the client takes over.
#[derive(Debug, Clone)]
pub struct DirectoryExport {
    session: Arc<Session>,
    id: usize,
    runtime: Handle,
}

impl DirectoryExport {
    /// The output number `id` of `session`.
    pub fn new(session: Arc<Session>, id: usize, runtime: Handle) -> Self {
        Self { session, id, runtime }
    }

    /// Sends everything in `root`; `progress` is told the bytes so far. Blocks.
    ///
    /// # Errors
    /// [`SendError`]; a client that takes no directories is one that broke the connection.
    pub fn send(
        &self,
        root: BorrowedFd<'_>,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), SendError> {
        let broken = |status| SendError::Connection(io::Error::other::<crate::grpc::Status>(status));
        let channel = self.session.channel(DIFF_COPY).map_err(broken)?;
        let call = channel.stream(DIFF_COPY, &[(EXPORTER_ID, &self.id.to_string())]).map_err(broken)?;
        let mut stream = PacketStream::new(call, self.runtime.clone(), cancel.clone());
        send(root, &mut stream, progress)?;
        stream.finish().map_err(SendError::Connection)
    }
}
