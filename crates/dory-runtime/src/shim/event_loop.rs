//! The shim's life after the start: one epoll loop over the process, its streams, its clients and the engine.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dory_log::{HEADER_LENGTH, Stream, Timestamp};
use dory_sys::fault_point;
use rustix::event::Timespec;
use rustix::event::epoll::EventFlags;

use crate::protocol::{self, EXIT_RECORD_NAME, Event, ExitRecord};
use crate::spec::Namespace;

use super::log_state::LogState;
use super::process::{CHUNK, Client, Read, RunningProcess, read_output};
use super::registry::{Registry, Source};
use super::start::Container;

/// The container's own process among [`Shim::processes`].
pub const MAIN: u64 = 0;
/// How long a client may take no byte of what is left for it after the end, before it is dropped.
const PATIENCE: Duration = Duration::from_secs(60);
/// As [`dory_sys::process::pidfd_signal`] takes it.
const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();
/// An engine that does not read its events for so long has died or hangs.
const ENGINE_PATIENCE: Duration = Duration::from_secs(1);

/// All that the loop works on.
pub struct Shim {
    pub container: Container,
    pub processes: BTreeMap<u64, RunningProcess>,
    pub clients: BTreeMap<u64, Client>,
    pub monitors: BTreeMap<u64, UnixStream>,
    log_state: LogState,
    registry: Registry,
    /// Keys of processes, clients and monitors; the container's own process has the first, [`MAIN`].
    next_key: u64,
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
            log_state: LogState::default(),
            registry: Registry::new()?,
            next_key: MAIN,
            buffer: vec![0; HEADER_LENGTH + CHUNK],
            finished: false,
        };
        shim.registry.watch(shim.container.listener.as_fd(), Source::Listener, EventFlags::IN)?;
        shim.add_process(RunningProcess::new(None, child, streams, stdin_once))?;
        shim.add_monitor(launch)?;
        Ok(shim)
    }

    fn run(&mut self) {
        // Clients that came before the program ran are served before its first output is read.
        self.accept();
        while !(self.finished && self.clients.is_empty()) {
            if let Err(error) = self.turn() {
                eprintln!("dory shim: {error}");
                return;
            }
        }
    }

    /// Waits once and handles what there is.
    fn turn(&mut self) -> io::Result<()> {
        let timeout = self.timeout();
        let events = self.registry.wait(timeout.as_ref())?;
        if events.is_empty() && self.container.log.has_work() && !self.finished {
            self.container.log.work();
        } else if events.is_empty() && self.finished {
            // The rest of their backlog has waited long enough.
            self.clients.clear();
        }
        for (source, flags) in events {
            // An earlier event of this round may have taken it out.
            if self.registry.is_watched(source) {
                self.handle(source, flags);
            }
        }
        self.complete_processes();
        Ok(())
    }

    fn timeout(&self) -> Option<Timespec> {
        let now = Instant::now();
        let nearest = self.processes.values().filter_map(|process| process.deadline).min();
        let wait = nearest.map(|deadline| deadline.saturating_duration_since(now));
        let wait = match self.finished {
            true => Some(wait.unwrap_or(PATIENCE)),
            // Whoever has something to do in quiet moments only looks whether this is one.
            false if self.container.log.has_work() => Some(Duration::ZERO),
            false => wait,
        };
        wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) })
    }

    fn handle(&mut self, source: Source, flags: EventFlags) {
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
                if let Some(stream) = self.monitors.remove(&monitor) {
                    self.registry.unwatch(stream.as_fd(), source);
                }
            }
            Source::Recorder => self.serve_recorder(flags),
        }
    }

    fn accept(&mut self) {
        // The engine's connections only: the socket lies in a directory of root's.
        while let Ok((stream, _)) = self.container.listener.accept() {
            self.serve(stream);
        }
    }

    /// Registers a process, its end and its streams; its key.
    pub fn add_process(&mut self, process: RunningProcess) -> io::Result<u64> {
        let key = self.next_key;
        self.next_key += 1;
        self.registry.watch(process.child.pidfd.as_fd(), Source::Ended(key), EventFlags::IN)?;
        for (stream, descriptor) in
            [(Stream::Stdout, &process.streams.stdout), (Stream::Stderr, &process.streams.stderr)]
        {
            if let Some(descriptor) = descriptor {
                self.registry.watch(descriptor.as_fd(), Source::Output(key, stream), EventFlags::IN)?;
            }
        }
        self.processes.insert(key, process);
        Ok(key)
    }

    /// Registers an attached client.
    pub fn add_client(&mut self, client: Client) -> io::Result<()> {
        let key = self.next_key;
        self.next_key += 1;
        self.registry.watch(client.stream.as_fd(), Source::Client(key), EventFlags::IN)?;
        self.clients.insert(key, client);
        Ok(())
    }

    /// Registers an engine that wants events.
    pub fn add_monitor(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(ENGINE_PATIENCE))?;
        let key = self.next_key;
        self.next_key += 1;
        self.registry.watch(stream.as_fd(), Source::Monitor(key), EventFlags::IN)?;
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
                self.registry.unwatch(output.as_fd(), Source::Output(key, stream));
                *place = None;
                return false;
            }
        };
        let header = dory_log::header(stream, count as u32);
        self.buffer[..HEADER_LENGTH].copy_from_slice(&header);
        let framed = &self.buffer[..HEADER_LENGTH + count];
        let bytes = &framed[HEADER_LENGTH..];
        if key == MAIN {
            let outcome = self.container.log.write(stream, bytes, Timestamp::now());
            self.log_state.note(outcome, &mut self.monitors);
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
        self.watch_recorder();
        true
    }

    /// Watches the log's recorder, where there is one.
    fn watch_recorder(&mut self) {
        if let Some((socket, waits)) = self.container.log.socket() {
            let flags = if waits { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let _no_memory = self.registry.watch(socket, Source::Recorder, flags);
        }
    }

    fn unwatch_recorder(&mut self) {
        if let Some((socket, _)) = self.container.log.socket() {
            self.registry.unwatch(socket, Source::Recorder);
        }
    }

    fn serve_recorder(&mut self, flags: EventFlags) {
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            match self.container.log.hear() {
                Ok(event) => tell(&mut self.monitors, &event),
                Err(gone) => {
                    self.unwatch_recorder();
                    self.container.log.forget_recorder();
                    self.log_state.note(Err(gone), &mut self.monitors);
                    return;
                }
            }
        }
        let outcome = self.container.log.send();
        self.log_state.note(outcome, &mut self.monitors);
        self.watch_recorder();
    }

    /// Writes on what clients sent to a process; when it took all, they may send more.
    fn pump_input(&mut self, key: u64) {
        if self.write_input(key) {
            return;
        }
        let waiting: Vec<u64> =
            self.clients.iter().filter(|(_, client)| client.process == key).map(|(key, _)| *key).collect();
        for client in waiting {
            self.read_client(client);
            self.update_client(client);
        }
    }

    /// Gives a process its input and watches for room where it does not take all; true while something is left.
    fn write_input(&mut self, key: u64) -> bool {
        let Some(process) = self.processes.get_mut(&key) else { return false };
        let source = Source::Input(key);
        let left = process.write_input();
        if let Some(stdin) = &process.streams.stdin {
            if left {
                let _no_memory = self.registry.watch(stdin.as_fd(), source, EventFlags::OUT);
            } else {
                self.registry.unwatch(stdin.as_fd(), source);
            }
        }
        if !left && process.input_is_over() {
            process.streams.stdin = None;
        }
        left
    }

    fn handle_client(&mut self, key: u64, flags: EventFlags) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        if flags.contains(EventFlags::OUT) && client.flush().is_err() {
            self.drop_client(key);
            return;
        }
        // A hang-up, unlike the mere end of what it sends, means that nobody reads there any more.
        client.gone |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
        self.read_client(key);
        self.update_client(key);
    }

    /// Takes what a client sent, as far as its process takes it.
    fn read_client(&mut self, key: u64) {
        loop {
            let Some(client) = self.clients.get_mut(&key) else { return };
            let process = self.processes.get_mut(&client.process);
            let Some(process) = process.filter(|process| process.pending_input.is_empty()) else { return };
            if client.input_over {
                return;
            }
            match client.read(&mut self.buffer) {
                Read::Nothing => return,
                Read::Bytes(count) => {
                    if client.stdin {
                        process.pending_input.extend_from_slice(&self.buffer[..count]);
                    }
                }
                Read::End => {
                    client.input_over = true;
                    if client.stdin {
                        let closes = process.stdin_once && !process.terminal;
                        process.input_ended |= process.stdin_once;
                        // As dockerd has it: where its end does not close standard input, it detaches the client.
                        client.ending |= !closes;
                    }
                }
            }
            let process = client.process;
            self.write_input(process);
        }
    }

    /// Settles what a client is watched for, or that it is done with.
    fn update_client(&mut self, key: u64) {
        let Some(client) = self.clients.get(&key) else { return };
        let process = self.processes.get(&client.process);
        let blocked = process.is_some_and(|process| !process.pending_input.is_empty());
        let source = Source::Client(key);
        if client.gone && (client.input_over || process.is_none())
            || client.ending && client.backlog.is_empty()
        {
            self.drop_client(key);
            return;
        }
        if client.gone {
            // Its last input waits for the process; a hang-up would be reported over and over meanwhile.
            self.registry.unwatch(client.stream.as_fd(), source);
            return;
        }
        let mut flags = EventFlags::empty();
        if !client.input_over && !blocked && process.is_some() {
            flags |= EventFlags::IN;
        }
        if !client.backlog.is_empty() {
            flags |= EventFlags::OUT;
        }
        let _no_memory = self.registry.watch(client.stream.as_fd(), source, flags);
    }

    fn drop_client(&mut self, key: u64) {
        let Some(client) = self.clients.remove(&key) else { return };
        self.registry.unwatch(client.stream.as_fd(), Source::Client(key));
        if let Some(process) = self.processes.get(&client.process)
            && process.ends_with_client
        {
            // Where it has ended by itself it is reported in its own time.
            let _ended = dory_sys::process::pidfd_signal(process.child.pidfd.as_fd(), SIGKILL);
        }
    }

    fn end_process(&mut self, key: u64) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        process.reap();
        if process.exit_code.is_none() {
            return;
        }
        self.registry.unwatch(process.child.pidfd.as_fd(), Source::Ended(key));
        if let Some(stdin) = process.streams.stdin.take() {
            self.registry.unwatch(stdin.as_fd(), Source::Input(key));
        }
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
        let mut ended: Vec<u64> = self
            .processes
            .iter()
            .filter(|(_, process)| process.exit_code.is_some())
            .map(|(key, _)| *key)
            .collect();
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
        for (stream, descriptor) in
            [(Stream::Stdout, &process.streams.stdout), (Stream::Stderr, &process.streams.stderr)]
        {
            if let Some(descriptor) = descriptor {
                self.registry.unwatch(descriptor.as_fd(), Source::Output(key, stream));
            }
        }
        let exit_code = process.exit_code.unwrap_or(255);
        let event = match process.exec {
            Some(exec) => Event::ExecExited { exec, exit_code },
            None => Event::Exited(self.finish(exit_code)),
        };
        fault_point!("shim.before-end-told");
        // Before the clients' streams end: a client asks for the exit code as soon as its stream has.
        tell(&mut self.monitors, &event);
        fault_point!("shim.end-told");
        let attached: Vec<u64> =
            self.clients.iter().filter(|(_, client)| client.process == key).map(|(key, _)| *key).collect();
        for client_key in attached {
            let Some(client) = self.clients.get_mut(&client_key) else { continue };
            client.ending = true;
            client.stdin = false;
            if client.backlog.is_empty() {
                self.drop_client(client_key)
            } else {
                self.update_client(client_key)
            }
        }
    }

    /// Completes the log and writes the exit record, before anybody is told.
    fn finish(&mut self, exit_code: i32) -> ExitRecord {
        fault_point!("shim.main-ended");
        self.finished = true;
        let now = SystemTime::now();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let outcome = self.container.log.close(stream, Timestamp::now());
            self.log_state.note(outcome, &mut self.monitors);
        }
        self.unwatch_recorder();
        let monitors = &mut self.monitors;
        let outcome = self.container.log.finish(&mut |event| tell(monitors, &event));
        self.log_state.note(outcome, &mut self.monitors);
        let oom_killed = self.container.spec.cgroup.as_ref().is_some_and(|group| group.oom_kills() > 0);
        let nanoseconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let record = ExitRecord { exit_code, oom_killed, finished_at: nanoseconds };
        if let Err(error) = write_exit_record(&self.container.directory, &record) {
            eprintln!("dory shim: cannot keep the exit status: {error}");
        }
        record
    }
}

/// Tells every engine that watches.
fn tell(monitors: &mut BTreeMap<u64, UnixStream>, event: &Event) {
    monitors.retain(|_, monitor| protocol::send(monitor, event, &[]).is_ok());
}

/// A rename replaces it whole; no fsync: a power cut loses at most the last second of container state (trust.md).
fn write_exit_record(directory: &OwnedFd, record: &ExitRecord) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, openat, renameat};
    let temporary = ".exit.json.new";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = std::fs::File::from(openat(directory, temporary, flags, Mode::from_raw_mode(0o600))?);
    io::Write::write_all(&mut file, &serde_json::to_vec(record)?)?;
    fault_point!("shim.exit-written");
    Ok(renameat(directory, temporary, directory, EXIT_RECORD_NAME)?)
}
