//! Checksummed JSON records, each in one file that is replaced by rename.
//!
//! ```text
//! {"checksum":"sha256:<hex of the value's text>","value":{…}}
//! ```
//!
//! The file stays JSON for whoever looks at it. A record that a power cut tore, or that was edited by hand, fails its
//! checksum and is told apart from one that was never there and from one of another version.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use dory_sys::fault_point;
use dory_types::Digest;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How the temporary files begin that a record is written to before it gets its name; a listing skips them.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// The largest record that is read, in bytes; an index of ten thousand images has about 5 MB.
const RECORD_LENGTH_MAX: u64 = 256 << 20;

/// What a record survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: the file and its directory are fsynced before the call returns (4-6 ms on a disk).
    Synced,
    /// The death of this process; a power cut may bring the previous version back, or a torn one.
    Unsynced,
}

/// A record could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The value has no JSON form.
    #[error("cannot serialise record `{name}`")]
    Serialise {
        /// The record's file name.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The new version could not be written beside the old one.
    #[error("cannot write record `{name}`")]
    Write {
        /// The record's file name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file exists and cannot be read.
    #[error("cannot read record `{name}`")]
    Read {
        /// The record's file name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The content is cut off or does not match its checksum.
    #[error("record `{name}` is torn: {reason}")]
    Torn {
        /// The record's file name.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// The content is whole, but is not what this version reads.
    #[error("record `{name}` has an unknown form")]
    Form {
        /// The record's file name.
        name: String,
        /// Which field does not fit.
        #[source]
        source: serde_json::Error,
    },
}

impl RecordError {
    /// True where the reader had no descriptors or memory left: that says nothing about the record.
    pub fn is_scarcity(&self) -> bool {
        use rustix::io::Errno;
        let (Self::Read { source, .. } | Self::Write { source, .. }) = self else { return false };
        let scarce = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        source.raw_os_error().is_some_and(|error| scarce.iter().any(|known| known.raw_os_error() == error))
    }
}

/// The file's outer form, when it is read.
#[derive(Deserialize)]
struct Envelope<'a> {
    checksum: Digest,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// Replaces the record `name` in `directory` by `value`: readers see the old version or the new one.
///
/// # Errors
/// [`RecordError::Serialise`] and [`RecordError::Write`]; the old version is then still there.
pub fn write_record<T: Serialize>(
    directory: impl AsFd,
    name: &str,
    value: &T,
    durability: Durability,
) -> Result<(), RecordError> {
    let text = serde_json::to_string(value)
        .map_err(|source| RecordError::Serialise { name: name.to_owned(), source })?;
    let file = format!("{{\"checksum\":\"{}\",\"value\":{text}}}\n", Digest::of(text.as_bytes()));
    replace_file(directory, name, file.as_bytes(), durability)
        .map_err(|source| RecordError::Write { name: name.to_owned(), source })
}

/// Reads the record `name` in `directory`; `None` where there is none.
///
/// # Errors
/// [`RecordError::Read`], [`RecordError::Torn`] and [`RecordError::Form`].
pub fn read_record<T: DeserializeOwned>(directory: impl AsFd, name: &str) -> Result<Option<T>, RecordError> {
    let read = |source: std::io::Error| RecordError::Read { name: name.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(read(errno.into())),
    };
    let mut content = Vec::new();
    file.take(RECORD_LENGTH_MAX).read_to_end(&mut content).map_err(read)?;
    parse_record(name, &content).map(Some)
}

/// Removes from `directory` what a writer that was killed in the middle left there.
///
/// # Errors
/// Those of reading the directory and of unlinking.
pub fn remove_temporaries(directory: impl AsFd) -> std::io::Result<()> {
    for (name, _) in crate::directory::names(&directory)? {
        if name.starts_with(TEMPORARY_PREFIX.as_bytes()) {
            fs::unlinkat(&directory, &*name, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// Reads a record's content; `name` is for messages only.
///
/// # Errors
/// [`RecordError::Torn`] and [`RecordError::Form`].
pub fn parse_record<T: DeserializeOwned>(name: &str, content: &[u8]) -> Result<T, RecordError> {
    let torn = |reason: String| RecordError::Torn { name: name.to_owned(), reason };
    let envelope: Envelope<'_> = serde_json::from_slice(content).map_err(|error| torn(error.to_string()))?;
    let text = envelope.value.get();
    if Digest::of(text.as_bytes()) != envelope.checksum {
        return Err(torn("the checksum does not match".to_owned()));
    }
    serde_json::from_str(text).map_err(|source| RecordError::Form { name: name.to_owned(), source })
}

/// Gives `content` the name `name`, whatever had it before.
pub(crate) fn replace_file(
    directory: impl AsFd,
    name: &str,
    content: &[u8],
    durability: Durability,
) -> std::io::Result<()> {
    let directory = directory.as_fd();
    let temporary = temporary_name();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file: OwnedFd = fs::openat(directory, &temporary, flags, Mode::from_raw_mode(0o600))?;
    fault_point!("record.opened");
    let written = write_whole(file, content, durability).and_then(|()| {
        fault_point!("record.written");
        Ok(fs::renameat(directory, &temporary, directory, name)?)
    });
    if let Err(error) = written {
        // The temporary file is of no use to anyone; start-up removes it where even this fails.
        let _ = fs::unlinkat(directory, &temporary, AtFlags::empty());
        return Err(error);
    }
    fault_point!("record.renamed");
    if durability == Durability::Synced {
        fs::fsync(directory)?;
    }
    Ok(())
}

/// Writes `content` and, where asked to, waits until the disk has it.
fn write_whole(file: OwnedFd, content: &[u8], durability: Durability) -> std::io::Result<()> {
    let mut file = std::fs::File::from(file);
    file.write_all(content)?;
    if durability == Durability::Synced {
        file.sync_all()?;
    }
    Ok(())
}

/// A name that no other writer of this process uses, nor one of an earlier process that left its file behind.
pub(crate) fn temporary_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{TEMPORARY_PREFIX}{}-{:x}-{serial}", std::process::id(), now.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, std::fs::File) {
        let directory = tempfile::tempdir().unwrap();
        let file = std::fs::File::open(directory.path()).unwrap();
        (directory, file)
    }

    #[test]
    fn replaces_and_reads_back() {
        let (path, directory) = directory();
        assert!(read_record::<Vec<u32>>(&directory, "a.json").unwrap().is_none());
        for (value, durability) in [(vec![1_u32], Durability::Unsynced), (vec![2, 3], Durability::Synced)] {
            write_record(&directory, "a.json", &value, durability).unwrap();
            assert_eq!(read_record::<Vec<u32>>(&directory, "a.json").unwrap(), Some(value));
        }
        assert_eq!(std::fs::read_dir(path.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_cut_and_every_flip_is_recognised() {
        let (path, directory) = directory();
        write_record(&directory, "a.json", &vec!["some", "text"], Durability::Unsynced).unwrap();
        let whole = std::fs::read(path.path().join("a.json")).unwrap();
        for length in 0..whole.len() - 1 {
            let result = parse_record::<Vec<String>>("a.json", &whole[..length]);
            assert!(matches!(result, Err(RecordError::Torn { .. })), "{length}");
        }
        let flipped = String::from_utf8(whole).unwrap().replace("some", "sane");
        let result = parse_record::<Vec<String>>("a.json", flipped.as_bytes());
        assert!(matches!(result, Err(RecordError::Torn { .. })));
    }

    #[test]
    fn another_form_is_not_torn() {
        let (_path, directory) = directory();
        write_record(&directory, "a.json", &"text", Durability::Unsynced).unwrap();
        assert!(matches!(read_record::<u32>(&directory, "a.json"), Err(RecordError::Form { .. })));
    }

    #[test]
    fn a_refused_write_leaves_the_old_version() {
        let (path, directory) = directory();
        std::fs::create_dir(path.path().join("a.json")).unwrap();
        assert!(write_record(&directory, "a.json", &1, Durability::Unsynced).is_err());
        assert_eq!(std::fs::read_dir(path.path()).unwrap().count(), 1);
    }
}
