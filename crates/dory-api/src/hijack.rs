//! Hijacking: the HTTP connection becomes a raw stream between a client and a process.
//!
//! Docker Engine API, `ContainerAttach`, "Hijacking". A client that sends `Upgrade: tcp` gets `101 UPGRADED`; one that
//! does not (docker-py, old Docker CLIs) gets `200 OK` with no length and the stream behind it. hyper knows only the
//! first form, and only its own idea of it, so a handler answers with a response that carries a [`Hijack`], and the
//! driver of the connection takes the socket away from hyper, writes the head and hands the rest over.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::socket::Socket;

/// How long a client may leave the head unread before the stream begins all the same.
const HEAD_TIME: Duration = Duration::from_secs(1);

type Task = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;
type Handover = Box<dyn FnOnce(Tunnel) -> Task + Send>;

/// What a stream carries, as `Content-Type` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Bytes of a terminal, or any stream for clients before API 1.42.
    Raw,
    /// Frames with 8-byte headers.
    Multiplexed,
}

impl StreamKind {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Raw => "application/vnd.docker.raw-stream",
            Self::Multiplexed => "application/vnd.docker.multiplexed-stream",
        }
    }
}

/// How the client asked for the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeForm {
    /// `Upgrade: tcp`, answered with 101.
    Upgrade,
    /// `Upgrade: h2c`, answered with 101: what follows is HTTP/2 (BuildKit's gRPC).
    Http2,
    /// `Upgrade: websocket`, answered with 101 and this `Sec-WebSocket-Accept`.
    WebSocket(String),
    /// No such header, answered with 200.
    Plain,
}

impl UpgradeForm {
    /// What the request's headers ask for. dockerd looks only at whether the header is there.
    pub fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(UPGRADE) { Self::Upgrade } else { Self::Plain }
    }
}

/// A handler's wish to own the connection; travels as an extension of its response.
///
/// An extension must be cloneable and the task is not, hence the shared slot: whoever takes it first has it.
#[derive(Clone)]
pub struct Hijack {
    form: UpgradeForm,
    kind: StreamKind,
    handover: Arc<Mutex<Option<Handover>>>,
}

impl fmt::Debug for Hijack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hijack").field("form", &self.form).field("kind", &self.kind).finish()
    }
}

impl Hijack {
    /// A response that hands the connection to `handover` once its head has been written.
    pub fn response<F, Task>(form: UpgradeForm, kind: StreamKind, handover: F) -> Response
    where
        F: FnOnce(Tunnel) -> Task + Send + 'static,
        Task: Future<Output = io::Result<()>> + Send + 'static,
    {
        let handover: Handover = Box::new(move |tunnel| Box::pin(handover(tunnel)));
        let mut response = match form {
            UpgradeForm::Upgrade | UpgradeForm::Http2 | UpgradeForm::WebSocket(_) => {
                StatusCode::SWITCHING_PROTOCOLS
            }
            UpgradeForm::Plain => StatusCode::OK,
        }
        .into_response();
        response.extensions_mut().insert(Self { form, kind, handover: Arc::new(Mutex::new(Some(handover))) });
        response
    }

    /// Writes the head and runs the handler's task to its end.
    ///
    /// COMPAT: docker-py reads the head through a buffer and the stream behind that buffer's back, so output that arrives
    /// along with the head is lost to it. dockerd is hardly ever quick enough for that; we wait for the client instead.
    pub(crate) async fn run(self, mut tunnel: Tunnel, headers: &HeaderMap) -> io::Result<()> {
        tunnel.socket.write_all(&self.head(headers)).await?;
        if matches!(self.form, UpgradeForm::Upgrade | UpgradeForm::Plain) {
            // A client that reads nothing yet may send its input meanwhile, and misses no output.
            let _unread = tokio::time::timeout(HEAD_TIME, tunnel.socket.read_by_client()).await;
        }
        let handover = self.handover.lock().unwrap_or_else(PoisonError::into_inner).take();
        match handover {
            Some(handover) => handover(tunnel).await,
            None => Ok(()),
        }
    }

    /// The response head, with the headers that every answer has.
    fn head(&self, headers: &HeaderMap) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        let content_type = self.kind.content_type();
        head.extend_from_slice(match &self.form {
            UpgradeForm::Upgrade => {
                b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n".as_slice()
            }
            UpgradeForm::Http2 => b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
            UpgradeForm::WebSocket(_) => {
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            }
            UpgradeForm::Plain => b"HTTP/1.1 200 OK\r\n",
        });
        match &self.form {
            UpgradeForm::WebSocket(accept) => {
                head.extend_from_slice(format!("Sec-WebSocket-Accept: {accept}\r\n").as_bytes());
            }
            UpgradeForm::Http2 => {}
            _ => head.extend_from_slice(format!("Content-Type: {content_type}\r\n").as_bytes()),
        }
        // axum has given the empty response a length.
        for (name, value) in headers.iter().filter(|(name, _)| **name != CONTENT_LENGTH) {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// The client's side of a hijacked connection: bytes that came along with the request are read first.
#[derive(Debug)]
pub struct Tunnel {
    socket: Socket,
    early: Bytes,
}

impl Tunnel {
    pub(crate) fn new(socket: Socket, early: Bytes) -> Self {
        Self { socket, early }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tunnel = self.get_mut();
        if tunnel.early.is_empty() {
            return Pin::new(&mut tunnel.socket).poll_read(context, buffer);
        }
        let length = tunnel.early.len().min(buffer.remaining());
        buffer.put_slice(&tunnel.early[..length]);
        tunnel.early.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}
