//! Adds a process to the container.
//!
//! ```text
//! shim ──setns(pid), clone──▶ process ──setns(rest), execve
//! ```
//! Joining a pid namespace only concerns children, so the shim does it itself and stays where it is; it has no children but
//! the container's. A helper in between, which joins and clones, could be killed after its child was born: nobody would wait
//! for that child, and a pid namespace with a process that nobody waits for never ends.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use dory_cgroup::Entrance;
use dory_sys::fault_point;
use dory_sys::process::{ChildProcess, CloneOptions, clone_process};

use crate::error::StartFailure;
use crate::init::{self, Arrival, FromInit, ToInit};
use crate::protocol;
use crate::spec::ExecSpec;

use super::start::{Container, await_execution, end, own_pidfd, receive_from_init, set_oom_score};
use super::stdio::{ShimStreams, make_streams, terminal_streams};

/// Runs `spec` in `container`; returns when its program is executed.
pub fn spawn(container: &Container, spec: &ExecSpec) -> Result<(ChildProcess, ShimStreams), StartFailure> {
    let refused = |what: &'static str| move |error: io::Error| StartFailure::refused(what, error);
    let owner = container.spec.namespaces.user.root();
    let (streams, process_streams) = make_streams(&spec.stdio, spec.attach_output, owner)
        .map_err(refused("cannot make the standard streams"))?;
    let (channel, process_channel) = UnixStream::pair().map_err(refused("cannot make a channel"))?;
    // Where init is now: scripts such as Docker's dind move it to a group beneath its first one.
    let entrance = container.spec.cgroup.as_ref().map(|group| group.entrance_for_exec(container.child.pid));
    let entrance =
        entrance.transpose().map_err(|error| StartFailure::refused("cannot join the cgroup", error))?;
    let own = own_pidfd().map_err(refused("cannot open a descriptor of the shim"))?;
    let arrival = Arrival { streams: process_streams, entrance: entrance.as_ref(), reaper: None, shim: &own };
    container
        .namespaces
        .join_pid()
        .map_err(|error| StartFailure::refused("cannot join the container's pid namespace", error))?;
    fault_point!("exec.pid-namespace-joined");
    let options =
        CloneOptions { cgroup: entrance.as_ref().and_then(Entrance::v2), ..CloneOptions::default() };
    let child =
        clone_process(options, || init::run_exec(spec, &container.namespaces, &process_channel, arrival))
            .map_err(refused("cannot clone the process"))?;
    drop(process_channel);
    fault_point!("exec.process-cloned");
    match lead(spec, &child, &channel) {
        Ok(None) => Ok((child, streams)),
        Ok(Some(master)) => {
            let streams =
                terminal_streams(master, &spec.stdio).map_err(refused("cannot use the terminal"))?;
            let output = spec.attach_output;
            Ok((child, if output { streams } else { ShimStreams { stdin: None, ..streams } }))
        }
        Err(failure) => {
            end(&child);
            Err(failure)
        }
    }
}

/// From the cloned process to the executed program; the terminal's master where there is one.
fn lead(
    spec: &ExecSpec,
    child: &ChildProcess,
    channel: &UnixStream,
) -> Result<Option<OwnedFd>, StartFailure> {
    let gone = |error: io::Error| StartFailure::refused("the exec's process is gone", error);
    set_oom_score(child.pid.as_raw_nonzero().get(), spec.process.oom_score_adj)?;
    protocol::send(channel, &ToInit::Run, &[]).map_err(gone)?;
    let terminal = match receive_from_init(channel)? {
        (FromInit::Ready { .. }, mut descriptors) => descriptors.pop(),
        (other, _) => return Err(StartFailure::refused("unexpected message", format!("{other:?}"))),
    };
    await_execution(channel)?;
    fault_point!("exec.shim-executed");
    Ok(terminal)
}
