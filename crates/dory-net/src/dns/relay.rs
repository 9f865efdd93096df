//! Questions by TCP: bytes go to and fro between the client and a resolver, untouched.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::descriptor;

/// How many connections there are at a time; more are closed at once.
const RELAYS_MAX: usize = 32;
/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
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

/// A client, a resolver, and what goes between.
#[derive(Debug)]
struct Relay {
    client: TcpStream,
    upstream: TcpStream,
    asking: Pipe,
    answering: Pipe,
    /// The resolvers that were not tried yet.
    others: Vec<SocketAddr>,
    deadline: Instant,
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
        let upstream = connect_first(&mut upstreams)?;
        let (asking, answering) = (Pipe::default(), Pipe::default());
        Some(Self { client, upstream, asking, answering, others: upstreams, deadline: now + PATIENCE })
    }

    /// Goes on with another resolver where the last one took nothing; false where there is none.
    fn retry(&mut self) -> bool {
        if self.asking.begun || self.asking.shut {
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
            self.deadline = now + PATIENCE;
        }
        moved.is_ok() && !self.answering.shut
    }
}

/// The connections that exist.
#[derive(Debug)]
pub(super) struct Relays {
    upstreams: Vec<SocketAddr>,
    open: Vec<Relay>,
}

impl Relays {
    /// None yet; they will go to the first of `upstreams` that takes them.
    pub(super) fn new(upstreams: Vec<SocketAddr>) -> Self {
        Self { upstreams, open: Vec::new() }
    }

    /// Joins `client` to a resolver. Where that fails, or is too much, the client's connection is closed.
    pub(super) fn open(&mut self, client: TcpStream, now: Instant) {
        if self.open.len() < RELAYS_MAX {
            self.open.extend(Relay::open(client, self.upstreams.clone(), now));
        }
    }

    /// The sockets to wait for, with the number of the connection that each belongs to. A side that nothing is wanted of
    /// is left out: `poll` would report again and again that it hung up.
    pub(super) fn interests(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>, PollFlags)> {
        let sides = self.open.iter().enumerate().flat_map(|(number, relay)| {
            [
                (number, descriptor(&relay.client), Relay::interest(&relay.asking, &relay.answering)),
                (number, descriptor(&relay.upstream), Relay::interest(&relay.answering, &relay.asking)),
            ]
        });
        sides.filter(|(_, _, flags)| !flags.is_empty())
    }

    /// When to look again at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.open.iter().map(|relay| relay.deadline).min()
    }

    /// Goes on with the connections whose numbers are in `ready`, and ends those whose time is over.
    pub(super) fn advance(&mut self, ready: &[usize], now: Instant) {
        let mut number = 0..;
        self.open.retain_mut(|relay| {
            let ready = number.next().is_some_and(|number| ready.contains(&number));
            (!ready || relay.advance(now) || relay.retry()) && now < relay.deadline
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
        let mut relays = Relays::new(vec![upstream.local_addr().unwrap()]);
        let _ends: Vec<_> = (0..RELAYS_MAX + 3)
            .map(|_| {
                let end = TcpStream::connect(clients.local_addr().unwrap()).unwrap();
                relays.open(clients.accept().unwrap().0, Instant::now());
                end
            })
            .collect();
        assert_eq!(relays.interests().count(), 2 * RELAYS_MAX);
        relays.advance(&[], Instant::now() + PATIENCE);
        assert_eq!(relays.interests().count(), 0, "silence ends them");
    }
}
