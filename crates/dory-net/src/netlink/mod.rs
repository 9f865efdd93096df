//! The netlink conversation: requests out, acknowledgements and dumps in, each refusal named after what was asked.

mod message;

use std::io;
use std::os::fd::BorrowedFd;

use dory_sys::netlink::{NetlinkProtocol, NetlinkSocket};

pub(crate) use message::{Attributes, Message, aligned, flags};

/// `NLMSG_ERROR`: an acknowledgement, or a refusal.
const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const NLMSG_DONE: u16 = 3;
/// Attribute of an extended acknowledgement: the kernel's own sentence (`NLMSGERR_ATTR_MSG`).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A conversation with the kernel over netlink failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket could be opened, in the caller's or in a container's network namespace.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The request did not reach the kernel.
    #[error("cannot send the netlink request to {0}")]
    Send(String, #[source] io::Error),
    /// No answer, or none that could be read.
    #[error("no netlink answer to the request to {0}")]
    Receive(String, #[source] io::Error),
    /// The kernel refused one request.
    #[error("cannot {operation}{}", .detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Refused {
        /// What was asked for.
        operation: String,
        /// The kernel's own sentence, where it has one.
        detail: Option<String>,
        /// The error number.
        #[source]
        source: io::Error,
    },
    /// A message of the kernel is cut off or has a length that cannot be.
    #[error("malformed netlink answer to the request to {0}")]
    Malformed(String),
}

impl NetlinkError {
    /// The error number of the kernel's refusal; none where the conversation itself failed.
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            Self::Refused { source, .. } => rustix::io::Errno::from_io_error(source),
            _ => None,
        }
    }
}

/// The kernel's answer to one request.
pub(crate) type Answer = Result<(), NetlinkError>;

/// A socket and the sequence number of its next request.
pub(crate) struct Connection {
    socket: NetlinkSocket,
    sequence: u32,
}

impl Connection {
    /// Opens a connection that acts in the calling thread's network namespace.
    pub(crate) fn open(protocol: NetlinkProtocol) -> Result<Self, NetlinkError> {
        NetlinkSocket::open(protocol).map(Self::new).map_err(NetlinkError::Open)
    }

    /// Opens a connection that acts in `netns`.
    pub(crate) fn open_in(netns: BorrowedFd<'_>, protocol: NetlinkProtocol) -> Result<Self, NetlinkError> {
        NetlinkSocket::open_in(netns, protocol).map(Self::new).map_err(NetlinkError::Open)
    }

    /// A connection over `socket`.
    pub(crate) fn new(socket: NetlinkSocket) -> Self {
        Self { socket, sequence: 1 }
    }

