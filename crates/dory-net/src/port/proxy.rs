//! Published ports that the packet filter cannot serve, by passing connections on.
//!
//! The packet filter cannot turn one family into the other, nor send what this machine says to ::1 anywhere. A program that
//! looks up `localhost` may well try `::1` first, though, so that ports published on addresses of IPv6 are listened to as
//! well, as by Docker's user-space proxy: TCP only, and for as long as somebody runs the proxy. Nothing else rests on it:
//! where the container has an IPv6 address, only what this machine sends to itself comes this way.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{PortMapping, Protocol, PublishTarget};
use crate::poll::{Pause, wait};
use crate::relay::{Limits, Relays};

/// What one container's connections are granted: as many as leave the process descriptors for other work (two each).
const LIMITS: Limits = Limits { connections: 256, silence: None };

/// How many connections wait to be accepted.
const BACKLOG: i32 = 128;

/// Sockets on `[::]` for a container's published ports, ready to be served.
#[derive(Debug)]
pub struct PortProxy {
    listeners: Vec<(TcpListener, SocketAddr)>,
    ports: Vec<PortMapping>,
}

impl PortProxy {
    /// Listens for those of `ports` that are TCP and published on addresses of IPv6, for the container at `target`. A port
    /// that cannot be had is left out: another program serves it, or the machine has no IPv6.
    pub fn bind(target: PublishTarget, ports: &[PortMapping]) -> Self {
        let mut proxy = Self { listeners: Vec::new(), ports: Vec::new() };
        let Some(address) = target.any() else { return proxy };
        let wanted = ports.iter().filter(|it| it.protocol == Protocol::Tcp);
        for mapping in wanted {
            let IpAddr::V6(host) = mapping.host_address else { continue };
            if let Ok(listener) = listen(host, mapping.host_port) {
                proxy.listeners.push((listener, (address, mapping.container_port).into()));
                proxy.ports.push(*mapping);
            }
        }
        proxy
    }

    /// True where there is nothing to serve.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// The ports that are served.
    pub fn ports(&self) -> &[PortMapping] {
        &self.ports
    }

    /// Passes connections on until `stop` becomes readable, or is closed at its other end.
    ///
    /// # Errors
    /// The error of `poll(2)`; no connection, however odd, ends the loop.
    pub fn run(self, stop: BorrowedFd<'_>) -> io::Result<()> {
        let mut relays = Relays::new(LIMITS);
        let mut pause = Pause::default();
        loop {
            let mut waiting = vec![PollFd::from_borrowed_fd(stop, PollFlags::IN)];
            // With no room, connections wait where the kernel keeps them.
            let interest = if relays.is_full() { PollFlags::empty() } else { pause.interest() };
            waiting.extend(self.listeners.iter().map(|(listener, _)| PollFd::new(listener, interest)));
            let first_relay = waiting.len();
            let mut numbers = Vec::new();
            for (number, socket, flags) in relays.interests() {
                numbers.push(number);
                waiting.push(PollFd::new(socket, flags));
            }
            wait(&mut waiting, pause.deadline())?;
            let ready: Vec<bool> = waiting.iter().map(|socket| !socket.revents().is_empty()).collect();
            drop(waiting);
            if ready[0] {
                return Ok(());
            }
            let now = Instant::now();
            let moving = numbers.into_iter().zip(&ready[first_relay..]).filter(|(_, ready)| **ready);
            relays.advance(&moving.map(|(number, _)| number).collect::<Vec<_>>(), now);
            for ((listener, target), _) in self.listeners.iter().zip(&ready[1..]).filter(|(_, ready)| **ready)
            {
                match listener.accept() {
                    Ok((client, _)) => relays.open(client, vec![*target], now),
                    Err(error) => pause.consider(&error, now),
                }
            }
        }
    }
}

/// Listens on `address` alone: IPv4 has the packet filter.
fn listen(address: Ipv6Addr, port: u16) -> Result<TcpListener, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV6::new(address, port, 0, 0))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}
