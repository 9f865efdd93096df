//! The streams between a process and its shim.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, OFlags, Uid, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::init::{self, Streams};
use crate::spec::Stdio;

/// The shim's ends.
#[derive(Debug, Default)]
pub struct ShimStreams {
    /// Towards standard input.
    pub stdin: Option<OwnedFd>,
    /// From standard output, or from the terminal.
    pub stdout: Option<OwnedFd>,
    /// From standard error.
    pub stderr: Option<OwnedFd>,
    /// The terminal's master, for its size.
    pub terminal: Option<OwnedFd>,
}

/// Makes the pipes of a process. They belong to `owner` (the container's root, in the engine's ids), so that programs can
/// reopen `/dev/stdout`. Without `output` the process writes to `/dev/null`.
pub fn make_streams(stdio: &Stdio, output: bool, owner: (u32, u32)) -> io::Result<(ShimStreams, Streams)> {
    if stdio.tty {
        return Ok((ShimStreams::default(), Streams::TerminalToCome));
    }
    let (stdin, shim_stdin) = if stdio.open_stdin {
        let (read, write) = pipe(owner)?;
        (read, Some(write))
    } else {
        (init::null_device()?, None)
    };
    let outward = || -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        if output {
            let (read, write) = pipe(owner)?;
            Ok((write, Some(read)))
        } else {
            Ok((init::null_device()?, None))
        }
    };
    let (stdout, shim_stdout) = outward()?;
    let (stderr, shim_stderr) = outward()?;
    let ours = ShimStreams { stdin: shim_stdin, stdout: shim_stdout, stderr: shim_stderr, terminal: None };
    for stream in [&ours.stdin, &ours.stdout, &ours.stderr].into_iter().flatten() {
        set_nonblocking(stream)?;
    }
    Ok((ours, Streams::Pipes { stdin, stdout, stderr }))
}

/// The shim's ends of a terminal: one descriptor to read, one to write (an epoll set holds a descriptor once), one to size.
pub fn terminal_streams(master: OwnedFd, stdio: &Stdio) -> io::Result<ShimStreams> {
    set_nonblocking(&master)?;
    let stdin = if stdio.open_stdin { Some(master.try_clone()?) } else { None };
    Ok(ShimStreams { stdin, stdout: Some(master.try_clone()?), stderr: None, terminal: Some(master) })
}

fn pipe(owner: (u32, u32)) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    if owner != (0, 0) {
        rustix::fs::fchown(&read, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    }
    Ok((read, write))
}

fn set_nonblocking(descriptor: &OwnedFd) -> io::Result<()> {
    let flags = fcntl_getfl(descriptor.as_fd())?;
    Ok(fcntl_setfl(descriptor.as_fd(), flags | OFlags::NONBLOCK)?)
}
