//! Digests of files' content, remembered between builds by what stat(2) says of a file.
//!
//! A file is taken for unchanged where device, inode, length and both times are the same. One that changed within the
//! clock's resolution after it was looked at would pass for unchanged too: so nothing is remembered of files that had
//! changed just before.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::Duration;

use dory_store::Node;
use dory_types::{Digest, Timestamp};
use rustix::fs::{self, Mode, OFlags, Stat};
use sha2::{Digest as _, Sha256};

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;
/// Nanoseconds that a file must have been left alone to be remembered: some times of the kernel's clock (CONFIG_HZ=100).
const SETTLED: i64 = 50_000_000;
/// Bytes from which on it is worth to wait until a file is settled: to read it once more takes longer.
const WORTH_WAITING: i64 = 32 << 20;
/// The beginning of the file, with its version.
const MAGIC: &[u8; 8] = b"dorydig1";
/// Bytes of one entry: five numbers and a digest.
const ENTRY: usize = 5 * 8 + 32;

/// What stat(2) says of a file's content.
type Version = [i64; 3];

/// The digests that are known of one context.
#[derive(Debug, Default)]
pub(crate) struct FileDigests {
    known: HashMap<(u64, u64), (Version, [u8; 32])>,
    changed: bool,
    buffer: Vec<u8>,
}

impl FileDigests {
    /// Reads what was remembered under `name` in `directory`; nothing where that is damaged.
    pub(crate) fn read(directory: &OwnedFd, name: &str) -> Self {
        let mut bytes = Vec::new();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let read = fs::openat(directory, name, flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).read_to_end(&mut bytes));
        let mut digests = Self::default();
        let Some(entries) = bytes.strip_prefix(MAGIC).filter(|_| read.is_ok()) else { return digests };
        let Some((checksum, entries)) = entries.split_at_checked(32) else { return digests };
        if Digest::of(entries) != Digest::from_bytes(checksum.try_into().unwrap_or_default()) {
            return digests;
        }
        digests.known.reserve(entries.len() / ENTRY);
        for entry in entries.chunks_exact(ENTRY) {
            let number =
                |at: usize| i64::from_le_bytes(entry[at * 8..at * 8 + 8].try_into().unwrap_or_default());
            let digest = entry[40..].try_into().unwrap_or_default();
            let key = (number(0).cast_unsigned(), number(1).cast_unsigned());
            digests.known.insert(key, ([number(2), number(3), number(4)], digest));
        }
        digests
    }

    /// Writes what is known, where that is news. The file gets its name when it is complete.
    pub(crate) fn write(&self, directory: &OwnedFd, name: &str) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let mut entries = Vec::with_capacity(self.known.len() * ENTRY);
        for ((device, inode), (version, digest)) in &self.known {
            for number in [device.cast_signed(), inode.cast_signed()].iter().chain(version) {
                entries.extend_from_slice(&number.to_le_bytes());
            }
            entries.extend_from_slice(digest);
        }
        let checksum = Sha256::digest(&entries);
        let temporary = format!("{}{name}.{}", dory_store::TEMPORARY_PREFIX, std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(directory, &temporary, flags, Mode::from_raw_mode(0o600))?);
        for part in [MAGIC.as_slice(), checksum.as_slice(), &entries] {
            io::Write::write_all(&mut file, part)?;
        }
        fs::renameat(directory, &temporary, directory, name)?;
        Ok(())
    }

    /// The digest of a regular file's content.
    pub(crate) fn of(&mut self, node: &Node) -> io::Result<[u8; 32]> {
        let stat = node.stat();
        let (key, version) = identity(stat);
        if let Some((known, digest)) = self.known.get(&key)
            && *known == version
        {
            return Ok(*digest);
        }
        let changed = version[1].max(version[2]);
        let left = (changed + SETTLED + 1).saturating_sub(now());
        if stat.st_size >= WORTH_WAITING && (1..=SETTLED).contains(&left) {
            std::thread::sleep(Duration::from_nanos(left.unsigned_abs()));
        }
        let before = now();
        let digest = self.read_content(node)?;
        if changed + SETTLED < before {
            self.known.insert(key, (version, digest));
            self.changed = true;
        }
        Ok(digest)
    }

    fn read_content(&mut self, node: &Node) -> io::Result<[u8; 32]> {
        self.buffer.resize(BUFFER, 0);
        let mut hasher = Sha256::new();
        if node.stat().st_size > 0 {
            let mut file = node.open().map_err(io::Error::other)?;
            loop {
                match file.read(&mut self.buffer) {
                    Ok(0) => break,
                    Ok(length) => hasher.update(&self.buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(hasher.finalize().into())
    }
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let now = Timestamp::now();
    now.unix_seconds() * 1_000_000_000 + i64::from(now.subsecond_nanoseconds())
}

fn identity(stat: &Stat) -> ((u64, u64), Version) {
    let time = |seconds: i64, nanoseconds: u64| {
        seconds.saturating_mul(1_000_000_000).saturating_add(i64::try_from(nanoseconds).unwrap_or(0))
    };
    let version =
        [stat.st_size, time(stat.st_mtime, stat.st_mtime_nsec), time(stat.st_ctime, stat.st_ctime_nsec)];
    ((stat.st_dev, stat.st_ino), version)
}
