//! What rustix does not tell of sockets.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// True where the other side of a connected unix stream socket has read all that was sent (`SIOCOUTQ`, unix(7)).
///
/// Each time that the other side has read something the socket becomes writable anew (an edge for epoll(7)), so an
/// event loop need not ask again and again.
///
/// # Errors
/// The kernel's; `EINVAL` or `ENOTTY` where a sandbox does not know the question.
pub fn is_read_by_peer(socket: impl AsFd) -> io::Result<bool> {
    let mut unread: libc::c_int = 0;
    // SAFETY: the request (the number of TIOCOUTQ) stores one int, for which there is room; the descriptor is open.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ as _, &raw mut unread) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel counts buffers with their overhead, and wakes the writer (sock_wfree in net/core/sock.c) before it
    // takes a freed one's last byte off the count: no buffer is that small.
    Ok(unread <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn tells_when_everything_was_read() {
        let (mut left, mut right) = UnixStream::pair().unwrap();
        assert!(is_read_by_peer(&left).unwrap());
        left.write_all(b"ab").unwrap();
        left.write_all(b"c").unwrap();
        for expected in [false, false, true] {
            assert_eq!(right.read(&mut [0]).unwrap(), 1);
            assert_eq!(is_read_by_peer(&left).unwrap(), expected);
        }
    }
}
