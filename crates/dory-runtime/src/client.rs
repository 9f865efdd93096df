//! The engine's side of a running shim.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use dory_types::ExecId;
use rustix::fs::{Mode, OFlags};

use crate::error::{FailureKind, StartFailure};
use crate::protocol::{self, Reply, Request, SOCKET_NAME, ShimState};
use crate::spec::{ConsoleSize, ExecSpec};

/// Reaches the shim whose socket lies in one container's runtime directory. Holds no connection: each call makes one,
/// so that a client outlives engines and shims alike.
#[derive(Debug, Clone)]
pub struct ShimClient {
    runtime_directory: PathBuf,
}

/// A shim could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// No shim answers: the container does not run.
    #[error("cannot reach the shim")]
    Unreachable(#[source] io::Error),
    /// The shim said no.
    #[error(transparent)]
    Failed(#[from] StartFailure),
}

impl ShimError {
    /// True where there certainly is no shim. Anything else that keeps us from reaching it (no descriptors left, no memory)
    /// says nothing about the container.
    pub fn is_gone(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
        let Self::Unreachable(error) = self else { return false };
        matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof)
    }
}

impl From<io::Error> for ShimError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error)
    }
}

/// A client that attached before the program ran.
#[derive(Debug)]
pub struct EarlyAttachment {
    stream: UnixStream,
}

impl EarlyAttachment {
    /// The second half of [`ShimClient::attach`], to be called when the launch has succeeded.
    ///
    /// # Errors
    /// As [`ShimError`].
    pub fn complete(self) -> Result<UnixStream, ShimError> {
        let (reply, _) = protocol::receive::<Reply>(&self.stream)?;
        done(reply).map(|()| self.stream)
    }
}

impl ShimClient {
    /// The shim of the container with this runtime directory (`ContainerSpec::runtime_directory`).
    pub fn new(runtime_directory: impl Into<PathBuf>) -> Self {
        Self { runtime_directory: runtime_directory.into() }
    }

    /// Watches the container: its state now, and the stream of [`protocol::Event`]s that follows.
    ///
    /// # Errors
    /// [`ShimError::Unreachable`] where no shim runs: then `exit.json` says how the container ended, if it is there.
    pub fn monitor(&self) -> Result<(ShimState, UnixStream), ShimError> {
        let (reply, stream, _) = self.ask(&Request::Monitor)?;
        match reply {
            Reply::State(state) => Ok((state, stream)),
            other => Err(unexpected(other)),
        }
    }

    /// Joins the container's streams. What is written to the result reaches the process, what is read from it is its
    /// output, framed unless the container has a terminal.
    ///
    /// # Errors
    /// As [`ShimError`].
    pub fn attach(&self, stdin: bool, stdout: bool, stderr: bool) -> Result<UnixStream, ShimError> {
        let (reply, stream, _) = self.ask(&Request::Attach { stdin, stdout, stderr })?;
        done(reply).map(|()| stream)
    }

    /// The first half of [`Self::attach`], for a launch's `before_run`: the shim takes the request before the program
    /// runs, and answers it once the program does.
    ///
    /// # Errors
    /// [`ShimError::Unreachable`].
    pub fn attach_early(
        &self,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> Result<EarlyAttachment, ShimError> {
        let stream = connect(&self.runtime_directory)?;
        protocol::send(&stream, &Request::Attach { stdin, stdout, stderr }, &[])?;
        Ok(EarlyAttachment { stream })
    }

    /// Runs one more process in the container; the stream is as in [`Self::attach`].
    ///
    /// # Errors
    /// [`ShimError::Failed`] says why the process did not start.
    pub fn exec(&self, spec: ExecSpec) -> Result<(i32, UnixStream), ShimError> {
        let (reply, stream, _) = self.ask(&Request::Exec(Box::new(spec)))?;
        match reply {
            Reply::ExecStarted { pid } => Ok((pid, stream)),
            other => Err(unexpected(other)),
        }
    }

    /// Signals the container's process (`exec` is `None`) or an exec's.
    ///
    /// # Errors
    /// As [`ShimError`]; a process that is gone is a failure.
    pub fn signal(&self, exec: Option<ExecId>, signal: i32) -> Result<(), ShimError> {
        self.ask(&Request::Signal { exec, signal }).and_then(|(reply, ..)| done(reply))
    }

    /// Resizes a terminal.
    ///
    /// # Errors
    /// As [`ShimError`].
    pub fn resize(&self, exec: Option<ExecId>, size: ConsoleSize) -> Result<(), ShimError> {
        self.ask(&Request::Resize { exec, size }).and_then(|(reply, ..)| done(reply))
    }

    /// The container's root directory as its processes see it, volumes and binds included (`O_PATH`).
    ///
    /// # Errors
    /// As [`ShimError`].
    pub fn root(&self) -> Result<OwnedFd, ShimError> {
        let (reply, _, mut descriptors) = self.ask(&Request::Root)?;
        done(reply)?;
        descriptors.pop().ok_or_else(|| {
            ShimError::Failed(StartFailure::new(FailureKind::Refused, "the shim sent no root directory"))
        })
    }

    /// The container's network namespace; `None` where it is the engine's own. `held` are descriptors that the shim is to
    /// hold while the container lives: sockets of ports that were published since the start.
    ///
    /// # Errors
    /// As [`ShimError`].
    pub fn network(&self, held: &[BorrowedFd<'_>]) -> Result<Option<OwnedFd>, ShimError> {
        let (reply, _, mut descriptors) = self.ask_with(&Request::Network, held)?;
        done(reply)?;
        Ok(descriptors.pop())
    }

    /// The listening socket that the container has in place of the engine's; `None` where it has none. The shim keeps it too:
    /// who connects while no engine lives waits for the next one.
    ///
    /// # Errors
    /// As [`ShimError`].
    pub fn guarded_socket(&self) -> Result<Option<UnixListener>, ShimError> {
        let (reply, _, mut descriptors) = self.ask(&Request::GuardedSocket)?;
        done(reply)?;
        Ok(descriptors.pop().map(UnixListener::from))
    }

    fn ask(&self, request: &Request) -> Result<(Reply, UnixStream, Vec<OwnedFd>), ShimError> {
        self.ask_with(request, &[])
    }

    fn ask_with(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Reply, UnixStream, Vec<OwnedFd>), ShimError> {
        let stream = connect(&self.runtime_directory)?;
        protocol::send(&stream, request, descriptors)?;
        let (reply, descriptors) = protocol::receive::<Reply>(&stream)?;
        Ok((reply, stream, descriptors))
    }
}

/// Connects through a descriptor of the directory: a socket's own path may not exceed 107 bytes, a data-root's may.
fn connect(directory: &Path) -> io::Result<UnixStream> {
    let directory =
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd()))
}

fn done(reply: Reply) -> Result<(), ShimError> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn unexpected(reply: Reply) -> ShimError {
    match reply {
        Reply::Failed(failure) => failure.into(),
        other => StartFailure::new(FailureKind::Refused, format!("the shim answered {other:?}")).into(),
    }
}
