//! Layers: archives unpacked into one directory each, in the form that overlayfs reads.
//!
//! ```text
//! layers/<diff-id hex>/fs            the files; whiteouts and opaque directories in overlay form
//! layers/<diff-id hex>/layer.json    record: size and warnings
//! ```
//!
//! A layer is unpacked into `tmp/<name>/` and renamed into its place when its digest is known to be right and the
//! disk has all of it. A layer's directory never changes afterwards.

mod extract;
mod metadata;
mod parents;

use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, OwnedFd};

use dory_types::Digest;
use rustix::fs::{self, Mode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use extract::ExtractError;
use extract::Extractor;

use crate::compression::{Compression, decompress, sniff};
use crate::directory;
use crate::record::{Durability, write_record};
use crate::tar_stream::TarStream;

/// The directory of a layer that has its files.
pub(crate) const FILES: &str = "fs";
/// The layer's record.
pub(crate) const RECORD: &str = "layer.json";
/// The buffer between an archive and its extraction, in bytes: also the largest single write of a file.
const BUFFER: usize = 256 << 10;

/// What is known about an unpacked layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The sum of the lengths of its regular files, in bytes: what Docker calls a layer's size.
    pub size: u64,
    /// The digest of the archive as it came, which is not the diff-id where it was compressed: the same blob need not
    /// be unpacked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Digest>,
    /// What of the archive could not be kept, such as device nodes without privilege; the first few of them.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A layer's archive as it was read.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// The digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// The digest and length of the archive as it came.
    pub(crate) blob: (Digest, u64),
    pub(crate) record: LayerRecord,
}

/// Unpacks the layer that `source` has, compressed or not, into the empty directory `staging`. Reads `source` to its
/// end. Nothing is synced.
pub(crate) fn unpack(source: impl Read + Send, staging: &OwnedFd) -> Result<Unpacked, ExtractError> {
    fs::mkdirat(staging, FILES, Mode::from_raw_mode(0o755)).map_err(ExtractError::Root)?;
    let root = directory::open_child(staging, FILES).map_err(ExtractError::Root)?;
    let (start, source) = sniff(source).map_err(ExtractError::Read)?;
    let compression = Compression::of(&start);
    let mut blob = (compression != Compression::None).then(Hashing::default);
    let (diff_id, length, mut record) = match &mut blob {
        None => unpack_tar(source, &root)?,
        Some(hashing) => {
            let mut source = HashingReader { source, hashing };
            let tar = decompress(&mut source, compression).map_err(ExtractError::Read)?;
            let unpacked = unpack_tar(tar, &root)?;
            // What follows the compressed data belongs to the blob's digest too.
            io::copy(&mut source, &mut io::sink()).map_err(ExtractError::Read)?;
            unpacked
        }
    };
    let blob = blob.map_or((diff_id, length), Hashing::finish);
    record.blob = Some(blob.0).filter(|digest| *digest != diff_id);
    write_record(staging, RECORD, &record, Durability::Unsynced).map_err(ExtractError::Record)?;
    Ok(Unpacked { diff_id, blob, record })
}

/// Unpacks an uncompressed archive; its digest, its length and what was unpacked.
fn unpack_tar(source: impl Read, root: &OwnedFd) -> Result<(Digest, u64, LayerRecord), ExtractError> {
    let mut archive = TarStream::new(HashedInput::new(source));
    let mut extractor = Extractor::new(root.as_fd())?;
    while let Some(entry) = archive.next_entry()? {
        extractor.apply(&entry, &mut archive)?;
    }
    let record = extractor.finish()?;
    let mut input = archive.into_inner();
    input.drain().map_err(ExtractError::Read)?;
    let (diff_id, length) = input.hashing.finish();
    Ok((diff_id, length, record))
}

/// The digest and the length of all that `source` has.
pub(crate) fn digest(source: impl Read) -> io::Result<(Digest, u64)> {
    let mut input = HashedInput::new(source);
    input.drain()?;
    Ok(input.hashing.finish())
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
struct HashingReader<'a, R> {
    source: R,
    hashing: &'a mut Hashing,
}

impl<R: Read> Read for HashingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.hashing.update(&buffer[..length]);
        Ok(length)
    }
}

/// A buffer whose content is hashed once when it comes in, and then handed out without another copy.
struct HashedInput<R> {
    source: R,
    hashing: Hashing,
    buffer: Box<[u8]>,
    position: usize,
    filled: usize,
}

impl<R: Read> HashedInput<R> {
    fn new(source: R) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { source, hashing: Hashing::default(), buffer, position: 0, filled: 0 }
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
        }
        Ok(&self.buffer[self.position..self.filled])
    }

    fn consume(&mut self, length: usize) {
        self.position += length;
    }
}
