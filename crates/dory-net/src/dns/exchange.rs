//! A question that waits for an outer resolver's answer, by the transport on which it came.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::message;

/// How long one resolver is given for a datagram; the C library asks again after five seconds.
const PATIENCE_DATAGRAM: Duration = Duration::from_secs(2);
/// How long one is given for a connection and an answer by it.
const PATIENCE_STREAM: Duration = Duration::from_secs(4);
/// How many times a question is sent in all, round the list of resolvers, unless that is longer. With the patience above
/// that is less than the five seconds after which the C library asks again: it hears of the failure.
const ATTEMPTS_MAX: usize = 2;

/// Who asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// By UDP, from this address.
    Datagram(SocketAddr),
    /// By the TCP connection with this number.
    Connection(u64),
}

/// The socket by which a resolver is asked.
#[derive(Debug)]
pub(super) enum Link {
    Datagram(UdpSocket),
    Stream(Stream),
}

/// A TCP connection for one question.
#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    outgoing: Vec<u8>,
    incoming: Frame,
}

/// A message that arrives by TCP, behind its length (RFC 1035, section 4.2.2).
#[derive(Debug, Default)]
pub(super) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// Reads what there is; false at the stream's end.
    pub(super) fn read(&mut self, mut stream: &TcpStream) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        while self.bytes.len() < self.wanted() {
            let room = chunk.len().min(self.wanted() - self.bytes.len());
            match stream.read(&mut chunk[..room]) {
                Ok(0) => return Ok(false),
                Ok(length) => self.bytes.extend(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// How many bytes make it whole, as far as is known. What follows belongs to the next message and stays unread.
    fn wanted(&self) -> usize {
        match self.bytes.first_chunk::<2>() {
            Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
            None => 2,
        }
    }

    /// The message, once it is whole; the frame is empty then.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        if self.bytes.len() < 2 || self.bytes.len() < self.wanted() {
            return None;
        }
        let message = self.bytes.split_off(2);
        self.bytes.clear();
        Some(message)
    }
}

/// `message` as TCP carries it.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), &message[..usize::from(length)]].concat()
}

