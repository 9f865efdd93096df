//! The shim's life after the start: one epoll loop over the process, its streams, its clients and the engine.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dory_log::{HEADER_LENGTH, Stream, Timestamp};
use rustix::event::{Timespec, epoll};

use crate::protocol::{self, EXIT_RECORD_NAME, Event, ExitRecord};
use crate::spec::Namespace;

use super::process::{CHUNK, Client, Read, RunningProcess, read_output};
use super::start::Container;

/// The container's own process among [`Shim::processes`].
pub const MAIN: u64 = 0;
/// How long a client may take no byte of what is left for it after the end, before it is dropped.
const PATIENCE: Duration = Duration::from_secs(60);
/// An engine that does not read its events for so long has died or hangs.
const ENGINE_PATIENCE: Duration = Duration::from_secs(1);

/// What an epoll event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Listener,
    Ended(u64),
    Output(u64, Stream),
    Input(u64),
    Client(u64),
    Monitor(u64),
}

/// All that the loop works on.
pub struct Shim {
    pub container: Container,
    pub processes: BTreeMap<u64, RunningProcess>,
    pub clients: BTreeMap<u64, Client>,
    pub monitors: BTreeMap<u64, UnixStream>,
    epoll: OwnedFd,
    sources: BTreeMap<u64, Source>,
    /// Keys of processes, clients and monitors; the container's own process has the first, [`MAIN`].
    next_key: u64,
    next_token: u64,
    buffer: Vec<u8>,
    finished: bool,
}

/// Runs until the container has ended and everybody has been told.
pub fn run(container: Container, launch: UnixStream) {
    match Shim::new(container, launch) {
        Ok(mut shim) => shim.run(),
        // Without an epoll set there is no supervising: the container dies with us (pdeathsig), and the engine says so.
        Err(error) => eprintln!("dory shim: cannot supervise: {error}"),
    }
}

