//! Reserving a port of this machine with a socket that is bound to it and never serves.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, ipproto, sockopt};

use super::Protocol;

/// Binds a socket to `port` of `address`. The descriptor is the reservation.
///
/// # Errors
/// `EADDRINUSE` where another program has the port, `EADDRNOTAVAIL` where this machine lacks the address, `EACCES`
/// where the port is below `net.ipv4.ip_unprivileged_port_start` and the caller may not, `EPROTONOSUPPORT` where the
/// kernel lacks the protocol, as many lack SCTP.
pub(super) fn reserve(protocol: Protocol, address: IpAddr, port: u16) -> Result<OwnedFd, Errno> {
    let address = SocketAddr::new(address, port);
    match protocol {
        Protocol::Tcp => reserve_tcp(address),
        Protocol::Udp => {
            let socket = open(address, SocketType::DGRAM, ipproto::UDP)?;
            // What reaches it is nobody's: keep as little as the kernel allows.
            sockopt::set_socket_recv_buffer_size(&socket, 0)?;
            rustix::net::bind(&socket, &address)?;
            Ok(socket)
        }
        Protocol::Sctp => {
            let socket = open(address, SocketType::STREAM, ipproto::SCTP)?;
            rustix::net::bind(&socket, &address)?;
            Ok(socket)
        }
    }
}

/// Binds, listens for a moment, and stops listening.
///
/// SO_REUSEADDR is what lets a port be taken whose last server went a minute ago (its connections linger in TIME_WAIT);
/// with it only `listen` finds out whether another program has the port. A socket that went on listening would let the
/// kernel complete connections that nobody accepts; shut down it keeps the port, and clients are refused. At last
/// SO_REUSEADDR goes, or another program that sets it could listen beside us.
fn reserve_tcp(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = open(address, SocketType::STREAM, ipproto::TCP)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 0)?;
    rustix::net::shutdown(&socket, Shutdown::Both)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    Ok(socket)
}

/// A socket for `address`; one of IPv6 leaves IPv4 alone.
fn open(address: SocketAddr, kind: SocketType, protocol: rustix::net::Protocol) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

    /// A port that was free a moment ago.
    fn free_port() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_reserved_port_is_taken_and_refuses_clients() {
        let port = free_port();
        let socket = reserve(Protocol::Tcp, Ipv4Addr::LOCALHOST.into(), port).unwrap();
        // std sets SO_REUSEADDR on its listeners, as do Go's, Python's and Java's.
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::AddrInUse);
        assert_eq!(reserve(Protocol::Tcp, Ipv4Addr::LOCALHOST.into(), port).unwrap_err(), Errno::ADDRINUSE);
        assert_eq!(reserve(Protocol::Tcp, Ipv4Addr::UNSPECIFIED.into(), port).unwrap_err(), Errno::ADDRINUSE);
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
        assert_eq!(client.kind(), ErrorKind::ConnectionRefused);
        drop(socket);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    }

    #[test]
    fn a_port_that_lingers_can_be_reserved() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        // The server closes first and so keeps the connection in TIME_WAIT.
        drop(listener.accept().unwrap());
        drop(listener);
        drop(client);
        reserve(Protocol::Tcp, Ipv4Addr::LOCALHOST.into(), port).unwrap();
    }

    #[test]
    fn others_ports_are_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(reserve(Protocol::Tcp, Ipv4Addr::UNSPECIFIED.into(), port).unwrap_err(), Errno::ADDRINUSE);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(reserve(Protocol::Udp, Ipv4Addr::LOCALHOST.into(), port).unwrap_err(), Errno::ADDRINUSE);
        let elsewhere = Ipv4Addr::new(203, 0, 113, 77);
        assert_eq!(reserve(Protocol::Tcp, elsewhere.into(), free_port()).unwrap_err(), Errno::ADDRNOTAVAIL);
    }
}
