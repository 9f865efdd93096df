//! The kinds of stream that clients come in on, behind one type.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::TlsSocket;

/// A connection of any kind.
#[derive(Debug)]
pub enum Socket {
    /// From a unix socket.
    Unix(UnixStream),
    /// From a TCP socket, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// The same, encrypted.
    Tls(Box<TlsSocket>),
}

macro_rules! each {
    ($socket:expr, $stream:ident => $body:expr) => {
        match $socket {
            Socket::Unix($stream) => $body,
            Socket::Tcp($stream) => $body,
            Socket::Tls($stream) => $body,
        }
    };
}

impl Socket {
    /// Ready with true when the client has closed its side and every byte it sent has been read; with false when bytes
    /// are waiting. Takes nothing from the stream.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        match self {
            Self::Unix(stream) => poll_end(
                stream,
                |stream| stream.poll_read_ready(context),
                |stream, look| stream.try_io(Interest::READABLE, look),
            ),
            Self::Tcp(stream) => poll_end(
                stream,
                |stream| stream.poll_read_ready(context),
                |stream, look| stream.try_io(Interest::READABLE, look),
            ),
            Self::Tls(stream) => stream.poll_end(context),
        }
    }

    /// Completes when the client has read all that was written. Of TCP its kernel tells nothing: that completes at once.
    pub(crate) async fn read_by_client(&self) {
        let Self::Unix(stream) = self else { return };
        let look = || match dory_sys::socket::is_read_by_peer(stream) {
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            // Where it cannot be known, nobody waits for it.
            Ok(true) | Err(_) => Ok(()),
        };
        // Whatever the client reads makes the socket writable anew, and has `look` called.
        if let Err(error) = stream.async_io(Interest::WRITABLE, look).await {
            tracing::debug!(%error, "A client has gone before it read an answer's head");
        }
    }
}

/// [`Socket::poll_end`] of a socket whose bytes can be looked at.
fn poll_end<S: AsFd>(
    stream: &S,
    mut ready: impl FnMut(&S) -> Poll<io::Result<()>>,
    mut try_io: impl FnMut(&S, &dyn Fn() -> io::Result<usize>) -> io::Result<usize>,
) -> Poll<bool> {
    let look = || {
        let (length, _) = rustix::net::recv(stream, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
        Ok(length)
    };
    loop {
        if ready!(ready(stream)).is_err() {
            return Poll::Ready(true);
        }
        match try_io(stream, &look) {
            Ok(length) => return Poll::Ready(length == 0),
            // Also clears tokio's note of readiness, so that the next round registers the waker.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Poll::Ready(true),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}

/// A socket that hyper reads and writes while the driver of the connection looks at it too.
///
/// Both run in one task, so the lock is never contended.
#[derive(Debug, Clone)]
pub(crate) struct SharedSocket(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    socket: Socket,
    /// What was read before hyper had the socket.
    early: Bytes,
    /// The last write had to wait: hyper still holds bytes of an earlier response.
    write_blocked: bool,
}

impl SharedSocket {
    pub(crate) fn new(socket: Socket, early: Bytes) -> Self {
        Self(Arc::new(Mutex::new(Shared { socket, early, write_blocked: false })))
    }

    /// True while bytes of a response wait for the client to read.
    pub(crate) fn write_blocked(&self) -> bool {
        self.lock().write_blocked
    }

    /// [`Socket::poll_end`] of the socket.
    pub(crate) fn poll_end(&self, context: &mut Context<'_>) -> Poll<bool> {
        let mut shared = self.lock();
        if shared.early.is_empty() { shared.socket.poll_end(context) } else { Poll::Ready(false) }
    }

    /// The socket, once nobody else holds it.
    pub(crate) fn into_inner(self) -> Option<Socket> {
        let shared = Arc::try_unwrap(self.0).ok()?;
        Some(shared.into_inner().unwrap_or_else(PoisonError::into_inner).socket)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for SharedSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        if shared.early.is_empty() {
            return Pin::new(&mut shared.socket).poll_read(context, buffer);
        }
        let length = shared.early.len().min(buffer.remaining());
        buffer.put_slice(&shared.early.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut shared = self.lock();
        let written = Pin::new(&mut shared.socket).poll_write(context, bytes);
        shared.write_blocked = written.is_pending();
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.lock();
        let written = Pin::new(&mut shared.socket).poll_write_vectored(context, slices);
        shared.write_blocked = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().socket).poll_shutdown(context)
    }
}
