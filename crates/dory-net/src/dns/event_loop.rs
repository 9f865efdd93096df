//! The thread of the embedded server: questions in, answers out, one epoll over all sockets.
//!
//! It is bounded in everything that a container could ask too much of: questions that wait, connections, time. A
//! container that floods has its own bounds, so that it holds up no other.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::client::{Decision, DnsClient, DnsOrigin};
use super::directory::DnsDirectory;
use super::exchange::{Asker, Exchange, Frame, Link, Step, framed, write_some};
use super::message::{self, Code, Question};
use super::redirect::Sockets;
use super::server::{Command, Inbox, Keys};

/// The largest message of DNS: UDP and TCP alike count its length in 16 bits.
const MESSAGE_MAX: usize = 65535;
/// How many questions, and how many connections, are taken of one container before others have their turn.
const ROUND: usize = 32;
/// How many questions of one container wait for an answer at a time, and of all; more are dropped, as a full resolver
/// would.
const WAITING_MAX: usize = 256;
const WAITING_MAX_ALL: usize = 2048;
/// How many connections one container may have, and all together.
const CONNECTIONS_MAX: usize = 32;
const CONNECTIONS_MAX_ALL: usize = 512;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a listener that could not accept is left alone: it stays ready, and asking again at once would be all that
/// the loop does.
const PAUSE: Duration = Duration::from_millis(100);

/// What a readiness belongs to; the number is a container's, an exchange's or a connection's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Inbox,
    Datagrams(u64),
    Listener(u64),
    Exchange(u64),
    Connection(u64),
}

impl Source {
    fn token(self) -> EventData {
        let (kind, number) = match self {
            Self::Inbox => (0, 0),
            Self::Datagrams(number) => (1, number),
            Self::Listener(number) => (2, number),
            Self::Exchange(number) => (3, number),
            Self::Connection(number) => (4, number),
        };
        EventData::new_u64(number << 3 | kind)
    }

    fn of(token: EventData) -> Self {
        let number = token.u64() >> 3;
        match token.u64() & 7 {
            1 => Self::Datagrams(number),
            2 => Self::Listener(number),
            3 => Self::Exchange(number),
            4 => Self::Connection(number),
            _ => Self::Inbox,
        }
    }
}

/// A container that is answered.
#[derive(Debug)]
struct Client {
    netns: OwnedFd,
    sockets: Sockets,
    view: DnsClient,
    /// Its exchanges and connections.
    waiting: usize,
    connections: usize,
    /// Until when its listener is left alone.
    paused: Option<Instant>,
}

/// A container's connection: one question after the other.
#[derive(Debug)]
struct Connection {
    client: u64,
    stream: TcpStream,
    incoming: Frame,
    outgoing: Vec<u8>,
    /// A question of it is on its way.
    waiting: bool,
    deadline: Instant,
}

impl Connection {
    fn interest(&self) -> EventFlags {
        match (self.outgoing.is_empty(), self.waiting) {
            (false, _) => EventFlags::OUT,
            (true, false) => EventFlags::IN,
            // An error is told in any case.
            (true, true) => EventFlags::empty(),
        }
    }
}

/// The network namespace that the thread is in. It goes where a socket has to be made, and home before it waits.
#[derive(Debug)]
struct Place {
    home: OwnedFd,
    away: bool,
}

impl Place {
    fn enter(&mut self, netns: BorrowedFd<'_>) -> io::Result<()> {
        self.away = true;
        Ok(move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?)
    }

    fn go_home(&mut self) -> io::Result<()> {
        if self.away {
            move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network))?;
            self.away = false;
        }
        Ok(())
    }
}

/// The loop and all that it holds.
#[derive(Debug)]
pub(super) struct EventLoop {
    inbox: Arc<Inbox>,
    directory: Arc<DnsDirectory>,
    epoll: OwnedFd,
    place: Place,
    keys: Keys,
    clients: HashMap<u64, Client>,
    exchanges: HashMap<u64, Exchange>,
    connections: HashMap<u64, Connection>,
    /// The last number given; none is given twice, so that a late readiness meets nobody else.
    last: u64,
    buffer: Vec<u8>,
}

