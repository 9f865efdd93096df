//! A layer's bytes on their way from the source to the extractor, hashed as they pass.

use std::io::{self, BufRead, Read};

use dory_types::Digest;
use sha2::{Digest as _, Sha256};

/// The buffer between an archive and its extraction, in bytes: also the largest single write of a file.
const BUFFER: usize = 256 << 10;

/// The digest and the length of all that `source` has.
pub(crate) fn digest(source: impl Read) -> io::Result<(Digest, u64)> {
    let mut input = HashedInput::new(source, u64::MAX);
    input.drain()?;
    Ok(input.finish())
}

/// A digest in the making.
#[derive(Default)]
pub(crate) struct Hashing {
    hasher: Sha256,
    length: u64,
}

impl Hashing {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }

    pub(crate) fn finish(self) -> (Digest, u64) {
        (Digest::from_bytes(self.hasher.finalize().into()), self.length)
    }
}

/// Hashes what is read through it.
pub(super) struct HashingReader<R> {
    source: R,
    hashing: Hashing,
}

impl<R> HashingReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, hashing: Hashing::default() }
    }

    /// The digest and the length of what was read.
    pub(super) fn finish(self) -> (Digest, u64) {
        self.hashing.finish()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.hashing.update(&buffer[..length]);
        Ok(length)
    }
}

/// A buffer whose content is hashed once when it comes in, and then handed out without another copy.
pub(super) struct HashedInput<R> {
    source: R,
    /// How many bytes the source may have.
    limit: u64,
    hashing: Hashing,
    buffer: Box<[u8]>,
    position: usize,
    filled: usize,
}

impl<R: Read> HashedInput<R> {
    pub(super) fn new(source: R, limit: u64) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { source, limit, hashing: Hashing::default(), buffer, position: 0, filled: 0 }
    }

    /// The digest and the length of what was read.
    pub(super) fn finish(self) -> (Digest, u64) {
        self.hashing.finish()
    }

    /// Reads to the end, for the digest's sake.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length);
        }
    }
}

impl<R: Read> Read for HashedInput<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: Read> BufRead for HashedInput<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.filled {
            self.position = 0;
            self.filled = loop {
                match self.source.read(&mut self.buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result?,
                }
            };
            self.hashing.update(&self.buffer[..self.filled]);
            if self.hashing.length > self.limit {
                let message = format!("it unpacks to more than the limit of {} bytes", self.limit);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
        }
        Ok(&self.buffer[self.position..self.filled])
    }

    fn consume(&mut self, length: usize) {
        self.position += length;
    }
}
