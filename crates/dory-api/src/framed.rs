//! Frames around a stream that has none: a terminal's output for a client that expects frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use dory_log::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The length of a frame's header.
const HEADER: usize = 8;

/// Reads as standard output's frames, one for each read of the stream within; writes go through as they are.
#[derive(Debug)]
pub(crate) struct Framed<S>(S);

impl<S> Framed<S> {
    /// Frames what `stream` says.
    pub(crate) fn new(stream: S) -> Self {
        Self(stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    /// Needs room for more than a header, which every reader here has.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some((header, rest)) = buffer.initialize_unfilled().split_at_mut_checked(HEADER) else {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        };
        let mut payload = ReadBuf::new(rest);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut payload))?;
        let length = payload.filled().len();
        if length > 0 {
            let announced = u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
            header.copy_from_slice(&dory_log::header(Stream::Stdout, announced));
            buffer.advance(HEADER + length);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn frames_what_is_read_and_passes_what_is_written() {
        let (mut process, side) = duplex(64);
        let mut framed = Framed::new(side);
        process.write_all(b"hello").await.unwrap();
        let mut bytes = [0; 32];
        let length = framed.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..length], b"\x01\0\0\0\0\0\0\x05hello");
        framed.write_all(b"in").await.unwrap();
        drop(framed);
        let mut input = Vec::new();
        process.read_to_end(&mut input).await.unwrap();
        assert_eq!(input, b"in");
    }

    #[tokio::test]
    async fn the_end_stays_the_end() {
        let (process, side) = duplex(64);
        drop(process);
        let mut bytes = Vec::new();
        assert_eq!(Framed::new(side).read_to_end(&mut bytes).await.unwrap(), 0);
    }
}
