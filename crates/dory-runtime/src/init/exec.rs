//! A process of `docker exec`, from the fork to execve.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::error::StartFailure;
use crate::protocol;
use crate::spec::ExecSpec;
use dory_sys::fault_point;

use super::process::{Streams, enter, open_apparmor_attribute};
use super::{
    Arrival, FromInit, NamespaceSet, Root, ToInit, become_namespace_root, die_with, own_root, terminal,
};

/// Runs as the new process, born in the container's pid namespace and in nothing else of it yet; returns an exit code
/// only on failure, which the shim has been told.
pub fn run(spec: &ExecSpec, namespaces: &NamespaceSet, channel: &UnixStream, arrival: Arrival<'_>) -> i32 {
    let shim = arrival.shim;
    let prepared = die_with(shim).and_then(|()| set_up(spec, namespaces, channel, arrival));
    let failure = match prepared {
        Ok((streams, attribute)) => enter(spec, streams, attribute.as_ref(), shim),
        Err(failure) => failure,
    };
    let _unheard = protocol::send(channel, &FromInit::Failed(failure), &[]);
    128
}

fn set_up(
    spec: &ExecSpec,
    namespaces: &NamespaceSet,
    channel: &UnixStream,
    arrival: Arrival<'_>,
) -> Result<(Streams, Option<std::fs::File>), StartFailure> {
    let refused = |what: &'static str| move |error: std::io::Error| StartFailure::refused(what, error);
    fault_point!("exec.cloned");
    arrival.enter_cgroups()?;
    // The shim sets what only it may.
    match protocol::receive(channel).map_err(refused("the shim is gone"))? {
        (ToInit::Run, _) => {}
        (other, _) => return Err(StartFailure::refused("unexpected message", format!("{other:?}"))),
    }
    let attribute = open_apparmor_attribute(&spec.process)?;
    namespaces.join_rest().map_err(refused("cannot join the container's namespaces"))?;
    fault_point!("exec.joined");
    if namespaces.has_user() {
        become_namespace_root()?;
        die_with(arrival.shim)?;
    }
    if !spec.stdio.tty {
        protocol::send(channel, &FromInit::Ready { facts: Vec::new() }, &[])
            .map_err(refused("the shim is gone"))?;
        return Ok((arrival.streams, attribute));
    }
    let root = own_root().map_err(refused("cannot open `/`"))?;
    let opened = terminal::open(Root::new(root.as_fd()), spec.stdio.console_size)
        .map_err(refused("cannot open a terminal"))?;
    protocol::send(channel, &FromInit::Ready { facts: Vec::new() }, &[opened.master.as_fd()])
        .map_err(refused("the shim is gone"))?;
    Ok((Streams::Terminal(opened.slave), attribute))
}
