//! A running process, its streams, and the clients attached to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use dory_log::Stream;
use dory_sys::process::ChildProcess;
use dory_types::ExecId;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::backlog::Backlog;
use super::stdio::ShimStreams;

/// One read of output, and so the largest frame.
pub const CHUNK: usize = 32 << 10;
/// How long output is awaited after the process has ended; somebody it left behind may hold the pipe (dockerd waits as
/// long).
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The container's process or an exec's.
#[derive(Debug)]
pub struct RunningProcess {
    /// `None` for the container's own.
    pub exec: Option<ExecId>,
    /// The process.
    pub child: ChildProcess,
    /// Our ends of its streams.
    pub streams: ShimStreams,
    /// It has a terminal: output is raw.
    pub terminal: bool,
    /// Close standard input when a client's has ended.
    pub stdin_once: bool,
    /// Kill it when its client has gone.
    pub ends_with_client: bool,
    /// Taken from a client, not yet taken by the process.
    pub pending_input: Vec<u8>,
    /// Close standard input when that has been written.
    pub input_ended: bool,
    /// Exit code, once it ended.
    pub exit_code: Option<i32>,
    /// When to stop waiting for output.
    pub deadline: Option<Instant>,
}

impl RunningProcess {
    /// A process that was just started.
    pub fn new(exec: Option<ExecId>, child: ChildProcess, streams: ShimStreams, stdin_once: bool) -> Self {
        let terminal = streams.terminal.is_some();
        Self {
            exec,
            child,
            streams,
            terminal,
            stdin_once,
            ends_with_client: false,
            pending_input: Vec::new(),
            input_ended: false,
            exit_code: None,
            deadline: None,
        }
    }

    /// Collects the exit status after the pidfd became readable.
    pub fn reap(&mut self) {
        let status =
            waitid(WaitId::PidFd(self.child.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        let code = match status {
            Ok(None) => return,
            Ok(Some(status)) => status
                .exit_status()
                .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
                .unwrap_or(255),
            // Collected by somebody else: it is gone, and that is all there is to know.
            Err(_) => 255,
        };
        self.exit_code = Some(code);
        self.deadline = Some(Instant::now() + DRAIN_TIME);
    }

    /// True where it has ended and all of its output has been seen.
    pub fn is_complete(&self, now: Instant) -> bool {
        let drained = self.streams.stdout.is_none() && self.streams.stderr.is_none();
        self.exit_code.is_some() && (drained || self.deadline.is_some_and(|deadline| now >= deadline))
    }

    /// The descriptor of an output stream.
    pub fn output(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stderr => &mut self.streams.stderr,
            _ => &mut self.streams.stdout,
        }
    }

    /// Writes what clients sent; true while something is left.
    pub fn write_input(&mut self) -> bool {
        let Some(stdin) = &self.streams.stdin else {
            self.pending_input.clear();
            return false;
        };
        while !self.pending_input.is_empty() {
            match rustix::io::write(stdin, &self.pending_input) {
                Ok(written) => drop(self.pending_input.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                // The process closed its end: what was meant for it has no reader.
                Err(_) => {
                    self.pending_input.clear();
                    self.input_ended = true;
                    return false;
                }
            }
        }
        false
    }

    /// True where standard input is to be closed. A terminal has none to close: its end is a character.
    pub fn input_is_over(&self) -> bool {
        self.input_ended && !self.terminal
    }
}

/// What a read of a stream gave.
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing ever again.
    End,
}

/// Reads a process's output. A terminal whose last slave closed answers `EIO`.
pub fn read_output(stream: BorrowedFd<'_>, buffer: &mut [u8]) -> Read {
    match rustix::io::read(stream, buffer) {
        Ok(0) => Read::End,
        Ok(count) => Read::Bytes(count),
        Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
        Err(_) => Read::End,
    }
}

/// An attached client: a connection of the engine's.
#[derive(Debug)]
pub struct Client {
    /// The connection.
    pub stream: UnixStream,
    /// Key of the process.
    pub process: u64,
    /// What it sends goes to the process.
    pub stdin: bool,
    /// It gets standard output.
    pub stdout: bool,
    /// It gets standard error.
    pub stderr: bool,
    /// What it has not taken yet.
    pub backlog: Backlog,
    /// It sends nothing any more.
    pub input_over: bool,
    /// It hung up.
    pub gone: bool,
    /// Close it when the backlog is empty.
    pub ending: bool,
}

impl Client {
    /// A client that was just attached to a process and gets `stdin`, `stdout` and `stderr` of it.
    pub fn new(stream: UnixStream, process: u64, [stdin, stdout, stderr]: [bool; 3]) -> Self {
        let backlog = Backlog::default();
        Self {
            stream,
            process,
            stdin,
            stdout,
            stderr,
            backlog,
            input_over: false,
            gone: false,
            ending: false,
        }
    }

    /// True where this client gets `stream`.
    pub fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stderr => self.stderr,
            _ => self.stdout,
        }
    }

    /// Reads what the client sent.
    pub fn read(&self, buffer: &mut [u8]) -> Read {
        match recv(&self.stream, buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Read::End,
            Ok((count, _)) => Read::Bytes(count),
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            Err(_) => Read::End,
        }
    }

    /// Sends output, or keeps it for later.
    pub fn send(&mut self, bytes: &[u8], directory: &OwnedFd) -> io::Result<()> {
        self.backlog.send(self.stream.as_fd(), bytes, directory)
    }

    /// Sends what was kept.
    pub fn flush(&mut self) -> io::Result<()> {
        self.backlog.flush(self.stream.as_fd())
    }
}
