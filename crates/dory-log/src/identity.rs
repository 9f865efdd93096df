//! What a log file is known by, whatever its name is and in whichever form it is kept.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, StatxFlags, statx};

/// A file's inode number and birth. Numbers are used again, and soon; filesystems that keep no time of birth leave it at
/// zero, and then a follower may take a much older file for the one that it has just read.
///
/// A compressed file carries the identity of what it was made of as its gzip comment (RFC 1952, FCOMMENT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    inode: u64,
    /// Seconds and nanoseconds since 1970.
    born: (i64, u32),
}

impl FileIdentity {
    pub(crate) fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let found = statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
        let born = match found.stx_mask & StatxFlags::BTIME.bits() {
            0 => (0, 0),
            _ => (found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
        };
        Ok(Self { inode: found.stx_ino, born })
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(text).ok()?.split(' ');
        let inode = numbers.next()?.parse().ok()?;
        let born = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        numbers.next().is_none().then_some(Self { inode, born })
    }
}

impl fmt::Display for FileIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.inode, self.born.0, self.born.1)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn parses_what_it_wrote() {
        let file = tempfile::tempfile().unwrap();
        let identity = FileIdentity::of(file.as_fd()).unwrap();
        assert_eq!(FileIdentity::parse(identity.to_string().as_bytes()), Some(identity));
        for other in ["", "1", "1 2", "1 2 3 4", "a b c"] {
            assert_eq!(FileIdentity::parse(other.as_bytes()), None, "{other}");
        }
    }
}
