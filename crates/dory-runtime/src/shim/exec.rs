//! Adds a process to the container.
//!
//! ```text
//! shim ──clone──▶ helper ──setns(pid), clone(PARENT)──▶ process ──setns(rest), execve
//! ```
//! Joining a pid namespace only concerns children, and the process must be the shim's own child so that the shim gets its
//! exit status: hence the helper, and `CLONE_PARENT`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use dory_cgroup::Entrance;
use dory_sys::fault_point;
use dory_sys::process::{self, ChildProcess, CloneOptions, clone_process};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::error::{FailureKind, StartFailure};
use crate::init::{self, Arrival, FromInit, ToInit};
use crate::protocol;
use crate::spec::ExecSpec;

use super::start::{Container, await_execution, end, receive_from_init, set_oom_score};
use super::stdio::{ShimStreams, make_streams, terminal_streams};

/// Runs `spec` in `container`; returns when its program is executed.
pub fn spawn(container: &Container, spec: &ExecSpec) -> Result<(ChildProcess, ShimStreams), StartFailure> {
    let refused = |what: &'static str| move |error: io::Error| StartFailure::refused(what, error);
    let owner = container.spec.namespaces.user.root();
    let (streams, process_streams) = make_streams(&spec.stdio, spec.attach_output, owner)
        .map_err(refused("cannot make the standard streams"))?;
    let (channel, process_channel) = UnixStream::pair().map_err(refused("cannot make a channel"))?;
    let (pid_channel, helper_channel) = UnixStream::pair().map_err(refused("cannot make a channel"))?;
    // Where init is now: scripts such as Docker's dind move it to a group beneath its first one.
    let entrance = container.spec.cgroup.as_ref().map(|group| group.entrance_for_exec(container.child.pid));
    let entrance =
        entrance.transpose().map_err(|error| StartFailure::refused("cannot join the cgroup", error))?;
    let arrival = Arrival { streams: process_streams, entrance: entrance.as_ref(), reaper: None };
    let helper = clone_process(CloneOptions::default(), || {
        fault_point!("exec.helper-cloned");
        let born = container.namespaces.join_pid().and_then(|()| {
            let cgroup = entrance.as_ref().and_then(Entrance::v2);
            clone_process(CloneOptions { flags: process::PARENT, cgroup }, || {
                init::run_exec(spec, &container.namespaces, &process_channel, arrival)
            })
        });
        fault_point!("exec.process-born");
        let answer = match &born {
            Ok(child) => Born { pid: child.pid.as_raw_nonzero().get(), error: None },
            Err(error) => Born { pid: 0, error: Some(error.to_string()) },
        };
        let pidfd: Vec<_> = born.iter().map(|child| child.pidfd.as_fd()).collect();
        i32::from(protocol::send(&helper_channel, &answer, &pidfd).is_err())
    })
    .map_err(refused("cannot clone a helper"))?;
    drop((process_channel, helper_channel));
    fault_point!("exec.shim-cloned-helper");
    let born = protocol::receive::<Born>(&pid_channel);
    let _nobodys = waitid(WaitId::PidFd(helper.pidfd.as_fd()), WaitIdOptions::EXITED);
    let child = receive_child(born)?;
    fault_point!("exec.shim-has-process");
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

/// The helper's word.
#[derive(serde::Serialize, serde::Deserialize)]
struct Born {
    pid: i32,
    error: Option<String>,
}

fn receive_child(born: io::Result<(Born, Vec<OwnedFd>)>) -> Result<ChildProcess, StartFailure> {
    let (born, mut descriptors) =
        born.map_err(|error| StartFailure::refused("the exec's helper died during the set-up", error))?;
    if let Some(error) = born.error {
        return Err(StartFailure::refused("cannot join the container's pid namespace", error));
    }
    match (Pid::from_raw(born.pid), descriptors.pop()) {
        (Some(pid), Some(pidfd)) => Ok(ChildProcess { pid, pidfd }),
        _ => Err(StartFailure::new(FailureKind::Refused, "the exec's helper sent no process")),
    }
}

/// From the born process to the executed program; the terminal's master where there is one.
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
