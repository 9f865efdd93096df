//! A forwarder of DNS questions, for containers whose machine has only resolvers that no container reaches.
//!
//! That is the lot of a nested engine: its resolver is the outer engine's embedded server on 127.0.0.11, which exists in
//! the engine's own network namespace alone. The forwarder listens on the bridge's address, on ports of the kernel's
//! choosing; the packet filter sends port 53 of that address there, so that a container may still publish a port 53 of
//! its own on all addresses, and so that no other server of the machine is in the way.
//!
//! It is one loop over one `poll`, meant for one thread, and knows as little of DNS as it can: a question goes upstream
//! byte for byte from a socket of its own (whose port the kernel picks at random), the answer comes back byte for byte.
//! It is bounded: so many questions and connections at a time, so much time for each. It answers its own network's
//! containers only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::query::{Queries, Step};
use crate::address::Ipv4Subnet;
use crate::poll::{Pause, wait};
use crate::relay::{Limits, Relays};

/// The largest message of DNS: UDP and TCP alike count its length in 16 bits.
const MESSAGE_MAX: usize = 65535;

/// How many questions, and how many connections, are taken before answers have their turn.
const ROUND: usize = 32;

/// What questions by TCP are granted: they are rare, and short.
const LIMITS: Limits = Limits { connections: 32, silence: Some(Duration::from_secs(10)) };

/// The forwarder cannot begin, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ForwarderError {
    /// The bridge has no IPv4 address.
    #[error("the bridge `{0}` has no IPv4 address to serve DNS on")]
    NoAddress(String),
    /// No socket on the bridge's address.
    #[error("cannot listen for DNS questions on {0}")]
    Listen(Ipv4Addr, #[source] io::Error),
    /// The packet filter refused to send port 53 to the forwarder.
    #[error("cannot send port 53 of {0} to the DNS forwarder")]
    Redirect(Ipv4Addr, #[source] crate::netlink::NetlinkError),
    /// Waiting for sockets failed.
    #[error("cannot wait for DNS questions")]
    Wait(#[source] io::Error),
}

/// A forwarder that is ready to run.
#[derive(Debug)]
pub struct DnsForwarder {
    datagrams: UdpSocket,
    listener: TcpListener,
    clients: Ipv4Subnet,
    upstreams: Vec<SocketAddr>,
}

impl DnsForwarder {
    /// Listens on `address`, on a port of the kernel's choosing for each of UDP and TCP, for questions out of
    /// `clients`, to be answered by `upstreams`, which are tried in order.
    ///
    /// # Errors
    /// [`ForwarderError::Listen`].
    pub fn bind(
        address: Ipv4Addr,
        clients: Ipv4Subnet,
        upstreams: Vec<SocketAddr>,
    ) -> Result<Self, ForwarderError> {
        let listen = |error| ForwarderError::Listen(address, error);
        let datagrams = UdpSocket::bind((address, 0)).map_err(listen)?;
        datagrams.set_nonblocking(true).map_err(listen)?;
        let listener = TcpListener::bind((address, 0)).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        Ok(Self { datagrams, listener, clients, upstreams })
    }

    /// The addresses on which it listens: UDP, then TCP.
    ///
    /// # Errors
    /// The error of `getsockname(2)`.
    pub fn local_addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.datagrams.local_addr()?, self.listener.local_addr()?))
    }

    /// Answers until `stop` becomes readable, or is closed at its other end.
    ///
    /// # Errors
    /// [`ForwarderError::Wait`]; no question, however odd, ends the loop.
    pub fn run(self, stop: BorrowedFd<'_>) -> Result<(), ForwarderError> {
        let mut queries = Queries::new(self.upstreams.clone());
        let mut relays = Relays::new(LIMITS);
        let mut pause = Pause::default();
        let mut buffer = vec![0; MESSAGE_MAX];
        loop {
            let deadlines = [queries.next_deadline(), relays.next_deadline(), pause.deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            let mut waiting = vec![
                PollFd::from_borrowed_fd(stop, PollFlags::IN),
                PollFd::new(&self.datagrams, PollFlags::IN),
                PollFd::new(&self.listener, pause.interest()),
            ];
            waiting.extend(queries.sockets().map(|socket| PollFd::new(socket, PollFlags::IN)));
            let first_relay = waiting.len();
            let mut numbers = Vec::new();
            for (number, socket, flags) in relays.interests() {
                numbers.push(number);
                waiting.push(PollFd::new(socket, flags));
            }
            wait(&mut waiting, deadline).map_err(ForwarderError::Wait)?;
            let ready: Vec<bool> = waiting.iter().map(|socket| !socket.revents().is_empty()).collect();
            drop(waiting);
            if ready[0] {
                return Ok(());
            }
            let now = Instant::now();
            for step in queries.advance(&ready[3..first_relay], &mut buffer, now) {
                self.tell(&step);
            }
            let moving = numbers.into_iter().zip(&ready[first_relay..]).filter(|(_, ready)| **ready);
            relays.advance(&moving.map(|(number, _)| number).collect::<Vec<_>>(), now);
            if ready[1] {
                self.take_questions(&mut queries, &mut buffer, now);
            }
            if ready[2] {
                self.take_connections(&mut relays, &mut pause, now);
            }
        }
    }

    /// Takes what questions there are, up to what one round may take: a container that floods must not hold up answers.
    fn take_questions(&self, queries: &mut Queries, buffer: &mut [u8], now: Instant) {
        for _ in 0..ROUND {
            // A datagram that cannot be received concerns its sender only.
            let Ok((length, client)) = self.datagrams.recv_from(buffer) else { return };
            if self.serves(client.ip())
                && let Some(step) = queries.ask(client, &buffer[..length], now)
            {
                self.tell(&step);
            }
        }
    }

    /// Takes what connections there are, up to what one round may take.
    fn take_connections(&self, relays: &mut Relays, pause: &mut Pause, now: Instant) {
        for _ in 0..ROUND {
            match self.listener.accept() {
                Ok((stream, client)) if self.serves(client.ip()) => {
                    relays.open(stream, self.upstreams.clone(), now);
                }
                Ok(_) => {}
                Err(error) => return pause.consider(&error, now),
            }
        }
    }

    /// Sends an answer. A client that is gone, or a full buffer, is a lost datagram, which UDP clients expect.
    fn tell(&self, step: &Step) {
        let _ = self.datagrams.send_to(&step.answer, step.client);
    }

    /// True for addresses of our containers.
    fn serves(&self, client: IpAddr) -> bool {
        matches!(client, IpAddr::V4(address) if self.clients.contains(address))
    }
}