/// Writes what can be written of `outgoing`.
pub(super) fn write_some(mut stream: &TcpStream, outgoing: &mut Vec<u8>) -> io::Result<()> {
    while !outgoing.is_empty() {
        match stream.write(outgoing) {
            Ok(length) => drop(outgoing.drain(..length)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How far an exchange has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing yet.
    Waiting,
    /// The answer.
    Answered(Vec<u8>),
    /// This resolver does not answer.
    Failed,
}

impl Link {
    /// Asks `resolver`, from the calling thread's network namespace.
    pub(super) fn open(resolver: SocketAddr, asker: Asker, question: &[u8]) -> io::Result<Self> {
        let family = if resolver.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = match asker {
            Asker::Datagram(_) => SocketType::DGRAM,
            Asker::Connection(_) => SocketType::STREAM,
        };
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        match (rustix::net::connect(&socket, &resolver), asker) {
            (Ok(()), Asker::Datagram(_)) => {
                let socket = UdpSocket::from(socket);
                socket.send(question)?;
                Ok(Self::Datagram(socket))
            }
            (Ok(()) | Err(Errno::INPROGRESS), Asker::Connection(_)) => {
                let (outgoing, incoming) = (framed(question), Frame::default());
                Ok(Self::Stream(Stream { socket: socket.into(), outgoing, incoming }))
            }
            (Err(errno), _) => Err(errno.into()),
        }
    }

    /// Goes on; `question` is what was asked.
    fn advance(&mut self, question: &[u8], buffer: &mut [u8]) -> Progress {
        match self {
            Self::Datagram(socket) => match socket.recv(buffer) {
                Ok(length) if message::is_answer(question, &buffer[..length]) => {
                    Progress::Answered(buffer[..length].to_vec())
                }
                // Something else: the answer may yet come.
                Ok(_) => Progress::Waiting,
                Err(error) if is_pending(&error) => Progress::Waiting,
                // Nobody listens there.
                Err(_) => Progress::Failed,
            },
            Self::Stream(stream) => stream.advance(question).unwrap_or(Progress::Failed),
        }
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> EventFlags {
        match self {
            Self::Stream(stream) if !stream.outgoing.is_empty() => EventFlags::OUT,
            _ => EventFlags::IN,
        }
    }

    fn patience(&self) -> Duration {
        match self {
            Self::Datagram(_) => PATIENCE_DATAGRAM,
            Self::Stream(_) => PATIENCE_STREAM,
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Datagram(socket) => socket.as_fd(),
            Self::Stream(stream) => stream.socket.as_fd(),
        }
    }
}

impl Stream {
    fn advance(&mut self, question: &[u8]) -> io::Result<Progress> {
        write_some(&self.socket, &mut self.outgoing)?;
        if !self.outgoing.is_empty() {
            return Ok(Progress::Waiting);
        }
        let goes_on = self.incoming.read(&self.socket)?;
        match self.incoming.take() {
            Some(answer) if message::is_answer(question, &answer) => Ok(Progress::Answered(answer)),
            Some(_) => Ok(Progress::Failed),
            None if goes_on => Ok(Progress::Waiting),
            None => Ok(Progress::Failed),
        }
    }
}

fn is_pending(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// A question on its way.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The number of the container that asked.
    pub(super) client: u64,
    pub(super) asker: Asker,
    pub(super) question: Vec<u8>,
    pub(super) link: Link,
    /// How many resolvers were tried so far.
    attempts: usize,
    pub(super) deadline: Instant,
    /// The answer of a resolver that failed, in case that no other knows better.
    failure: Option<Vec<u8>>,
}

/// What is to be done about an exchange.
#[derive(Debug)]
pub(super) enum Step {
    /// Wait on.
    Wait,
    /// Tell the asker, and forget it.
    Tell(Vec<u8>),
    /// Ask the next resolver.
    Next,
}

impl Exchange {
    /// An exchange that has just begun by `link`.
    pub(super) fn new(client: u64, asker: Asker, question: Vec<u8>, link: Link, attempts: usize) -> Self {
        let deadline = Instant::now() + link.patience();
        Self { client, asker, question, link, attempts, deadline, failure: None }
    }

    /// The numbers of the attempts that are left of a question by `asker` to `resolvers` resolvers, after `done`.
    pub(super) fn attempts(asker: Asker, resolvers: usize, done: usize) -> std::ops::Range<usize> {
        let all = match asker {
            // A datagram may be lost; a connection tells.
            Asker::Datagram(_) if resolvers > 0 => ATTEMPTS_MAX.max(resolvers),
            _ => resolvers,
        };
        done..all
    }

    /// How many resolvers were tried.
    pub(super) fn done(&self) -> usize {
        self.attempts
    }

    /// Goes on by `link`, after `attempts` attempts.
    pub(super) fn retry(&mut self, link: Link, attempts: usize) {
        self.deadline = Instant::now() + link.patience();
        self.attempts = attempts;
        self.link = link;
    }

    /// Goes on after the link became ready, where `resolvers` resolvers are known.
    pub(super) fn advance(&mut self, resolvers: usize, buffer: &mut [u8]) -> Step {
        match self.link.advance(&self.question, buffer) {
            Progress::Waiting => Step::Wait,
            Progress::Failed => Step::Next,
            // Another one may know better; but none is asked twice for that.
            Progress::Answered(answer) if message::is_failure(&answer) && self.attempts < resolvers => {
                self.failure = Some(answer);
                Step::Next
            }
            Progress::Answered(answer) => Step::Tell(answer),
        }
    }

    /// The answer where no resolver has one.
    pub(super) fn give_up(&mut self) -> Option<Vec<u8>> {
        self.failure.take().or_else(|| message::failure(&self.question))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn frames_are_taken_one_by_one() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let receiver = listener.accept().unwrap().0;
        let long = vec![7; 5000];
        sender
            .write_all(&[framed(b"one"), framed(b""), framed(&long), b"\0\x05cut".to_vec()].concat())
            .unwrap();
        drop(sender);
        let mut frame = Frame::default();
        for expected in [b"one".to_vec(), Vec::new(), long] {
            assert!(frame.read(&receiver).unwrap());
            assert_eq!(frame.take(), Some(expected));
        }
        assert!(!frame.read(&receiver).unwrap(), "the stream has ended");
        assert_eq!(frame.take(), None);
    }

    #[test]
    fn a_failure_is_told_when_nobody_knows_better() {
        let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let question = message::question("x", 1, None);
        let asker = Asker::Datagram("127.0.0.1:9".parse().unwrap());
        let link = Link::open(resolver.local_addr().unwrap(), asker, &question).unwrap();
        let mut exchange = Exchange::new(1, asker, question.clone(), link, 1);
        let mut buffer = [0; 512];
        let (length, from) = resolver.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..length], question);
        let failure = message::failure(&question).unwrap();
        resolver.send_to(&failure, from).unwrap();
        assert!(matches!(exchange.advance(2, &mut buffer), Step::Next));
        assert_eq!(exchange.give_up(), Some(failure.clone()));
        resolver.send_to(&failure, from).unwrap();
        assert!(matches!(exchange.advance(1, &mut buffer), Step::Tell(_)), "there is no other");
    }

    #[test]
    fn datagrams_are_sent_again_and_connections_are_not() {
        let (datagram, connection) = (Asker::Datagram("127.0.0.1:9".parse().unwrap()), Asker::Connection(1));
        assert_eq!(Exchange::attempts(datagram, 1, 0).count(), 2);
        assert_eq!(Exchange::attempts(datagram, 6, 2).count(), 4);
        assert_eq!(Exchange::attempts(datagram, 0, 0).count(), 0);
        assert_eq!(Exchange::attempts(connection, 2, 1).count(), 1);
    }
}
