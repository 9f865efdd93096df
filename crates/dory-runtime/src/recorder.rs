//! The process that writes a container's log where nothing may wait for the disk (`mode=non-blocking`).
//!
//! The shim is one thread, and a write to a file blocks for as long as the disk takes. So records go through a socket to a
//! small process of their own, which may wait; what it does not take yet gathers in the shim, up to the buffer's size. It
//! ends when the socket does, after it has written what was in it: a shim that is killed loses nothing that it had sent.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use dory_log::{LogConfig, LogError, LogFiles};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::protocol::{self, LOG_NAME};
use crate::shim;
use crate::shim::log_state::LogState;

/// The role's first argument.
pub const ROLE: &str = "recorder";

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Starts a recorder of the log in `directory`; the socket takes records in a queue's form, and brings
/// [`protocol::Event`]s where the log cannot be kept.
///
/// # Errors
/// Those of the socket and of the process.
pub(crate) fn spawn(config: &LogConfig, directory: BorrowedFd<'_>) -> io::Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    // The shim's own program, which is a sealed copy; everything else that the shim holds is closed on exec.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("dory-shim")
        .arg(ROLE)
        .env_clear()
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let child = command.spawn()?;
    protocol::send(&ours, config, &[directory])?;
    Ok((ours, child))
}

/// Runs as a recorder, whose standard input is the socket; returns the process's exit code.
pub fn main() -> i32 {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("dory {ROLE}: cannot speak with the shim: {error}");
            2
        }
    }
}

fn run() -> io::Result<()> {
    let shim = shim::take_channel()?;
    let (config, mut descriptors) = protocol::receive::<LogConfig>(&shim)?;
    let directory = descriptors.pop().ok_or_else(|| io::Error::other("no directory arrived"))?;
    let mut state = LogState::default();
    let mut shims = BTreeMap::from([(0, shim.try_clone()?)]);
    match LogFiles::open(directory.as_fd(), LOG_NAME, &config) {
        Ok(Some(files)) => record(&shim, files, &mut |outcome| state.note(outcome, &mut shims)),
        Ok(None) => Ok(()),
        Err(error) => {
            state.note(Err(error), &mut shims);
            Ok(())
        }
    }
}

/// Writes what comes, to the socket's end.
fn record(
    mut shim: &UnixStream,
    mut files: LogFiles,
    note: &mut dyn FnMut(Result<(), LogError>),
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut framed = Vec::new();
    loop {
        if files.has_work() && !is_readable(shim)? {
            files.work();
            continue;
        }
        match shim.read(&mut buffer) {
            // A shim that was killed closes the socket too.
            Ok(0) => return Ok(()),
            Ok(count) => {
                framed.extend_from_slice(&buffer[..count]);
                note(files.append_framed(&mut framed));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_readable(socket: &UnixStream) -> io::Result<bool> {
    let mut descriptors = [PollFd::new(socket, PollFlags::IN)];
    match poll(&mut descriptors, Some(&Timespec::default())) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
