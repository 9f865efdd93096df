//! Layers: archives unpacked into one directory each, in the form that overlayfs reads.
//!
//! ```text
//! layers/<diff-id hex>/fs            the files; whiteouts and opaque directories in overlay form
//! layers/<diff-id hex>/layer.json    record: sizes, digests and warnings
//! layers/<diff-id hex>/framing.zst   the archive without the content of its files: see `framing`
//! layers/<diff-id hex>/replaced/     what the archive has twice, as it was the first time; rarely there
//! ```
//!
//! A layer is unpacked into `tmp/<name>/` and renamed into its place when its digests are known to be right. A layer's
//! directory never changes afterwards.

mod extract;
mod framing;
mod input;
mod metadata;
mod parents;

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use dory_types::Digest;
use rustix::fs::{self, Mode};
use serde::{Deserialize, Serialize};

pub use extract::ExtractError;
use extract::Extractor;
pub use framing::ExportError;
use framing::Recorder;
pub(crate) use framing::write_archive;
pub(crate) use input::digest;
use input::{HashedInput, HashingReader};

use crate::compression::{Compression, decompress, sniff};
use crate::directory;
use crate::record::{Durability, write_record};
use crate::tar_stream::TarStream;

/// The directory of a layer that has its files.
pub(crate) const FILES: &str = "fs";
/// The layer's record.
pub(crate) const RECORD: &str = "layer.json";

/// What is known about an unpacked layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The sum of the lengths of its regular files, in bytes: what Docker calls a layer's size.
    pub size: u64,
    /// The length of the uncompressed archive, in bytes: what [`Store::export_layer`](crate::Store::export_layer)
    /// writes.
    pub archive_size: u64,
    /// The digest of the archive as it came, which is not the diff-id where it was compressed: the same blob need not
    /// be unpacked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Digest>,
    /// What of the archive could not be kept, such as device nodes without privilege; the first few of them.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Names that the archive has more than once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replaced: Vec<Replaced>,
}

/// A file, or a tree, that a later entry of the same archive took the place of. Its content is still part of the
/// archive, so it is kept beside the layer's files, as `replaced/<entry>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replaced {
    /// Where it was, cleaned; in hexadecimal, as it may be no UTF-8.
    #[serde(with = "hex")]
    pub(crate) path: Vec<u8>,
    /// The position in the archive, from 0, of the entry that took its place.
    pub(crate) entry: u64,
}

/// How much a layer may unpack to, whatever its archive claims: a bound against decompression bombs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct UnpackLimits {
    /// The length of the uncompressed archive, in bytes.
    pub archive_size: u64,
    /// How many entries it may have: each takes an inode.
    pub entries: u64,
}

impl Default for UnpackLimits {
    /// 128 GiB and sixteen million entries: ten times what the largest images in use have.
    fn default() -> Self {
        Self { archive_size: 128 << 30, entries: 16_000_000 }
    }
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
pub(crate) fn unpack(
    source: impl Read + Send,
    staging: &OwnedFd,
    limits: UnpackLimits,
) -> Result<Unpacked, ExtractError> {
    fs::mkdirat(staging, FILES, Mode::from_raw_mode(0o755)).map_err(ExtractError::Root)?;
    let (start, source) = sniff(source).map_err(ExtractError::Read)?;
    let compression = Compression::of(&start);
    if compression == Compression::None {
        let (diff_id, record) = unpack_tar(source, staging, limits)?;
        let blob = (diff_id, record.archive_size);
        write_record(staging, RECORD, &record, Durability::Unsynced).map_err(ExtractError::Record)?;
        return Ok(Unpacked { diff_id, blob, record });
    }
    let mut source = HashingReader::new(source);
    let tar = decompress(&mut source, compression).map_err(ExtractError::Read)?;
    let (diff_id, mut record) = unpack_tar(tar, staging, limits)?;
    // What follows the compressed data belongs to the blob's digest too.
    io::copy(&mut source, &mut io::sink()).map_err(ExtractError::Read)?;
    let blob = source.finish();
    record.blob = Some(blob.0);
    write_record(staging, RECORD, &record, Durability::Unsynced).map_err(ExtractError::Record)?;
    Ok(Unpacked { diff_id, blob, record })
}

/// Unpacks an uncompressed archive; its digest and what was unpacked.
fn unpack_tar(
    source: impl Read,
    staging: &OwnedFd,
    limits: UnpackLimits,
) -> Result<(Digest, LayerRecord), ExtractError> {
    let root = directory::open_child(staging, FILES).map_err(ExtractError::Root)?;
    let input = HashedInput::new(source, limits.archive_size);
    let mut archive = TarStream::new(Recorder::new(input, staging)?);
    let mut extractor = Extractor::new(root.as_fd(), staging.as_fd())?;
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        entries += 1;
        if entries > limits.entries {
            return Err(ExtractError::TooManyEntries(limits.entries));
        }
        archive.input().pause(extract::stored_path(&entry)?.is_some());
        extractor.apply(&entry, &mut archive)?;
        archive.input().pause(false);
    }
    let mut record = extractor.finish()?;
    let (diff_id, length) = archive.into_inner().finish()?;
    record.archive_size = length;
    Ok((diff_id, record))
}

/// Bytes as hexadecimal text in records.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.as_bytes().chunks(2);
        let byte = |pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        digits.map(|pair| byte(pair).ok_or_else(|| D::Error::custom("not hexadecimal"))).collect()
    }
}
