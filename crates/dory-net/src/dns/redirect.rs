//! The server's sockets inside a container.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;

use dory_sys::netlink::in_network_namespace;

use super::DnsServerError;
use crate::nftables;

/// The address that containers ask: Docker's.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The port of DNS.
const PORT: u16 = 53;

/// Where a container's questions arrive.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) datagrams: UdpSocket,
    pub(super) listener: TcpListener,
}

impl Sockets {
    /// Listens in `netns`, whose loopback interface is up, on ports of the kernel's choosing to which port 53 of
    /// [`RESOLVER`] is sent: the container itself may bind port 53 of all addresses. Where the packet filter is not to
    /// be had, port 53 is taken itself.
    ///
    /// What an earlier engine set up there is replaced.
    pub(super) fn open(netns: BorrowedFd<'_>) -> Result<Self, DnsServerError> {
        in_network_namespace(netns, || {
            let sockets = Self::bind(0)?;
            let ports = sockets.ports().map_err(DnsServerError::Listen)?;
            match nftables::redirect_resolver(RESOLVER, PORT, ports) {
                Ok(()) => Ok(sockets),
                Err(error) => Self::bind(PORT).map_err(|_| DnsServerError::Redirect(error)),
            }
        })
        .map_err(DnsServerError::Enter)?
    }

    fn bind(port: u16) -> Result<Self, DnsServerError> {
        let datagrams = UdpSocket::bind((RESOLVER, port)).map_err(DnsServerError::Listen)?;
        datagrams.set_nonblocking(true).map_err(DnsServerError::Listen)?;
        let listener = TcpListener::bind((RESOLVER, port)).map_err(DnsServerError::Listen)?;
        listener.set_nonblocking(true).map_err(DnsServerError::Listen)?;
        Ok(Self { datagrams, listener })
    }

    /// The ports of UDP, then TCP.
    fn ports(&self) -> io::Result<(u16, u16)> {
        Ok((self.datagrams.local_addr()?.port(), self.listener.local_addr()?.port()))
    }
}
