//! Which HTTP a connection speaks: HTTP/2 without TLS and without asking begins with a preface of its own (RFC 9113, 3.4).
//!
//! gRPC clients speak so on the engine's socket itself (newer dockerd takes it there, and BuildKit's own tools know no other way).

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a client of HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that are read at once: a request's head usually comes whole, and is not read again.
const BUFFER: usize = 8 << 10;

/// The HTTP of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, and whatever is no HTTP at all.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Reads until the protocol is clear; what was read belongs to the connection.
///
/// # Errors
/// A connection that breaks.
pub(crate) async fn detect<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<(Protocol, Bytes)> {
    let mut early = BytesMut::with_capacity(BUFFER);
    loop {
        if early.starts_with(PREFACE) {
            return Ok((Protocol::Http2, early.freeze()));
        }
        if !PREFACE.starts_with(&early) || (stream.read_buf(&mut early).await? == 0) {
            return Ok((Protocol::Http1, early.freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn protocols_are_told_apart() {
        for (sent, expected) in [
            (b"GET /_ping HTTP/1.1\r\n\r\n".as_slice(), Protocol::Http1),
            (b"POST / HTTP/1.1\r\n\r\n", Protocol::Http1),
            (b"PRI * HTTP/1.1\r\n\r\n", Protocol::Http1),
            (b"PR", Protocol::Http1),
            (b"", Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Protocol::Http2),
        ] {
            for size in [1, 3, 100] {
                let (mut client, mut server) = tokio::io::duplex(size);
                let writing = tokio::spawn(async move {
                    let _ = client.write_all(sent).await;
                });
                let (protocol, early) = detect(&mut server).await.unwrap();
                assert_eq!(protocol, expected, "{sent:?}");
                assert!(sent.starts_with(&early));
                drop(server);
                writing.await.unwrap();
            }
        }
    }
}