    /// Sends `requests` in one datagram and returns one answer for each, in order.
    ///
    /// rtnetlink goes on after a request that it refuses, so later answers may be good all the same.
    pub(crate) fn request_each(&mut self, requests: &[Message]) -> Result<Vec<Answer>, NetlinkError> {
        // Newer kernels refuse an empty datagram (ENODATA).
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.sequence;
        let datagram = self.number(requests);
        self.socket.send(&datagram).map_err(|source| NetlinkError::Send(describe(requests), source))?;
        let mut answers: Vec<Option<Answer>> = requests.iter().map(|_| None).collect();
        let mut missing = requests.len();
        while missing > 0 {
            for reply in self.receive(|| describe(requests))? {
                let index = reply.sequence.wrapping_sub(first) as usize;
                let Some(request) = requests.get(index) else { continue };
                if reply.kind == NLMSG_ERROR && answers[index].is_none() {
                    answers[index] = Some(reply.acknowledgement(request.operation()));
                    missing -= 1;
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// As [`Self::request_each`], where every request must succeed; the first refusal is returned.
    pub(crate) fn request(&mut self, requests: &[Message]) -> Result<(), NetlinkError> {
        self.request_each(requests)?.into_iter().collect()
    }

    /// Sends the requests of one nfnetlink transaction, which the kernel takes or leaves as a whole.
    ///
    /// `begin` and `end` are its brackets, which are not acknowledged. A transaction that could not be committed is
    /// answered in the name of `begin`.
    pub(crate) fn transact(
        &mut self,
        begin: Message,
        requests: Vec<Message>,
        end: Message,
    ) -> Result<(), NetlinkError> {
        let expected = requests.len();
        let mut all = Vec::with_capacity(expected + 2);
        all.push(begin);
        all.extend(requests);
        all.push(end);
        let first = self.sequence;
        let datagram = self.number(&all);
        self.socket.send(&datagram).map_err(|source| NetlinkError::Send(describe(&all), source))?;
        let mut acknowledged = 0;
        while acknowledged < expected {
            for reply in self.receive(|| describe(&all))? {
                let index = reply.sequence.wrapping_sub(first) as usize;
                let Some(request) = all.get(index) else { continue };
                if reply.kind == NLMSG_ERROR {
                    reply.acknowledgement(request.operation())?;
                    acknowledged += 1;
                }
            }
        }
        Ok(())
    }

    /// Sends one request whose answer is data: every message of the dump, or the single message of a plain lookup,
    /// as its payload after the netlink header.
    pub(crate) fn query(&mut self, request: Message) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let sequence = self.sequence;
        let requests = [request];
        let datagram = self.number(&requests);
        let operation = requests[0].operation();
        self.socket.send(&datagram).map_err(|source| NetlinkError::Send(operation.to_owned(), source))?;
        let mut found = Vec::new();
        loop {
            for reply in self.receive(|| operation.to_owned())? {
                match reply.kind {
                    _ if reply.sequence != sequence => {}
                    NLMSG_DONE => return Ok(found),
                    NLMSG_ERROR => return reply.acknowledgement(operation).map(|()| found),
                    _ => found.push(reply.payload),
                }
            }
        }
    }

    /// The datagram of `requests`, each with its sequence number.
    fn number(&mut self, requests: &[Message]) -> Vec<u8> {
        let mut datagram = Vec::new();
        for request in requests {
            request.append_to(&mut datagram, self.sequence);
            self.sequence = self.sequence.wrapping_add(1);
        }
        datagram
    }

    /// The messages of the next datagram.
    fn receive(&self, operation: impl Fn() -> String) -> Result<Vec<Reply>, NetlinkError> {
        let mut buffer = Vec::new();
        self.socket.receive(&mut buffer).map_err(|source| NetlinkError::Receive(operation(), source))?;
        Reply::parse_all(&buffer).ok_or_else(|| NetlinkError::Malformed(operation()))
    }
}

/// What a datagram of `requests` is for, in a few words.
fn describe(requests: &[Message]) -> String {
    requests.iter().map(Message::operation).find(|operation| !operation.is_empty()).unwrap_or("").to_owned()
}

/// One message of the kernel.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: Vec<u8>,
}

impl Reply {
    /// Takes a datagram apart; `None` where a length does not fit.
    fn parse_all(mut bytes: &[u8]) -> Option<Vec<Self>> {
        let mut replies = Vec::new();
        while !bytes.is_empty() {
            let (header, _) = bytes.split_first_chunk::<16>()?;
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            replies.push(Self {
                kind: u16::from_ne_bytes([header[4], header[5]]),
                flags: u16::from_ne_bytes([header[6], header[7]]),
                sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
                payload: bytes.get(16..length)?.to_vec(),
            });
            bytes = bytes.get(aligned(length)..).unwrap_or_default();
        }
        Some(replies)
    }

    /// Reads an `NLMSG_ERROR`: its error number, 0 for success, and the kernel's sentence.
    fn acknowledgement(&self, operation: &str) -> Answer {
        let Some((errno, _)) = self.payload.split_first_chunk::<4>() else {
            return Err(NetlinkError::Malformed(operation.to_owned()));
        };
        match i32::from_ne_bytes(*errno) {
            0 => Ok(()),
            errno => Err(NetlinkError::Refused {
                operation: operation.to_owned(),
                detail: self.sentence(),
                source: io::Error::from_raw_os_error(-errno),
            }),
        }
    }

    /// The text of an extended acknowledgement, which follows the refused request's header (or, uncapped, all of it).
    fn sentence(&self) -> Option<String> {
        if self.flags & flags::ACK_TLVS == 0 {
            return None;
        }
        let refused = u32::from_ne_bytes(*self.payload.get(4..)?.first_chunk()?) as usize;
        let skipped = if self.flags & flags::CAPPED == 0 { aligned(refused) } else { 16 };
        let text = Attributes::new(self.payload.get(4 + skipped..)?).find(NLMSGERR_ATTR_MSG)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with `kind`, `flags` and `payload`, as the kernel would send it.
    fn raw(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + payload.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    #[test]
    fn takes_a_datagram_apart() {
        let mut datagram = raw(16, 0, &[1, 2, 3, 4, 5]);
        datagram.extend(raw(17, 0, &[]));
        let replies = Reply::parse_all(&datagram).unwrap();
        assert_eq!(replies.len(), 2);
        assert_eq!((replies[0].kind, replies[0].payload.as_slice()), (16, &[1, 2, 3, 4, 5][..]));
        assert_eq!((replies[1].kind, replies[1].sequence), (17, 7));
    }

    #[test]
    fn refuses_lengths_that_cannot_be() {
        for length in [0u32, 4, 15, 17, 4000, u32::MAX] {
            let mut datagram = raw(16, 0, &[]);
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Reply::parse_all(&datagram), None, "{length}");
        }
        assert_eq!(Reply::parse_all(&[1, 2, 3]), None);
    }

    #[test]
    fn reads_the_kernels_sentence() {
        let mut payload = (-17i32).to_ne_bytes().to_vec();
        payload.extend(36u32.to_ne_bytes());
        payload.extend([0; 12]);
        payload.extend(11u16.to_ne_bytes());
        payload.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        payload.extend(b"exists\0\0");
        let reply = Reply { kind: NLMSG_ERROR, flags: flags::CAPPED | flags::ACK_TLVS, sequence: 1, payload };
        let error = reply.acknowledgement("create `x`").unwrap_err();
        assert_eq!(error.to_string(), "cannot create `x`: exists");
        assert_eq!(error.errno(), Some(rustix::io::Errno::EXIST));
    }
}
