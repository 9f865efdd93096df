//! The chain of a log's files: names, and the move by one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::identity::FileIdentity;

/// As dockerd's: the owner writes, the group may read.
const LOG_MODE: Mode = Mode::from_raw_mode(0o640);

/// The name of file `index` of the chain `name`: 0 is the one being written.
pub(crate) fn chain_name(name: &str, index: u32) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}.{index}") }
}

/// The name of file `index` once it is compressed, as dockerd's.
pub(crate) fn compressed_name(name: &str, index: u32) -> String {
    format!("{}.gz", chain_name(name, index))
}

/// Opens the file that is written to, creating it where it does not exist.
pub(crate) fn open_append(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(dir, name, flags, LOG_MODE)?)
}

/// Opens the file `name` for reading; `None` where it does not exist.
pub(crate) fn open_read(dir: BorrowedFd<'_>, name: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    unless_missing(openat(dir, name, flags, Mode::empty()))
}

/// Removes the file `name`, if there is one.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    unless_missing(unlinkat(dir, name, AtFlags::empty())).map(drop)
}

/// Moves the chain by one, keeping `max_file` files, and returns the new, empty file to write to.
///
/// The new file is made before anything moves, so that a full disk leaves the chain as it is; it gets its name by a
/// rename, so that with a single file no instant is without one. It has none of the identities in `taken`.
pub(crate) fn rotate(
    dir: &OwnedFd,
    name: &str,
    max_file: u32,
    taken: &VecDeque<FileIdentity>,
) -> io::Result<OwnedFd> {
    let dir = dir.as_fd();
    let fresh_name = format!("{name}.new");
    let fresh = make_fresh(dir, &fresh_name, taken)?;
    // From the oldest, so that no name is taken twice; a reader relies on files only moving upwards.
    for index in (1..max_file).rev() {
        // What a rename does not replace, because it has the other form.
        remove(dir, &chain_name(name, index))?;
        remove(dir, &compressed_name(name, index))?;
        if index > 1 {
            let (from, to) = (compressed_name(name, index - 1), compressed_name(name, index));
            unless_missing(renameat(dir, from, dir, to))?;
        }
        unless_missing(renameat(dir, chain_name(name, index - 1), dir, chain_name(name, index)))?;
    }
    renameat(dir, &fresh_name, dir, name)?;
    Ok(fresh)
}

/// Makes an empty file. A file that was compressed gives its inode number back, and the clock of births is coarse: the
/// next file may look just like it. Held open meanwhile, it is not made a second time.
fn make_fresh(dir: BorrowedFd<'_>, name: &str, taken: &VecDeque<FileIdentity>) -> io::Result<OwnedFd> {
    let mut rejected = Vec::new();
    loop {
        remove(dir, name)?;
        let fresh = open_append(dir, name)?;
        if !taken.contains(&FileIdentity::of(fresh.as_fd())?) {
            return Ok(fresh);
        }
        rejected.push(fresh);
    }
}

fn unless_missing<T>(result: Result<T, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
