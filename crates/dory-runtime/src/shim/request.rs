//! What the engine asks of a running container.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dory_sys::fault_point;
use dory_types::ExecId;

use crate::error::{FailureKind, StartFailure};
use crate::init::terminal;
use crate::protocol::{self, Reply, Request, ShimState};
use crate::spec::{ConsoleSize, ExecSpec};

use super::event_loop::{MAIN, Shim};
use super::exec;
use super::process::{Client, RunningProcess};

/// The engine writes its request with the connection; whoever takes longer is not it.
const REQUEST_TIME: Duration = Duration::from_secs(5);

impl Shim {
    /// Reads one request and answers it; a connection that fails on the way is dropped, the container never is.
    pub fn serve(&mut self, stream: UnixStream) {
        let _dropped = self.try_serve(stream);
    }

    fn try_serve(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(REQUEST_TIME))?;
        stream.set_write_timeout(Some(REQUEST_TIME))?;
        let (request, descriptors) = protocol::receive::<Request>(&stream)?;
        match request {
            Request::Monitor => {
                protocol::send(&stream, &Reply::State(self.state()), &[])?;
                self.add_monitor(stream)
            }
            Request::Attach { stdin, stdout, stderr } => self.attach(stream, stdin, stdout, stderr),
            Request::Exec(spec) => self.exec(stream, &spec),
            Request::Signal { exec, signal } => {
                protocol::send(&stream, &self.signal(exec.as_ref(), signal), &[])
            }
            Request::Resize { exec, size } => protocol::send(&stream, &self.resize(exec.as_ref(), size), &[]),
            Request::Network => {
                self.container.held.extend(descriptors);
                let network = self.container.namespaces.network();
                protocol::send(&stream, &Reply::Done, network.as_slice())
            }
            Request::GuardedSocket => {
                let guard = self.container.guard.as_ref().map(AsFd::as_fd);
                protocol::send(&stream, &Reply::Done, guard.as_slice())
            }
            Request::Root => protocol::send(&stream, &Reply::Done, &[self.container.root.as_fd()]),
        }
    }

    fn state(&self) -> ShimState {
        let execs = self
            .processes
            .values()
            .filter_map(|process| Some((process.exec.clone()?, process.child.pid.as_raw_nonzero().get())));
        ShimState { pid: self.container.child.pid.as_raw_nonzero().get(), execs: execs.collect() }
    }

    fn attach(&mut self, stream: UnixStream, stdin: bool, stdout: bool, stderr: bool) -> io::Result<()> {
        let Some(process) = self.processes.get(&MAIN) else {
            return protocol::send(&stream, &not_running(), &[]);
        };
        let stdin = stdin && process.streams.stdin.is_some();
        protocol::send(&stream, &Reply::Done, &[])?;
        self.add_client(Client::new(stream, MAIN, [stdin, stdout, stderr]))
    }

    fn exec(&mut self, stream: UnixStream, spec: &ExecSpec) -> io::Result<()> {
        if !self.processes.contains_key(&MAIN) {
            return protocol::send(&stream, &not_running(), &[]);
        }
        let (child, streams) = match exec::spawn(&self.container, spec) {
            Ok(spawned) => spawned,
            Err(failure) => return protocol::send(&stream, &Reply::Failed(failure), &[]),
        };
        let pid = child.pid.as_raw_nonzero().get();
        let mut process = RunningProcess::new(Some(spec.id.clone()), child, streams, true);
        process.ends_with_client = spec.ends_with_caller;
        let process = self.add_process(process)?;
        protocol::send(&stream, &Reply::ExecStarted { pid }, &[])?;
        fault_point!("exec.start-told");
        let (stdin, output) = (spec.stdio.open_stdin, spec.attach_output);
        self.add_client(Client::new(stream, process, [stdin, output, output]))
    }

    fn find(&self, exec: Option<&ExecId>) -> Option<&RunningProcess> {
        self.processes.values().find(|process| process.exec.as_ref() == exec)
    }

    fn signal(&self, exec: Option<&ExecId>, signal: i32) -> Reply {
        let Some(process) = self.find(exec) else { return not_running() };
        match dory_sys::process::pidfd_signal(process.child.pidfd.as_fd(), signal) {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(StartFailure::refused(format!("cannot send signal {signal}"), error)),
        }
    }

    fn resize(&self, exec: Option<&ExecId>, size: ConsoleSize) -> Reply {
        let Some(process) = self.find(exec) else { return not_running() };
        let Some(master) = &process.streams.terminal else {
            return Reply::Failed(StartFailure::new(FailureKind::Invalid, "the process has no terminal"));
        };
        match terminal::resize(master.as_fd(), size) {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(StartFailure::refused("cannot resize the terminal", error)),
        }
    }
}

fn not_running() -> Reply {
    Reply::Failed(StartFailure::new(FailureKind::NotFound, "the process is not running"))
}
