//! Netlink sockets, and short errands inside another network namespace.
//!
//! A netlink socket belongs to the network namespace in which it was opened, for as long as it lives, whatever its
//! thread does afterwards. So a socket *into* a container is opened by a thread that enters the container's namespace,
//! hands the descriptor back and ends: no other thread of the engine ever changes its namespace, not even for a moment.
//!
//! Nothing here knows a message format; `dory-net` builds and reads those.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// How long an answer of the kernel is waited for. The kernel answers before `send` returns, so running into this means
/// that an expected acknowledgement does not exist; blocking for ever would hide that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest datagram that the kernel puts into a dump (`NLMSG_GOODSIZE` grows to 32 KiB with the reader's buffer).
const RECEIVE_SIZE: usize = 64 << 10;

/// What netlink itself adds to a datagram's size when it charges the sender's buffer.
const SEND_OVERHEAD: usize = 4096;

/// The default of `net.core.wmem_default`; a larger datagram needs a larger buffer.
const DEFAULT_SEND_BUFFER: usize = 200 << 10;

/// A netlink family, by the subsystem that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetlinkProtocol {
    /// `NETLINK_ROUTE`: links, addresses, routes (rtnetlink(7)).
    Route,
    /// `NETLINK_NETFILTER`: nf_tables, by way of nfnetlink.
    Netfilter,
}

/// A blocking netlink socket to the kernel, bound to a port id of the kernel's choosing.
#[derive(Debug)]
pub struct NetlinkSocket {
    socket: OwnedFd,
}

impl NetlinkSocket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The error of `socket(2)`, `bind(2)` or `setsockopt(2)`.
    pub fn open(protocol: NetlinkProtocol) -> io::Result<Self> {
        let protocol = match protocol {
            // NETLINK_ROUTE is 0, which is the protocol of a socket for which none is named.
            NetlinkProtocol::Route => None,
            NetlinkProtocol::Netfilter => Some(netlink::NETFILTER),
        };
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        set_option(socket.as_fd(), libc::NETLINK_CAP_ACK)?;
        set_option(socket.as_fd(), libc::NETLINK_EXT_ACK)?;
        Ok(Self { socket })
    }

    /// Opens a socket that acts in `netns`, as seen from any thread.
    ///
    /// # Errors
    /// As [`in_network_namespace`] and [`NetlinkSocket::open`].
    pub fn open_in(netns: BorrowedFd<'_>, protocol: NetlinkProtocol) -> io::Result<Self> {
        in_network_namespace(netns, || Self::open(protocol))?
    }

    /// Sends `datagram`, which may hold several messages, in one system call.
    ///
    /// # Errors
    /// The error of `send(2)`.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let needed = datagram.len() + SEND_OVERHEAD;
        if needed > DEFAULT_SEND_BUFFER {
            self.grow_send_buffer(needed)?;
        }
        loop {
            match rustix::net::send(&self.socket, datagram, SendFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                result => return result.map(drop).map_err(Into::into),
            }
        }
    }

    /// The next datagram, which may hold several messages. `buffer` is cleared first.
    ///
    /// # Errors
    /// The error of `recv(2)`; `WouldBlock` when no answer came within ten seconds; `InvalidData` when the datagram was
    /// larger than any that the kernel sends.
    pub fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.resize(RECEIVE_SIZE, 0);
        loop {
            match rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::TRUNC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok((read, length)) if length > read => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink datagram was cut off"));
                }
                Ok((read, _)) => {
                    buffer.truncate(read);
                    return Ok(());
                }
            }
        }
    }

    /// Makes room for one datagram of `size` bytes: past `net.core.wmem_max` where the caller may, up to it otherwise.
    fn grow_send_buffer(&self, size: usize) -> io::Result<()> {
        if rustix::net::sockopt::set_socket_send_buffer_size_force(&self.socket, size).is_err() {
            set_socket_send_buffer_size(&self.socket, size)?;
        }
        Ok(())
    }
}

/// Switches the netlink option `option` on.
fn set_option(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `socket` is open for the length of the borrow, and the option's value is a readable `int` whose size is
    // passed along with its address; the kernel keeps neither.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Does `work` on a thread of its own whose network namespace is `netns`, and waits for it.
///
/// Only the network namespace changes: paths, users and `/proc` are the caller's, except that `/proc/sys/net` and
/// `/proc/thread-self/net` show `netns`.
///
/// # Errors
/// The error of starting the thread or of `setns(2)`: `EPERM` where the caller lacks `CAP_SYS_ADMIN` over the user
/// namespace that owns `netns` or in its own.
///
/// # Panics
/// When `work` panics.
pub fn in_network_namespace<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    on_own_thread(|| {
        move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
        Ok(work())
    })
}

/// A new network namespace, owned by the caller's user namespace, with its loopback interface down.
///
/// It lives as long as the descriptor, or whatever else comes to refer to it.
///
/// # Errors
/// The error of starting a thread, of `unshare(2)` or of opening the namespace's file under `/proc`.
pub fn new_network_namespace() -> io::Result<OwnedFd> {
    on_own_thread(|| {
        // SAFETY: CLONE_NEWNET changes nothing but the network namespace of this thread, which runs none but this
        // closure and ends with it; no descriptor table or memory is unshared, so no invariant of std is touched.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    })
}

/// Runs `work` on a new thread and waits for it.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_both_protocols() {
        for protocol in [NetlinkProtocol::Route, NetlinkProtocol::Netfilter] {
            NetlinkSocket::open(protocol).unwrap();
        }
    }

    #[test]
    fn privileged_work_in_a_namespace_leaves_the_caller_where_it_was() {
        let identity = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let before = identity();
        let netns = new_network_namespace().unwrap();
        let inside = in_network_namespace(netns.as_fd(), identity).unwrap();
        assert_ne!(before, inside);
        assert_eq!(before, identity());
    }
}
