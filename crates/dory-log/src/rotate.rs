//! The chain of a log's files: names, and the move by one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat, renameat, unlinkat};

/// As dockerd's: the owner writes, the group may read.
const LOG_MODE: Mode = Mode::from_raw_mode(0o640);

/// The name of file `index` of the chain `name`: 0 is the one being written.
pub(crate) fn chain_name(name: &str, index: u32) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}.{index}") }
}

/// Opens the file that is written to, creating it where it does not exist.
pub(crate) fn open_append(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(dir, name, flags, LOG_MODE)?)
}

/// Opens file `index` for reading; `None` where it does not exist.
pub(crate) fn open_read(dir: BorrowedFd<'_>, name: &str, index: u32) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match openat(dir, chain_name(name, index), flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Moves the chain by one, keeping `max_file` files, and returns the new, empty file to write to.
///
/// The new file is made before anything moves, so that a full disk leaves the chain as it is; it gets its name by a
/// rename, so that with a single file no instant is without one.
pub(crate) fn rotate(dir: &OwnedFd, name: &str, max_file: u32) -> io::Result<OwnedFd> {
    let dir = dir.as_fd();
    let fresh_name = format!("{name}.new");
    match unlinkat(dir, &fresh_name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let fresh = open_append(dir, &fresh_name)?;
    // From the oldest, so that no name is taken twice; a reader relies on files only moving upwards.
    for index in (1..max_file).rev() {
        match renameat(dir, chain_name(name, index - 1), dir, chain_name(name, index)) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    renameat(dir, &fresh_name, dir, name)?;
    Ok(fresh)
}
