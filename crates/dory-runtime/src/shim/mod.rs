//! The shim: one small, single-threaded process per container.
//!
//! It starts the container's process, owns its streams, its log and its exit status, runs exec'd processes, and outlives
//! the engine: what a client or the next engine needs to reach the container hangs on this process and on nothing else.
//! One epoll loop; no runtime, no threads (it forks).

mod backlog;
mod container_log;
mod event_loop;
mod exec;
mod guard;
mod lock;
pub(crate) mod log_state;
mod process;
mod registry;
mod request;
pub(crate) mod rootfs;
pub(crate) mod start;
mod stdio;
mod unmask;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::init;
use crate::protocol::{self, Progress};
use dory_sys::fault_point;

/// The role's first argument.
pub const ROLE: &str = "shim";

/// Runs as a shim whose standard input is the launch connection; returns the process's exit code.
pub fn main() -> i32 {
    match take_channel() {
        Ok(channel) => run(channel),
        Err(error) => {
            eprintln!("dory shim: cannot use the launch connection: {error}");
            2
        }
    }
}

fn run(channel: UnixStream) -> i32 {
    match start::start(&channel) {
        Ok(container) => {
            fault_point!("shim.executed");
            let started = Progress::Started { facts: container.facts.clone() };
            // An engine that died in this very moment finds the container through the socket.
            let _unheard = protocol::send(&channel, &started, &[]);
            fault_point!("shim.start-told");
            event_loop::run(container, channel);
            0
        }
        Err(failure) => {
            let _unheard = protocol::send(&channel, &Progress::Failed(failure), &[]);
            1
        }
    }
}

/// Moves the connection from standard input to a descriptor that no child inherits.
pub(crate) fn take_channel() -> io::Result<UnixStream> {
    // Invisible to the container's processes, which share a pid namespace with it in `--pid host` (CVE-2016-9962).
    init::hide()?;
    // Not in the engine's session: a Ctrl-C at its terminal ends the engine, not the containers.
    let _leader_already = rustix::process::setsid();
    let channel: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(init::null_device()?)?;
    Ok(channel.into())
}
