//! TCP connections passed on: bytes go to and fro between a client and a server, untouched, for many connections at once
//! in one thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_keepalive;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// What is granted to connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How many there may be at a time.
    pub(crate) connections: usize,
    /// How long one may be silent; none for as long as it lives.
    pub(crate) silence: Option<Duration>,
}

/// How many bytes are held for a side that does not read.
const BUFFER_MAX: usize = 16 << 10;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    held: Vec<u8>,
    /// The reader's side has sent all it will.
    ended: bool,
    /// The writer's side was told so.
    shut: bool,
    /// The writer's side took something.
    begun: bool,
}

impl Pipe {
    /// Moves what can be moved; true where something was.
    fn advance(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<bool> {
        let mut moved = false;
        if !self.ended && self.held.len() < BUFFER_MAX {
            let mut chunk = [0; 4096];
            match from.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    self.held.extend(&chunk[..length]);
                    moved = true;
                }
                Err(error) if is_pending(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if !self.held.is_empty() {
            match to.write(&self.held) {
                Ok(length) => {
                    self.held.drain(..length);
                    self.begun = true;
                    moved = true;
                }
                Err(error) if is_pending(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.ended && self.held.is_empty() && !self.shut {
            to.shutdown(Shutdown::Write)?;
            self.shut = true;
            moved = true;
        }
        Ok(moved)
    }
}

/// True for what a socket says that is not ready, or whose connection is still being made.
fn is_pending(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}

/// A client, a server, and what goes between.
#[derive(Debug)]
struct Relay {
    client: TcpStream,
    upstream: TcpStream,
    asking: Pipe,
    answering: Pipe,
    /// The servers that were not tried yet.
    others: Vec<SocketAddr>,
    /// When bytes were last moved.
    moved: Instant,
}

impl Relay {
    /// What the side that reads by `incoming` and writes by `outgoing` is to be waited for.
    fn interest(incoming: &Pipe, outgoing: &Pipe) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, !incoming.ended && incoming.held.len() < BUFFER_MAX);
        flags.set(PollFlags::OUT, !outgoing.held.is_empty());
        flags
    }

    /// Joins `client` to the first of `upstreams` that does not refuse at once.
    fn open(client: TcpStream, mut upstreams: Vec<SocketAddr>, now: Instant) -> Option<Self> {
        client.set_nonblocking(true).ok()?;
        // A peer that vanishes without a word would be kept for ever.
        set_socket_keepalive(&client, true).ok()?;
        let upstream = connect_first(&mut upstreams)?;
        let (asking, answering) = (Pipe::default(), Pipe::default());
        Some(Self { client, upstream, asking, answering, others: upstreams, moved: now })
    }

    /// Goes on with another server where the last one took and gave nothing; false where there is none.
    fn retry(&mut self) -> bool {
        if self.asking.begun || self.asking.shut || self.answering.begun {
            return false;
        }
        let Some(upstream) = connect_first(&mut self.others) else { return false };
        self.upstream = upstream;
        self.answering = Pipe::default();
        true
    }

    /// Moves bytes both ways; false where the connection is over.
    fn advance(&mut self, now: Instant) -> bool {
        // A refused connection says so once, and then reads as one that ended: the second direction must not see that.
        let moved = self.asking.advance(&self.client, &self.upstream).and_then(|asked| {
            let answered = self.answering.advance(&self.upstream, &self.client)?;
            Ok(asked || answered)
        });
        if matches!(moved, Ok(true)) {
            self.moved = now;
        }
        moved.is_ok() && !self.answering.shut
    }
}

/// The connections that exist.
#[derive(Debug)]
pub(crate) struct Relays {
    limits: Limits,
    open: Vec<Relay>,
}

impl Relays {
    /// None yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, open: Vec::new() }
    }

    /// True where no more connections are wanted for now.
    pub(crate) fn is_full(&self) -> bool {
        self.open.len() >= self.limits.connections
    }

    /// Joins `client` to the first of `upstreams` that takes it. Where none does, or there are too many connections
    /// already, the client's is closed.
    pub(crate) fn open(&mut self, client: TcpStream, upstreams: Vec<SocketAddr>, now: Instant) {
        if !self.is_full() {
            self.open.extend(Relay::open(client, upstreams, now));
        }
    }

    /// The sockets to wait for, with the number of the connection that each belongs to. A side that nothing is wanted of
    /// is left out: `poll` would report again and again that it hung up.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (usize, &TcpStream, PollFlags)> {
        let sides = self.open.iter().enumerate().flat_map(|(number, relay)| {
            [
                (number, &relay.client, Relay::interest(&relay.asking, &relay.answering)),
                (number, &relay.upstream, Relay::interest(&relay.answering, &relay.asking)),
            ]
        });
        sides.filter(|(_, _, flags)| !flags.is_empty())
    }

    /// When to look again at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let silence = self.limits.silence?;
        self.open.iter().map(|relay| relay.moved + silence).min()
    }

    /// Goes on with the connections whose numbers are in `ready`, and ends those that were silent for too long.
    pub(crate) fn advance(&mut self, ready: &[usize], now: Instant) {
        let mut number = 0..;
        let silence = self.limits.silence;
        self.open.retain_mut(|relay| {
            let ready = number.next().is_some_and(|number| ready.contains(&number));
            let lives = !ready || relay.advance(now) || relay.retry();
            lives && silence.is_none_or(|silence| now < relay.moved + silence)
        });
    }
}

/// Begins a connection to the first of `upstreams` that does not refuse at once, and removes those tried.
fn connect_first(upstreams: &mut Vec<SocketAddr>) -> Option<TcpStream> {
    let (tried, upstream) =
        upstreams.iter().enumerate().find_map(|(at, to)| Some((at, connect(*to).ok()?)))?;
    upstreams.drain(..=tried);
    Some(upstream)
}

/// Begins a connection, without waiting for it to be made.
fn connect(upstream: SocketAddr) -> Result<TcpStream, Errno> {
    let family = if upstream.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &upstream) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn connections_are_bounded() {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let clients = TcpListener::bind("127.0.0.1:0").unwrap();
        let limits = Limits { connections: 3, silence: Some(Duration::from_secs(5)) };
        let mut relays = Relays::new(limits);
        let _ends: Vec<_> = (0..5)
            .map(|_| {
                let end = TcpStream::connect(clients.local_addr().unwrap()).unwrap();
                let target = vec![upstream.local_addr().unwrap()];
                relays.open(clients.accept().unwrap().0, target, Instant::now());
                end
            })
            .collect();
        assert_eq!(relays.interests().count(), 2 * 3);
        assert!(relays.is_full());
        relays.advance(&[], Instant::now() + Duration::from_secs(5));
        assert_eq!(relays.interests().count(), 0, "silence ends them");
    }
}