impl Shim {
    fn new(mut container: Container, launch: UnixStream) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let child = dory_sys::process::ChildProcess {
            pid: container.child.pid,
            pidfd: container.child.pidfd.try_clone()?,
        };
        let streams = std::mem::take(&mut container.streams);
        let stdin_once = container.spec.stdio.stdin_once;
        let mut shim = Self {
            container,
            processes: BTreeMap::new(),
            clients: BTreeMap::new(),
            monitors: BTreeMap::new(),
            epoll,
            sources: BTreeMap::new(),
            next_key: MAIN,
            next_token: 0,
            buffer: vec![0; HEADER_LENGTH + CHUNK],
            finished: false,
        };
        let listener = shim.container.listener.try_clone()?;
        shim.watch(listener.as_fd(), Source::Listener, epoll::EventFlags::IN)?;
        shim.add_process(RunningProcess::new(None, child, streams, stdin_once))?;
        shim.add_monitor(launch)?;
        Ok(shim)
    }

    fn run(&mut self) {
        while !(self.finished && self.clients.is_empty()) {
            if let Err(error) = self.turn() {
                eprintln!("dory shim: {error}");
                return;
            }
        }
    }

    /// Waits once and handles what there is.
    fn turn(&mut self) -> io::Result<()> {
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); 64];
        let timeout = self.timeout();
        let events: Vec<(u64, epoll::EventFlags)> = match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
            Ok((events, _)) => events.iter().map(|event| (event.data.u64(), event.flags)).collect(),
            Err(rustix::io::Errno::INTR) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        if events.is_empty() && self.finished {
            // The rest of their backlog has waited long enough.
            self.clients.clear();
        }
        for (token, flags) in events {
            // An earlier event of this round may have removed it.
            let Some(source) = self.sources.get(&token).copied() else { continue };
            self.handle(source, flags);
        }
        self.complete_processes();
        Ok(())
    }

    fn timeout(&self) -> Option<Timespec> {
        let now = Instant::now();
        let nearest = self.processes.values().filter_map(|process| process.deadline).min();
        let wait = nearest.map(|deadline| deadline.saturating_duration_since(now));
        let wait = if self.finished { Some(wait.unwrap_or(PATIENCE)) } else { wait };
        wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) })
    }

    fn handle(&mut self, source: Source, flags: epoll::EventFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Ended(process) => self.end_process(process),
            Source::Output(process, stream) => {
                self.pump_output(process, stream);
            }
            Source::Input(process) => self.pump_input(process),
            Source::Client(client) => self.handle_client(client, flags),
            Source::Monitor(monitor) => {
                // The engine says nothing on it; whatever comes is its end.
                self.monitors.remove(&monitor);
                self.forget(Source::Monitor(monitor));
            }
        }
    }

    fn accept(&mut self) {
        // The engine's connections only: the socket lies in a directory of root's.
        if let Ok((stream, _)) = self.container.listener.accept() {
            self.serve(stream);
        }
    }

    /// Registers a process, its end and its streams; its key.
    pub fn add_process(&mut self, process: RunningProcess) -> io::Result<u64> {
        let key = self.next_key;
        self.next_key += 1;
        let readable = epoll::EventFlags::IN;
        let descriptors: Vec<(Source, OwnedFd)> = [
            (Source::Ended(key), Some(&process.child.pidfd)),
            (Source::Output(key, Stream::Stdout), process.streams.stdout.as_ref()),
            (Source::Output(key, Stream::Stderr), process.streams.stderr.as_ref()),
        ]
        .into_iter()
        .filter_map(|(source, descriptor)| Some((source, descriptor?.try_clone())))
        .map(|(source, descriptor)| Ok((source, descriptor?)))
        .collect::<io::Result<_>>()?;
        for (source, descriptor) in descriptors {
            self.watch(descriptor.as_fd(), source, readable)?;
        }
        self.processes.insert(key, process);
        Ok(key)
    }

    /// Registers an attached client.
    pub fn add_client(&mut self, client: Client) -> io::Result<()> {
        let key = self.next_key;
        self.next_key += 1;
        let stream = client.stream.try_clone()?;
        self.clients.insert(key, client);
        self.watch(stream.as_fd(), Source::Client(key), epoll::EventFlags::IN)
    }

    /// Registers an engine that wants events.
    pub fn add_monitor(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(ENGINE_PATIENCE))?;
        let key = self.next_key;
        self.next_key += 1;
        self.watch(stream.as_fd(), Source::Monitor(key), epoll::EventFlags::IN)?;
        self.monitors.insert(key, stream);
        Ok(())
    }

    /// Reads once from a process and hands it to the log and to every client; false where there was nothing.
    fn pump_output(&mut self, key: u64, stream: Stream) -> bool {
        let Some(process) = self.processes.get_mut(&key) else { return false };
        let terminal = process.terminal;
        let place = process.output(stream);
        let Some(output) = place else { return false };
        let count = match read_output(output.as_fd(), &mut self.buffer[HEADER_LENGTH..]) {
            Read::Bytes(count) => count,
            Read::Nothing => return false,
            Read::End => {
                *place = None;
                self.forget(Source::Output(key, stream));
                return false;
            }
        };
        let header = dory_log::header(stream, count as u32);
        self.buffer[..HEADER_LENGTH].copy_from_slice(&header);
        let framed = &self.buffer[..HEADER_LENGTH + count];
        let bytes = &framed[HEADER_LENGTH..];
        if key == MAIN {
            // A full disk must not stop the container; what it cannot keep is lost to the log, not to the clients.
            let _full = self.container.log.write(stream, bytes, Timestamp::now());
        }
        let mut gone = Vec::new();
        let mut slow = Vec::new();
        for (client_key, client) in &mut self.clients {
            if client.process != key || !client.wants(stream) {
                continue;
            }
            let sent = client.send(if terminal { bytes } else { framed }, &self.container.directory);
            match sent {
                Ok(()) if client.backlog.is_empty() => {}
                Ok(()) => slow.push(*client_key),
                Err(_) => gone.push(*client_key),
            }
        }
        slow.into_iter().for_each(|client| self.update_client(client));
        gone.into_iter().for_each(|client| self.drop_client(client));
        true
    }

    /// Writes on what clients sent to a process; when it took all, they may send more.
    fn pump_input(&mut self, key: u64) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        if process.write_input() {
            return;
        }
        self.forget(Source::Input(key));
        let waiting: Vec<u64> =
            self.clients.iter().filter(|(_, client)| client.process == key).map(|(key, _)| *key).collect();
        waiting.into_iter().for_each(|client| self.update_client(client));
    }

    fn handle_client(&mut self, key: u64, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) {
            let Some(client) = self.clients.get_mut(&key) else { return };
            if client.flush().is_err() || (client.ending && client.backlog.is_empty()) {
                self.drop_client(key);
                return;
            }
            self.update_client(key);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            self.read_client(key);
        }
    }

    fn read_client(&mut self, key: u64) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let Some(process) = self.processes.get_mut(&client.process) else {
            // The process is gone, only its last output is awaited; a client that leaves is dropped by the flush.
            if matches!(client.read(&mut self.buffer), Read::End) && client.backlog.is_empty() {
                self.drop_client(key);
            }
            return;
        };
        match client.read(&mut self.buffer) {
            Read::Nothing => {}
            Read::Bytes(count) if client.stdin => {
                process.pending_input.extend_from_slice(&self.buffer[..count]);
                self.start_input(key);
            }
            Read::Bytes(_) => {}
            Read::End if client.stdin => {
                client.stdin = false;
                if process.stdin_once {
                    process.input_ended = true;
                }
                self.start_input(key);
            }
            // Not attached to standard input: reading its end means that it left.
            Read::End => self.drop_client(key),
        }
    }

    /// Writes input; where the process does not take it all, the client waits.
    fn start_input(&mut self, client: u64) {
        let Some(key) = self.clients.get(&client).map(|client| client.process) else { return };
        if let Some(process) = self.processes.get_mut(&key) {
            if process.write_input() {
                let stdin = process.streams.stdin.as_ref().and_then(|stdin| stdin.try_clone().ok());
                if let Some(stdin) = stdin {
                    // Registered already if a second client writes: that is as good.
                    let _registered = self.watch(stdin.as_fd(), Source::Input(key), epoll::EventFlags::OUT);
                }
            }
        }
        self.update_client(client);
    }

    /// What a client is watched for depends on what it may send and what it has yet to take.
    fn update_client(&mut self, key: u64) {
        let Some(client) = self.clients.get(&key) else { return };
        let mut flags = epoll::EventFlags::empty();
        let blocked =
            self.processes.get(&client.process).is_some_and(|process| !process.pending_input.is_empty());
        if client.stdin && !blocked {
            flags |= epoll::EventFlags::IN;
        }
        if !client.backlog.is_empty() || client.ending {
            flags |= epoll::EventFlags::OUT;
        }
        if let Some(token) = self.token(Source::Client(key)) {
            let data = epoll::EventData::new_u64(token);
            let _gone = epoll::modify(&self.epoll, &client.stream, data, flags);
        }
    }

    fn drop_client(&mut self, key: u64) {
        self.clients.remove(&key);
        self.forget(Source::Client(key));
    }

    fn end_process(&mut self, key: u64) {
        if let Some(process) = self.processes.get_mut(&key) {
            process.reap();
            if process.exit_code.is_none() {
                return;
            }
        }
        self.forget(Source::Ended(key));
        if key == MAIN && self.container.spec.namespaces.pid != Namespace::New {
            // A pid namespace of its own takes everybody along; without one the cgroup knows who is left.
            if let Some(group) = &self.container.spec.cgroup {
                let _empty = group.kill_all();
            }
        }
    }

    /// Reports every process that ended and whose output is complete.
    fn complete_processes(&mut self) {
        let now = Instant::now();
        let mut ended: Vec<u64> =
            self.processes.iter().filter(|(_, process)| process.exit_code.is_some()).map(|(key, _)| *key).collect();
        // Execs first: they end before their container does.
        ended.reverse();
        for key in ended {
            while self.pump_output(key, Stream::Stdout) || self.pump_output(key, Stream::Stderr) {}
            if self.processes.get(&key).is_some_and(|process| process.is_complete(now)) {
                self.report(key);
            }
        }
    }

    fn report(&mut self, key: u64) {
        let Some(process) = self.processes.remove(&key) else { return };
        self.forget(Source::Output(key, Stream::Stdout));
        self.forget(Source::Output(key, Stream::Stderr));
        self.forget(Source::Input(key));
        let exit_code = process.exit_code.unwrap_or(255);
        let event = match process.exec {
            Some(exec) => Event::ExecExited { exec, exit_code },
            None => Event::Exited(self.finish(exit_code)),
        };
        // Before the clients' streams end: a client asks for the exit code as soon as its stream has.
        self.monitors.retain(|_, monitor| protocol::send(monitor, &event, &[]).is_ok());
        let attached: Vec<u64> =
            self.clients.iter().filter(|(_, client)| client.process == key).map(|(key, _)| *key).collect();
        for client_key in attached {
            let Some(client) = self.clients.get_mut(&client_key) else { continue };
            client.ending = true;
            client.stdin = false;
            if client.backlog.is_empty() { self.drop_client(client_key) } else { self.update_client(client_key) }
        }
    }

    /// Completes the log and writes the exit record, before anybody is told.
    fn finish(&mut self, exit_code: i32) -> ExitRecord {
        self.finished = true;
        let now = SystemTime::now();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let _full = self.container.log.close(stream, Timestamp::now());
        }
        let oom_killed = self.container.spec.cgroup.as_ref().is_some_and(|group| group.oom_kills() > 0);
        let nanoseconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let record = ExitRecord { exit_code, oom_killed, finished_at: nanoseconds };
        if let Err(error) = write_exit_record(&self.container.directory, &record) {
            eprintln!("dory shim: cannot keep the exit status: {error}");
        }
        record
    }

    fn watch(&mut self, descriptor: BorrowedFd<'_>, source: Source, flags: epoll::EventFlags) -> io::Result<()> {
        let token = self.next_token;
        self.next_token += 1;
        epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(token), flags)?;
        self.sources.insert(token, source);
        Ok(())
    }

    fn token(&self, source: Source) -> Option<u64> {
        self.sources.iter().find(|(_, known)| **known == source).map(|(token, _)| *token)
    }

    fn forget(&mut self, source: Source) {
        if let Some(token) = self.token(source) {
            self.sources.remove(&token);
        }
    }
}

/// A rename replaces it whole; no fsync: a power cut loses at most the last second of container state (trust.md).
fn write_exit_record(directory: &OwnedFd, record: &ExitRecord) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, openat, renameat};
    let temporary = ".exit.json.new";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = std::fs::File::from(openat(directory, temporary, flags, Mode::from_raw_mode(0o600))?);
    io::Write::write_all(&mut file, &serde_json::to_vec(record)?)?;
    Ok(renameat(directory, temporary, directory, EXIT_RECORD_NAME)?)
}
