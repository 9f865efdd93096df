//! What engine and shim say to each other.
//!
//! A connection is a unix stream. Each message is a little-endian `u32` length and that many bytes of JSON; descriptors
//! travel as `SCM_RIGHTS` with the first byte of a message. The first connection is inherited by the shim as its
//! standard input and carries the start; every later one is made to [`SOCKET_NAME`] and opens with one [`Request`].
//! After `Attach` and `Exec` are answered, the rest of that connection is the stream itself: raw bytes towards the
//! process, and from it 8-byte framed output (raw for a terminal), so that the engine copies it to a client as it is.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use dory_types::ExecId;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::StartFailure;
use crate::spec::{ConsoleSize, ContainerSpec, ExecSpec};

/// Name of the shim's listening socket in the container's runtime directory.
pub const SOCKET_NAME: &str = "shim.sock";
/// Directory in the container's runtime directory, closed to everybody but root, with the container's own API socket.
pub const GUARD_DIRECTORY: &str = "guard";
/// Name of that socket.
pub const GUARD_SOCKET: &str = "docker.sock";
/// Name of the exit record in the container's directory.
pub const EXIT_RECORD_NAME: &str = "exit.json";
/// Name of the log in the container's directory; rotated ones have a number behind it.
pub const LOG_NAME: &str = "container.log";
/// No message is longer: a spec with 500 layers and a large environment stays far below it.
const MESSAGE_LIMIT: u32 = 16 << 20;
/// Descriptors that one message may carry (`SCM_MAX_FD` is 253).
const DESCRIPTOR_LIMIT: usize = 250;

/// From the engine, during the start.
#[derive(Debug, Serialize, Deserialize)]
pub enum Launch {
    /// Prepare this container. The shim answers with [`Progress`].
    Prepare(Box<ContainerSpec>),
    /// The network is configured; run. Attached descriptors are held by the shim for the container's life
    /// (published ports must outlive the engine).
    Run,
}

/// From the shim, during the start.
#[derive(Debug, Serialize, Deserialize)]
pub enum Progress {
    /// The namespaces exist; the network namespace is attached where it is new.
    Namespaces {
        /// The init process, as the engine numbers it.
        pid: i32,
    },
    /// The process runs. From here on the connection carries [`Event`]s.
    Started {
        /// What the surroundings refused and nobody asked for by name.
        facts: Vec<String>,
    },
    /// It does not run and nothing is left of it.
    Failed(StartFailure),
}

/// The opening of a later connection.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Answered with [`Reply::State`]; then the connection carries [`Event`]s.
    Monitor,
    /// Join the streams of the container's process.
    Attach {
        /// Send what comes from this connection to the process.
        stdin: bool,
        /// Receive standard output.
        stdout: bool,
        /// Receive standard error.
        stderr: bool,
    },
    /// Run one more process; answered with [`Reply::ExecStarted`], then the stream.
    Exec(Box<ExecSpec>),
    /// Signal the container's process, or an exec's.
    Signal {
        /// `None` for the container's own process.
        exec: Option<ExecId>,
        /// Signal number.
        signal: i32,
    },
    /// Resize a terminal.
    Resize {
        /// `None` for the container's own.
        exec: Option<ExecId>,
        /// New size.
        size: ConsoleSize,
    },
    /// Answered with [`Reply::Done`] and a descriptor (`O_PATH`) of the container's root directory, mounts included.
    Root,
    /// Answered with [`Reply::Done`] and a descriptor of the container's network namespace, where that is not the engine's.
    /// Descriptors that come with the request are held as those of [`Launch::Run`] are.
    Network,
    /// Answered with [`Reply::Done`] and the listening socket of [`crate::spec::ContainerSpec::guarded_socket`], where there
    /// is one.
    GuardedSocket,
}

/// The answer to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// The state of the container's processes.
    State(ShimState),
    /// The exec's process runs.
    ExecStarted {
        /// Its pid as the engine numbers it.
        pid: i32,
    },
    /// Not done, and why.
    Failed(StartFailure),
}

/// What a shim knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShimState {
    /// The container's process, as the engine numbers it.
    pub pid: i32,
    /// Execs that still run, with their pids.
    pub execs: Vec<(ExecId, i32)>,
}

/// What a shim reports by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The container's process ended and its output is complete; the shim goes away.
    Exited(ExitRecord),
    /// An exec's process ended.
    ExecExited {
        /// Which.
        exec: ExecId,
        /// Its exit code (128 + signal for a killed one).
        exit_code: i32,
    },
    /// The log could not take what the container printed, and from now on may lack more of it.
    LogFailed {
        /// Why.
        message: String,
    },
    /// The log takes what comes again.
    LogRecovered {
        /// Writes that failed meanwhile, each of one read from the container.
        failures: u64,
    },
}

/// How a container ended; also kept as `exit.json` in its directory, for an engine that was not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code (128 + signal for a killed process).
    pub exit_code: i32,
    /// The kernel's OOM killer struck in the container's cgroup.
    pub oom_killed: bool,
    /// When, in nanoseconds since the epoch.
    pub finished_at: i64,
}

/// Sends one message with descriptors.
///
/// # Errors
/// The socket's; a peer that is gone is `BrokenPipe`, never a signal.
pub fn send<T: Serialize>(
    socket: &UnixStream,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTOR_LIMIT))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let sent = sendmsg(socket, &[IoSlice::new(rest)], &mut ancillary, SendFlags::NOSIGNAL)?;
        ancillary.clear();
        rest = &rest[sent..];
    }
    Ok(())
}

/// Receives one message and the descriptors that came with it.
///
/// # Errors
/// `UnexpectedEof` where the peer went away, `InvalidData` for what is not a message.
pub fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut header = [0_u8; 4];
    let descriptors = receive_header(socket, &mut header)?;
    let length = u32::from_le_bytes(header);
    if length > MESSAGE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    let mut body = vec![0; length as usize];
    (&*socket).read_exact(&mut body)?;
    let message =
        serde_json::from_slice(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((message, descriptors))
}

/// Fills `header`; descriptors come with its first byte.
fn receive_header(socket: &UnixStream, header: &mut [u8; 4]) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    let mut filled = 0;
    while filled < header.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTOR_LIMIT))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(&mut header[filled..])],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let received = match received {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += received.bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors.extend(fds);
            }
        }
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_messages_and_descriptors() {
        let (left, right) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&left, &Request::Root, &[file.as_fd()]).unwrap();
        send(&left, &Request::Monitor, &[]).unwrap();
        let (first, descriptors) = receive::<Request>(&right).unwrap();
        assert!(matches!(first, Request::Root));
        assert_eq!(descriptors.len(), 1);
        let (second, descriptors) = receive::<Request>(&right).unwrap();
        assert!(matches!(second, Request::Monitor));
        assert!(descriptors.is_empty());
    }

    #[test]
    fn refuses_what_is_no_message() {
        use std::io::Write;
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert_eq!(receive::<Request>(&right).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(left);
        assert_eq!(receive::<Request>(&right).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
