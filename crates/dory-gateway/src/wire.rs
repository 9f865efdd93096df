//! A connection: bytes that have come and were not used yet, heads, and bodies in pieces.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::head::Length;

/// Longest head; Go's servers take 1 MiB, no client of Docker's comes near this.
const HEAD_LIMIT: usize = 64 << 10;
/// Longest line that says how long a piece is.
const CHUNK_LINE_LIMIT: usize = 18;
/// What one read takes at most.
const READ_SIZE: usize = 64 << 10;

/// A stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// One end of a connection.
pub(crate) struct Wire {
    pub stream: Box<dyn Stream>,
    buffer: BytesMut,
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

impl Wire {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Takes more bytes in; false at the end. May be dropped while it waits.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(4096);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// True where bytes wait that nobody has asked for.
    pub(crate) fn has_early(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Bytes that came with what was read last.
    pub(crate) fn take_early(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    /// The next head with its empty line; `None` where the connection ends before one begins.
    ///
    /// # Errors
    /// `InvalidData` for a head that is too long, `UnexpectedEof` for one that breaks off.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Bytes>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                return Ok(Some(self.buffer.split_to(searched + at + 4).freeze()));
            }
            searched = self.buffer.len().saturating_sub(3);
            if self.buffer.len() > HEAD_LIMIT {
                return Err(invalid("the head is too long"));
            }
            if !self.fill().await? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Some bytes, `limit` at most; none at the end.
    async fn some(&mut self, limit: u64) -> io::Result<Bytes> {
        if self.buffer.is_empty() {
            self.buffer.reserve(READ_SIZE);
            self.stream.read_buf(&mut self.buffer).await?;
        }
        let length = usize::try_from(limit).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn line(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                if at > CHUNK_LINE_LIMIT {
                    return Err(invalid("a chunk's line is too long"));
                }
                let line = self.buffer.split_to(at + 2).freeze();
                return Ok(line.slice(..at));
            }
            if self.buffer.len() > CHUNK_LINE_LIMIT + 2 {
                return Err(invalid("a chunk's line is too long"));
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// What of a body is still to come. Dropping a read half way loses nothing but the body itself.
#[derive(Debug)]
pub(crate) struct Body {
    length: Length,
    /// Of the present chunk.
    left: u64,
    inside: bool,
}

impl Body {
    pub(crate) fn new(length: Length) -> Self {
        let left = if let Length::Bytes(bytes) = length { bytes } else { 0 };
        Self { length, left, inside: false }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// A body that breaks off, or chunks that are not written plainly (extensions and trailers are not).
    pub(crate) async fn next(&mut self, wire: &mut Wire) -> io::Result<Option<Bytes>> {
        match self.length {
            Length::None => Ok(None),
            Length::UntilClose => {
                let piece = wire.some(READ_SIZE as u64).await?;
                Ok((!piece.is_empty()).then_some(piece))
            }
            Length::Bytes(_) if self.left == 0 => Ok(None),
            Length::Bytes(_) => self.piece(wire).await.map(Some),
            Length::Chunked => self.chunk(wire).await,
        }
    }

    async fn piece(&mut self, wire: &mut Wire) -> io::Result<Bytes> {
        let piece = wire.some(self.left).await?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= piece.len() as u64;
        Ok(piece)
    }

    async fn chunk(&mut self, wire: &mut Wire) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            if self.inside {
                if !wire.line().await?.is_empty() {
                    return Err(invalid("a chunk is longer than it says"));
                }
                self.inside = false;
            }
            let line = wire.line().await?;
            let digits =
                std::str::from_utf8(&line).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
            self.left = digits
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or(invalid("a chunk's length is no number"))?;
            if self.left == 0 {
                if !wire.line().await?.is_empty() {
                    return Err(invalid("there are trailers"));
                }
                self.length = Length::None;
                return Ok(None);
            }
            self.inside = true;
        }
        self.piece(wire).await.map(Some)
    }

    /// All of it.
    ///
    /// # Errors
    /// `FileTooLarge` beyond `limit` bytes.
    pub(crate) async fn whole(&mut self, wire: &mut Wire, limit: usize) -> io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next(wire).await? {
            if whole.len() + piece.len() > limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

/// A piece of a chunked body; nothing is its end.
pub(crate) fn chunk(piece: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", piece.len()).into_bytes();
    bytes.extend_from_slice(piece);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(length: Length, bytes: &'static [u8]) -> io::Result<(Vec<u8>, Bytes)> {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        far.write_all(bytes).await.unwrap();
        drop(far);
        let mut wire = Wire::new(Box::new(near));
        let whole = Body::new(length).whole(&mut wire, 100).await?;
        while wire.fill().await? {}
        Ok((whole, wire.take_early()))
    }

    #[tokio::test]
    async fn bodies_end_where_they_say() {
        let (body, rest) = read(Length::Chunked, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET /").await.unwrap();
        assert_eq!((body.as_slice(), rest.as_ref()), (&b"abcde"[..], &b"GET /"[..]));
        let (body, rest) = read(Length::Bytes(3), b"abcdef").await.unwrap();
        assert_eq!((body.as_slice(), rest.as_ref()), (&b"abc"[..], &b"def"[..]));
    }

    #[tokio::test]
    async fn chunks_are_plain() {
        for bytes in [
            &b"3;x=y\r\nabc\r\n0\r\n\r\n"[..],
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"+3\r\nabc\r\n0\r\n\r\n",
            b"\r\nabc",
            b"3\r\nab",
            b"3\r\nabc\r\n0\r\nX: y\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"fffffffffffffffffff\r\n",
            b" 3\r\nabc\r\n0\r\n\r\n",
        ] {
            assert!(read(Length::Chunked, bytes).await.is_err(), "3: {}", String::from_utf8_lossy(bytes));
        }
        let error = read(Length::Chunked, b"65\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n0\r\n\r\n").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "2");
    }
}
