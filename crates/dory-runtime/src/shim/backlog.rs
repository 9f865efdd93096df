//! What an attached client has not taken yet.
//!
//! A slow client must neither hold up the container nor lose output. So what its socket does not take waits here: a little
//! in memory, the rest in an unlinked file of the container's directory.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// Kept in memory for each client; beyond it a file is cheaper than a large shim.
const MEMORY_LIMIT: usize = 64 << 10;

/// Unsent bytes of one client, first in, first out.
#[derive(Debug, Default)]
pub struct Backlog {
    /// The oldest bytes.
    memory: VecDeque<u8>,
    /// What came after them: `[taken, length)` of the file.
    spill: Option<File>,
    taken: u64,
    length: u64,
}

impl Backlog {
    /// True where everything was sent.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.taken == self.length
    }

    /// Sends `bytes` to `socket`, or keeps what it does not take.
    ///
    /// # Errors
    /// A client that is gone, or no room for the file: the client is then to be dropped.
    pub fn send(&mut self, socket: BorrowedFd<'_>, mut bytes: &[u8], directory: &OwnedFd) -> io::Result<()> {
        if self.is_empty() {
            bytes = &bytes[send_some(socket, bytes)?..];
        }
        self.keep(bytes, directory)
    }

    fn keep(&mut self, bytes: &[u8], directory: &OwnedFd) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.taken == self.length && self.memory.len() + bytes.len() <= MEMORY_LIMIT {
            self.memory.extend(bytes);
            return Ok(());
        }
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => self.spill.insert(unlinked_file(directory.as_fd())?),
        };
        spill.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Sends on what waits, until the socket takes no more.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            while !self.memory.is_empty() {
                let (front, _) = self.memory.as_slices();
                let sent = send_some(socket, front)?;
                if sent == 0 {
                    return Ok(());
                }
                self.memory.drain(..sent);
            }
            if self.taken == self.length {
                self.spill = None;
                (self.taken, self.length) = (0, 0);
                return Ok(());
            }
            self.refill()?;
        }
    }

    /// Moves a piece from the file to memory.
    fn refill(&mut self) -> io::Result<()> {
        let Some(spill) = &self.spill else { return Ok(()) };
        let wanted = MEMORY_LIMIT.min(usize::try_from(self.length - self.taken).unwrap_or(MEMORY_LIMIT));
        let mut piece = vec![0; wanted];
        spill.read_exact_at(&mut piece, self.taken)?;
        self.taken += piece.len() as u64;
        self.memory.extend(piece);
        Ok(())
    }
}

/// Sends what fits now; 0 where nothing does.
fn send_some(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match send(socket, &bytes[sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => sent += count,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

/// `O_TMPFILE` has no name, so a crash leaves nothing; not every filesystem knows it.
fn unlinked_file(directory: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, ".", flags | OFlags::TMPFILE, Mode::from_raw_mode(0o600)) {
        Ok(file) => Ok(file.into()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let name = format!(".backlog-{}", rustix::process::getpid().as_raw_nonzero());
            let create = flags | OFlags::CREATE | OFlags::EXCL;
            let file =
                File::from(rustix::fs::openat(directory, name.as_str(), create, Mode::from_raw_mode(0o600))?);
            rustix::fs::unlinkat(directory, name.as_str(), rustix::fs::AtFlags::empty())?;
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn keeps_order_through_memory_and_file() {
        let directory = tempfile::tempdir().unwrap();
        let directory: OwnedFd = File::open(directory.path()).unwrap().into();
        let (left, mut right) = UnixStream::pair().unwrap();
        let mut backlog = Backlog::default();
        let all: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 251) as u8).collect();
        for piece in all.chunks(7919) {
            backlog.send(left.as_fd(), piece, &directory).unwrap();
        }
        assert!(backlog.spill.is_some(), "two megabytes fit in no socket buffer");
        let mut received = vec![0; all.len()];
        let mut place = 0;
        while place < all.len() {
            place += right.read(&mut received[place..]).unwrap();
            backlog.flush(left.as_fd()).unwrap();
        }
        assert!(received == all);
        assert!(backlog.is_empty() && backlog.spill.is_none());
    }

    #[test]
    fn a_client_that_left_is_an_error_and_no_signal() {
        let directory: OwnedFd = File::open("/tmp").unwrap().into();
        let (left, right) = UnixStream::pair().unwrap();
        drop(right);
        assert!(Backlog::default().send(left.as_fd(), b"x", &directory).is_err());
    }
}
