//! The frames that carry stdout and stderr over one connection when there is no tty.
//!
//! Docker Engine API, `ContainerAttach`, "Stream format": `[type, 0, 0, 0, size: u32 big-endian]`, then `size` bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Length of a frame's header in bytes.
pub const HEADER_LENGTH: usize = 8;

/// The stream that bytes belong to; the values are those of the frame header's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Stream {
    /// Standard input; Docker reserves the value but sends no such frame.
    Stdin = 0,
    /// Standard output, and everything when there is a tty.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

impl Stream {
    /// The name in log records: `stdin`, `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The header of a frame with `length` bytes of `stream`.
pub fn header(stream: Stream, length: u32) -> [u8; HEADER_LENGTH] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

/// The bytes are not a stream of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid frame type `{0}` in a multiplexed stream")]
pub struct FrameError(pub u8);

/// Takes a multiplexed stream apart, however its bytes arrive.
///
/// Nothing is copied: a payload is handed out in the pieces in which it came, since a reader of terminal output wants
/// bytes at once and frames may be of any size.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    header: [u8; HEADER_LENGTH],
    header_length: usize,
    current: Option<Stream>,
    remaining: u32,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of payload off the front of `input`; `None` when more input is needed.
    ///
    /// # Errors
    /// [`FrameError`] if a header names a stream that does not exist (the other side sent a raw stream).
    pub fn next<'b>(&mut self, input: &mut &'b [u8]) -> Result<Option<(Stream, &'b [u8])>, FrameError> {
        loop {
            if let Some(stream) = self.current {
                if self.remaining == 0 {
                    self.current = None;
                    continue;
                }
                if input.is_empty() {
                    return Ok(None);
                }
                let length = input.len().min(self.remaining as usize);
                let (piece, rest) = input.split_at(length);
                *input = rest;
                self.remaining -= length as u32;
                return Ok(Some((stream, piece)));
            }
            if !self.take_header(input)? {
                return Ok(None);
            }
        }
    }

    /// Collects header bytes; true once a header is complete and `current` is set.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<bool, FrameError> {
        let length = input.len().min(HEADER_LENGTH - self.header_length);
        let (part, rest) = input.split_at(length);
        self.header[self.header_length..self.header_length + length].copy_from_slice(part);
        self.header_length += length;
        *input = rest;
        if self.header_length < HEADER_LENGTH {
            return Ok(false);
        }
        self.header_length = 0;
        let [kind, _, _, _, a, b, c, d] = self.header;
        self.current = Some(match kind {
            0 => Stream::Stdin,
            1 => Stream::Stdout,
            // 3 is dockerd's "systemerr": a message of the daemon about the stream, which its client prints on stderr.
            2 | 3 => Stream::Stderr,
            other => return Err(FrameError(other)),
        });
        self.remaining = u32::from_be_bytes([a, b, c, d]);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<u8> {
        let mut wire = Vec::new();
        for (stream, text) in [(Stream::Stdout, "out"), (Stream::Stderr, ""), (Stream::Stderr, "error\n")] {
            wire.extend(header(stream, text.len() as u32));
            wire.extend(text.as_bytes());
        }
        wire
    }

    #[test]
    fn header_is_type_and_big_endian_length() {
        assert_eq!(header(Stream::Stderr, 0x0102_0304), [2, 0, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn decodes_in_any_pieces() {
        let wire = frames();
        for size in 1..=wire.len() {
            let mut decoder = FrameDecoder::new();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for mut piece in wire.chunks(size) {
                while let Some((stream, bytes)) = decoder.next(&mut piece).unwrap() {
                    if stream == Stream::Stdout { &mut out } else { &mut err }.extend_from_slice(bytes);
                }
                assert!(piece.is_empty());
            }
            assert_eq!((out.as_slice(), err.as_slice()), (&b"out"[..], &b"error\n"[..]), "pieces of {size}");
        }
    }

    #[test]
    fn refuses_a_raw_stream() {
        assert_eq!(FrameDecoder::new().next(&mut &b"hello there"[..]), Err(FrameError(b'h')));
    }
}
