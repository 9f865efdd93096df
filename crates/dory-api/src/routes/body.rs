//! Bodies that are streams: archives that come in, answers that have no length.

use std::future::Future;
use std::io::{self, Read, Write};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::connection::EndsWithClient;

/// Pieces of an upload that may wait for their reader; hyper's pieces are at most some 100 KiB.
const UPLOAD_QUEUE: usize = 8;

/// How much of a refused upload is taken, in bytes.
const DRAIN_LENGTH: usize = 16 << 20;
/// How long a client may take to send that.
const DRAIN_TIME: std::time::Duration = std::time::Duration::from_secs(2);

/// A request body for a reader in a thread of its own. A body that breaks off is an error, never an end.
#[derive(Debug)]
pub(crate) struct BodyReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Feeds `body` to the reader that `consume` gets, until `consume` has its result.
pub(crate) async fn upload<T, F: Future<Output = T>>(body: Body, consume: impl FnOnce(BodyReader) -> F) -> T {
    let (sender, receiver) = mpsc::channel(UPLOAD_QUEUE);
    let consumed = consume(BodyReader { receiver, piece: Bytes::new() });
    let (result, ()) = tokio::join!(consumed, feed(body, sender));
    result
}

/// As [`upload`], for an answer that begins while the body still comes. A client that goes away breaks the body off, and
/// with it whatever reads it.
pub(crate) fn incoming(body: Body) -> BodyReader {
    let (sender, receiver) = mpsc::channel(UPLOAD_QUEUE);
    tokio::spawn(feed(body, sender));
    BodyReader { receiver, piece: Bytes::new() }
}

async fn feed(mut body: Body, sender: mpsc::Sender<io::Result<Bytes>>) {
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => frame.into_data().map_err(|_| io::ErrorKind::InvalidData.into()),
            Err(error) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
        };
        // The reader has what it wanted, or has given up: its result says which.
        if sender.send(piece).await.is_err() {
            let _too_long = tokio::time::timeout(DRAIN_TIME, drain(body)).await;
            return;
        }
    }
}

/// How much is gathered before it is sent, in bytes.
const DOWNLOAD_PIECE: usize = 256 << 10;
/// Pieces of a download that may wait for their client.
const DOWNLOAD_QUEUE: usize = 4;

/// An answer's body for a writer in a thread of its own; it waits for a client that is slower than the disk.
#[derive(Debug)]
pub(crate) struct BodyWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl BodyWriter {
    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(DOWNLOAD_PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(DOWNLOAD_PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        if self.piece.len() == DOWNLOAD_PIECE {
            self.send()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// An answer with the archive that `produce` writes, and flushes at its end. Where that fails the connection is cut:
/// nobody takes part of an archive for the whole.
pub(crate) fn download<E, F>(produce: impl FnOnce(BodyWriter) -> F) -> Response
where
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    F: Future<Output = Result<(), E>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(DOWNLOAD_QUEUE);
    let produced = produce(BodyWriter { sender: sender.clone(), piece: Vec::with_capacity(DOWNLOAD_PIECE) });
    tokio::spawn(async move {
        if let Err(error) = produced.await {
            // Nobody listens where the client itself is the reason.
            let _ = sender.send(Err(io::Error::other(error))).await;
        }
    });
    let pieces = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    ([(CONTENT_TYPE, "application/x-tar")], Body::from_stream(pieces)).into_response()
}

/// Takes the rest of a refused upload: clients that are still writing when the connection closes hear of a broken pipe
/// instead of the reason.
async fn drain(mut body: Body) {
    let mut left = DRAIN_LENGTH;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Whether an answer may be cut off because its reader has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// It ends by itself, soon.
    Own,
    /// It goes on as long as somebody listens.
    Client,
}

/// An answer whose head goes out at once and whose pieces follow as they come.
pub(crate) fn streamed(
    content_type: &'static str,
    end: StreamEnd,
    stream: impl Stream<Item = Bytes> + Send + 'static,
) -> Response {
    let pieces = futures_util::StreamExt::map(stream, Ok::<Bytes, std::convert::Infallible>);
    let mut response = ([(CONTENT_TYPE, content_type)], Body::from_stream(pieces)).into_response();
    if end == StreamEnd::Client {
        response.extensions_mut().insert(EndsWithClient);
    }
    response
}

/// One line of a JSON stream.
pub(crate) fn json_line(value: &impl serde::Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn uploads_in_pieces_and_reports_a_cut() {
        for cut in [false, true] {
            let mut pieces = vec![Ok(Bytes::from("first ")), Ok(Bytes::new()), Ok(Bytes::from("second"))];
            if cut {
                pieces.push(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
            }
            let body = Body::from_stream(futures_util::stream::iter(pieces));
            let result = upload(body, |mut reader| async {
                tokio::task::spawn_blocking(move || {
                    let mut text = String::new();
                    reader.read_to_string(&mut text).map(|_| text)
                })
                .await
                .unwrap()
            })
            .await;
            match result {
                Ok(text) => assert!(!cut && text == "first second"),
                Err(error) => assert!(cut && error.kind() == io::ErrorKind::UnexpectedEof),
            }
        }
    }

    #[tokio::test]
    async fn downloads_what_is_written_and_cuts_what_fails() {
        for fails in [false, true] {
            let response = download(move |mut writer| async move {
                tokio::task::spawn_blocking(move || {
                    writer.write_all(&[7; DOWNLOAD_PIECE * 9 + 5])?;
                    if fails { Err(io::Error::other("disk")) } else { writer.flush() }
                })
                .await
                .unwrap()
            });
            let body = response.into_body().collect().await;
            assert_eq!(body.is_err(), fails);
            assert!(fails || body.unwrap().to_bytes() == [7; DOWNLOAD_PIECE * 9 + 5].as_slice());
        }
    }

    #[tokio::test]
    async fn a_reader_that_gives_up_ends_the_upload() {
        let endless =
            futures_util::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(&[0; 1024])));
        let result = upload(Body::from_stream(endless), |reader| async move {
            drop(reader);
            "refused"
        })
        .await;
        assert_eq!(result, "refused");
    }
}
