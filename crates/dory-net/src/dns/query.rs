//! Questions by UDP: each has a socket of its own, connected to the resolver that is being tried.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{failure, is_answer, is_question};

/// How many questions wait for an answer at a time; more are dropped, as a full resolver would.
const QUERIES_MAX: usize = 256;
/// How long one resolver is given. The C library asks again after five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many times a question is sent in all, round the list of resolvers.
const ATTEMPTS_MAX: usize = 4;

/// An answer, and to whom it goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) client: SocketAddr,
    pub(super) answer: Vec<u8>,
}

/// A question that waits for its answer.
#[derive(Debug)]
struct Query {
    client: SocketAddr,
    question: Vec<u8>,
    socket: UdpSocket,
    attempts: usize,
    deadline: Instant,
}

/// The questions that wait.
#[derive(Debug)]
pub(super) struct Queries {
    upstreams: Vec<SocketAddr>,
    waiting: Vec<Query>,
}

impl Queries {
    /// None yet; they will go to `upstreams`.
    pub(super) fn new(upstreams: Vec<SocketAddr>) -> Self {
        Self { upstreams, waiting: Vec::new() }
    }

    /// The sockets to wait for, in the order that [`Self::advance`] expects.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.waiting.iter().map(|query| &query.socket)
    }

    /// When to look again at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|query| query.deadline).min()
    }

    /// Sends a question on. What cannot be one, and what is too much, is dropped; what no resolver takes is answered.
    pub(super) fn ask(&mut self, client: SocketAddr, question: &[u8], now: Instant) -> Option<Step> {
        if !is_question(question) || self.waiting.len() >= QUERIES_MAX {
            return None;
        }
        match self.send(question, 0) {
            Some((socket, attempts)) => {
                let question = question.to_vec();
                self.waiting.push(Query { client, question, socket, attempts, deadline: now + PATIENCE });
                None
            }
            None => failure(question).map(|answer| Step { client, answer }),
        }
    }

    /// Sends a question to the next resolver that takes it, after `attempts`. Returns the socket and the new count.
    fn send(&self, question: &[u8], attempts: usize) -> Option<(UdpSocket, usize)> {
        (attempts..ATTEMPTS_MAX).find_map(|attempt| {
            let upstream = self.upstreams.get(attempt % self.upstreams.len().max(1))?;
            let socket = connect(*upstream).ok()?;
            socket.send(question).ok()?;
            Some((socket, attempt + 1))
        })
    }

    /// Goes on with the questions whose socket is `ready` or whose time is over; returns the answers.
    pub(super) fn advance(&mut self, ready: &[bool], buffer: &mut [u8], now: Instant) -> Vec<Step> {
        let mut answers = Vec::new();
        let before = std::mem::take(&mut self.waiting);
        for (query, ready) in before.into_iter().zip(ready) {
            let mut failed = now >= query.deadline;
            if *ready {
                match query.socket.recv(buffer) {
                    Ok(length) if is_answer(&query.question, &buffer[..length]) => {
                        answers.push(Step { client: query.client, answer: buffer[..length].to_vec() });
                        continue;
                    }
                    // Something else: the answer may yet come.
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // Nobody listens there.
                    Err(_) => failed = true,
                }
            }
            if !failed {
                self.waiting.push(query);
                continue;
            }
            match self.send(&query.question, query.attempts) {
                Some((socket, attempts)) => {
                    self.waiting.push(Query { socket, attempts, deadline: now + PATIENCE, ..query });
                }
                None => {
                    let client = query.client;
                    answers.extend(failure(&query.question).map(|answer| Step { client, answer }));
                }
            }
        }
        answers
    }
}

/// A socket that receives from `upstream` alone.
fn connect(upstream: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(upstream)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question for `a.bc`, with an additional record after it.
    const QUESTION: &[u8] = &[
        0xab, 0xcd, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1, 1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1, 0, 0, 41, 4,
        208, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn a_refusal_repeats_the_question() {
        let answer = failure(QUESTION).unwrap();
        assert_eq!(answer.len(), 22);
        assert_eq!(answer[..12], [0xab, 0xcd, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer[12..], QUESTION[12..22]);
        assert!(is_answer(QUESTION, &answer));
    }

    #[test]
    fn what_is_cut_off_is_not_answered() {
        for length in 0..22 {
            assert_eq!(failure(&QUESTION[..length]), None, "{length}");
        }
        let mut pointer = QUESTION.to_vec();
        pointer[12] = 0xc0;
        assert_eq!(failure(&pointer), None);
    }

    #[test]
    fn answers_and_short_messages_are_no_questions() {
        assert!(is_question(QUESTION));
        assert!(!is_question(&QUESTION[..11]));
        assert!(!is_question(&failure(QUESTION).unwrap()));
    }

    #[test]
    fn without_a_resolver_the_client_is_told() {
        let client = "172.17.0.2:4242".parse().unwrap();
        let step = Queries::new(Vec::new()).ask(client, QUESTION, Instant::now()).unwrap();
        assert_eq!(step, Step { client, answer: failure(QUESTION).unwrap() });
    }

    #[test]
    fn questions_are_bounded() {
        let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut queries = Queries::new(vec![upstream.local_addr().unwrap()]);
        for _ in 0..QUERIES_MAX + 10 {
            queries.ask("172.17.0.2:4242".parse().unwrap(), QUESTION, Instant::now());
        }
        assert_eq!(queries.sockets().count(), QUERIES_MAX);
    }
}
