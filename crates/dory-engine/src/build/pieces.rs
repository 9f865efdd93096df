//! What comes in pieces, read as a stream.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use dory_types::with_causes;

/// Waits for the next piece where one reads it; `next` says with `None` that there are no more.
pub(super) struct Pieces<F> {
    next: F,
    piece: Bytes,
}

impl<F> Pieces<F> {
    pub(super) fn new(next: F) -> Self {
        Self { next, piece: Bytes::new() }
    }
}

impl<F, E> Read for Pieces<F>
where
    F: FnMut() -> Result<Option<Bytes>, E>,
    E: std::error::Error,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match (self.next)().map_err(|error| io::Error::other(with_causes(&error)))? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
