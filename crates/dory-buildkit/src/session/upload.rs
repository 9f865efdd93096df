//! What the client pipes in: `docker build - < context.tar` names it as an address under `http://buildkit-session/`.

use std::io::{self, Read};
use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::packet::BytesMessage;
use tokio::runtime::Handle;

use super::Session;
use crate::grpc::{Answers, Sender, Status};

const PULL: &str = "/moby.upload.v1.Upload/Pull";
/// Metadata that name the upload.
const PATH: &str = "urlpath";
const HOST: &str = "urlhost";

/// The upload at `path` (with its slash) of `host`, as the client named it. Reads block.
///
/// # Errors
/// A client that serves no uploads.
pub fn upload(
    session: &Arc<Session>,
    host: &str,
    path: &str,
    runtime: Handle,
) -> Result<impl Read + Send + use<>, Status> {
    let channel = session.channel(PULL)?;
    let (sender, answers) = channel.stream(PULL, &[(PATH, path), (HOST, host)])?;
    Ok(Upload { _open: sender, answers, piece: io::Cursor::default(), runtime })
}

struct Upload {
    /// The call is ours to end.
    _open: Sender,
    answers: Answers,
    piece: io::Cursor<Vec<u8>>,
    runtime: Handle,
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.piece.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            match self.runtime.block_on(self.answers.next::<BytesMessage>()) {
                Ok(Some(message)) => self.piece = io::Cursor::new(message.data),
                Ok(None) => return Ok(0),
                Err(status) => return Err(io::Error::other(status)),
            }
        }
    }
}