impl EventLoop {
    /// A loop that answers nobody yet; `home` is the engine's network namespace.
    pub(super) fn new(inbox: Arc<Inbox>, directory: Arc<DnsDirectory>, home: OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, inbox.wake(), Source::Inbox.token(), EventFlags::IN)?;
        Ok(Self {
            inbox,
            directory,
            epoll,
            place: Place { home, away: false },
            keys: Keys::default(),
            clients: HashMap::new(),
            exchanges: HashMap::new(),
            connections: HashMap::new(),
            last: 0,
            buffer: vec![0; MESSAGE_MAX],
        })
    }

    /// Answers until it is told to end. No question, however odd, ends it.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        loop {
            // A thread that could not go home waits where it is; resolvers of the engine are then asked from elsewhere,
            // which fails, and so it is tried again before each of them.
            let _ = self.place.go_home();
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), self.timeout().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // The descriptor is ours and valid: nothing else can be said by epoll_wait(2).
                Err(_) => return,
            }
            for event in &events {
                let Event { flags, data } = *event;
                if !self.handle(Source::of(data), flags) {
                    return;
                }
            }
            self.expire(Instant::now());
        }
    }

    /// Deals with what is ready; false at the end.
    fn handle(&mut self, source: Source, flags: EventFlags) -> bool {
        match source {
            Source::Inbox => return self.obey(),
            Source::Datagrams(client) => self.take_datagrams(client),
            Source::Listener(client) => self.take_connections(client),
            Source::Exchange(number) => self.advance_exchange(number),
            Source::Connection(number) => self.advance_connection(number, flags),
        }
        true
    }

    /// Does what the engine says; false where that is to end.
    fn obey(&mut self) -> bool {
        for command in self.inbox.take() {
            match command {
                Command::Attach(key, netns, sockets, view) => self.attach(key, netns, sockets, view),
                Command::Update(key, view) => {
                    let number = self.keys.get(&key);
                    if let Some(client) = number.and_then(|number| self.clients.get_mut(&number)) {
                        client.view = view;
                    }
                }
                Command::Detach(key) => {
                    if let Some(number) = self.keys.remove(&key) {
                        self.forget(number);
                    }
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn attach(&mut self, key: String, netns: OwnedFd, sockets: Sockets, view: DnsClient) {
        let number = self.next();
        let added = self
            .wait_for(sockets.datagrams.as_fd(), Source::Datagrams(number), EventFlags::IN)
            .and_then(|()| self.wait_for(sockets.listener.as_fd(), Source::Listener(number), EventFlags::IN));
        // Only the kernel's memory can be lacking; the container then has no answers, as if the server were overrun.
        if added.is_err() {
            return;
        }
        let client = Client { netns, sockets, view, waiting: 0, connections: 0, paused: None };
        self.clients.insert(number, client);
        if let Some(before) = self.keys.replace(key, number) {
            self.forget(before);
        }
    }

    /// Drops everything of a container.
    fn forget(&mut self, number: u64) {
        self.clients.remove(&number);
        self.exchanges.retain(|_, exchange| exchange.client != number);
        self.connections.retain(|_, connection| connection.client != number);
    }

    fn take_datagrams(&mut self, number: u64) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..ROUND {
            let Some(client) = self.clients.get(&number) else { break };
            // A datagram that cannot be received concerns its sender only.
            let Ok((length, from)) = client.sockets.datagrams.recv_from(&mut buffer) else { break };
            self.ask(number, Asker::Datagram(from), &buffer[..length]);
        }
        self.buffer = buffer;
    }

    fn take_connections(&mut self, number: u64) {
        for _ in 0..ROUND {
            let Some(client) = self.clients.get_mut(&number) else { return };
            match client.sockets.listener.accept() {
                Ok((stream, _)) => self.open_connection(number, stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.pause(number),
            }
        }
    }

    fn pause(&mut self, number: u64) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.paused = Some(Instant::now() + PAUSE);
            let listener = client.sockets.listener.as_fd();
            let token = Source::Listener(number).token();
            // Where this fails the loop is busy, not wrong.
            let _ = epoll::modify(&self.epoll, listener, token, EventFlags::empty());
        }
    }

    fn open_connection(&mut self, client: u64, stream: TcpStream) {
        let number = self.next();
        let full = self.connections.len() >= CONNECTIONS_MAX_ALL;
        let Some(owner) = self.clients.get_mut(&client) else { return };
        if full || owner.connections >= CONNECTIONS_MAX || stream.set_nonblocking(true).is_err() {
            return;
        }
        if epoll::add(&self.epoll, &stream, Source::Connection(number).token(), EventFlags::IN).is_err() {
            return;
        }
        owner.connections += 1;
        let connection = Connection {
            client,
            stream,
            incoming: Frame::default(),
            outgoing: Vec::new(),
            waiting: false,
            deadline: Instant::now() + SILENCE,
        };
        self.connections.insert(number, connection);
    }

    fn advance_connection(&mut self, number: u64, flags: EventFlags) {
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) || !self.try_advance_connection(number) {
            self.close_connection(number);
            return;
        }
        if let Some(connection) = self.connections.get(&number) {
            let token = Source::Connection(number).token();
            if epoll::modify(&self.epoll, &connection.stream, token, connection.interest()).is_err() {
                self.close_connection(number);
            }
        }
    }

    /// Reads, asks and writes as far as that goes; false where the connection is over.
    fn try_advance_connection(&mut self, number: u64) -> bool {
        loop {
            let Some(connection) = self.connections.get_mut(&number) else { return true };
            if write_some(&connection.stream, &mut connection.outgoing).is_err() {
                return false;
            }
            if connection.waiting || !connection.outgoing.is_empty() {
                return true;
            }
            let Ok(goes_on) = connection.incoming.read(&connection.stream) else { return false };
            let Some(question) = connection.incoming.take() else { return goes_on };
            connection.deadline = Instant::now() + SILENCE;
            connection.waiting = true;
            let client = connection.client;
            if !self.ask(client, Asker::Connection(number), &question) {
                return false;
            }
        }
    }

    fn close_connection(&mut self, number: u64) {
        if let Some(connection) = self.connections.remove(&number)
            && let Some(client) = self.clients.get_mut(&connection.client)
        {
            client.connections -= 1;
        }
    }

    /// Answers `bytes`, or sends them on; false for what is dropped.
    fn ask(&mut self, number: u64, asker: Asker, bytes: &[u8]) -> bool {
        let Some(client) = self.clients.get(&number) else { return false };
        if !message::is_question(bytes) {
            return false;
        }
        if let Some(question) = Question::parse(bytes)
            && let Decision::Answer(data) = client.view.decide(&self.directory, &question)
        {
            let limit = match asker {
                Asker::Datagram(_) => question.datagram_max,
                Asker::Connection(_) => MESSAGE_MAX,
            };
            self.tell(number, asker, &question.answer(bytes, Code::NoError, &data, limit));
            return true;
        }
        if client.waiting >= WAITING_MAX || self.exchanges.len() >= WAITING_MAX_ALL {
            return false;
        }
        self.forward(number, asker, bytes)
    }

    /// Asks an outer resolver.
    fn forward(&mut self, client: u64, asker: Asker, question: &[u8]) -> bool {
        match self.open_link(client, asker, question, 0) {
            Some((link, attempts)) => {
                let number = self.next();
                if self.wait_for(link.as_fd(), Source::Exchange(number), link.interest()).is_err() {
                    return false;
                }
                let exchange = Exchange::new(client, asker, question.to_vec(), link, attempts);
                self.exchanges.insert(number, exchange);
                if let Some(client) = self.clients.get_mut(&client) {
                    client.waiting += 1;
                }
                true
            }
            None => match message::failure(question) {
                Some(answer) => {
                    self.tell(client, asker, &answer);
                    true
                }
                None => false,
            },
        }
    }

    /// Opens a link to the next resolver that can be asked, after `done` attempts. Returns the new count, too.
    fn open_link(
        &mut self,
        number: u64,
        asker: Asker,
        question: &[u8],
        done: usize,
    ) -> Option<(Link, usize)> {
        let client = self.clients.get(&number)?;
        let resolvers = &client.view.upstreams;
        for attempt in Exchange::attempts(asker, resolvers.len(), done) {
            let resolver = resolvers[attempt % resolvers.len()];
            let there = match resolver.origin {
                DnsOrigin::Container => self.place.enter(client.netns.as_fd()),
                DnsOrigin::Engine => self.place.go_home(),
            };
            if let Ok(link) = there.and_then(|()| Link::open(resolver.address, asker, question)) {
                return Some((link, attempt + 1));
            }
        }
        None
    }

    fn advance_exchange(&mut self, number: u64) {
        let Some(exchange) = self.exchanges.get_mut(&number) else { return };
        let resolvers = self.clients.get(&exchange.client).map_or(0, |client| client.view.upstreams.len());
        match exchange.advance(resolvers, &mut self.buffer) {
            Step::Wait => {
                let (token, interest) = (Source::Exchange(number).token(), exchange.link.interest());
                // Where this fails the deadline goes on with it.
                let _ = epoll::modify(&self.epoll, &exchange.link, token, interest);
            }
            Step::Tell(answer) => self.finish(number, Some(answer)),
            Step::Next => self.try_next(number),
        }
    }

    /// Goes on with the next resolver, or gives up.
    fn try_next(&mut self, number: u64) {
        let Some(mut exchange) = self.exchanges.remove(&number) else { return };
        let (client, asker, done) = (exchange.client, exchange.asker, exchange.done());
        let next = self.open_link(client, asker, &exchange.question, done).and_then(|(link, attempts)| {
            self.wait_for(link.as_fd(), Source::Exchange(number), link.interest()).ok()?;
            Some((link, attempts))
        });
        let answer = match next {
            Some((link, attempts)) => {
                exchange.retry(link, attempts);
                None
            }
            None => Some(exchange.give_up()),
        };
        self.exchanges.insert(number, exchange);
        if let Some(answer) = answer {
            self.finish(number, answer);
        }
    }

    /// Tells the asker, and forgets the exchange.
    fn finish(&mut self, number: u64, answer: Option<Vec<u8>>) {
        let Some(exchange) = self.exchanges.remove(&number) else { return };
        if let Some(client) = self.clients.get_mut(&exchange.client) {
            client.waiting -= 1;
        }
        match (answer, exchange.asker) {
            (Some(answer), asker) => {
                self.tell(exchange.client, asker, &answer);
                if let Asker::Connection(connection) = asker {
                    self.advance_connection(connection, EventFlags::empty());
                }
            }
            (None, Asker::Connection(connection)) => self.close_connection(connection),
            (None, Asker::Datagram(_)) => {}
        }
    }

    /// Sends an answer. A client that is gone, or a full buffer, is a lost datagram, which UDP clients expect.
    fn tell(&mut self, client: u64, asker: Asker, answer: &[u8]) {
        match asker {
            Asker::Datagram(address) => {
                if let Some(client) = self.clients.get(&client) {
                    let _ = client.sockets.datagrams.send_to(answer, address);
                }
            }
            Asker::Connection(number) => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.outgoing.extend(framed(answer));
                    connection.waiting = false;
                }
            }
        }
    }

    /// When something must be done at the latest.
    fn timeout(&self) -> Option<Timespec> {
        let exchanges = self.exchanges.values().map(|exchange| exchange.deadline);
        let connections = self.connections.values().map(|connection| connection.deadline);
        let pauses = self.clients.values().filter_map(|client| client.paused);
        let deadline = exchanges.chain(connections).chain(pauses).min()?;
        let left = deadline.saturating_duration_since(Instant::now());
        Some(Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() })
    }

    /// Ends what has taken too long.
    fn expire(&mut self, now: Instant) {
        let late: Vec<_> =
            self.exchanges.iter().filter(|(_, it)| it.deadline <= now).map(|(it, _)| *it).collect();
        for number in late {
            self.try_next(number);
        }
        let silent: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in silent {
            self.close_connection(number);
        }
        for (number, client) in &mut self.clients {
            if client.paused.is_some_and(|until| until <= now) {
                client.paused = None;
                let token = Source::Listener(*number).token();
                let _ = epoll::modify(&self.epoll, &client.sockets.listener, token, EventFlags::IN);
            }
        }
    }

    fn wait_for(&self, socket: BorrowedFd<'_>, source: Source, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, source.token(), interest)?)
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}
