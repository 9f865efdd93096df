//! The commands of builds: containers that nobody can see, each of which lives as long as this engine at most.
//!
//! A command's container is made of the same parts as any other, with the default configuration: the same seccomp filter,
//! capabilities, networks and limits. It is never in the registry of containers. Its record says `--rm`, so that an engine
//! that opens after a crash removes it; its shim dies with the thread that waits for it here, and it with the shim.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind as IoErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dory_build::{
    Agents, Cancel, ExecuteError, NetworkMode, RunCommand, RunEnd, RunLimits, RunMount, RunMountSource,
    RunObserver, Stream,
};
use dory_log::{LogConfig, LogDriver};
use dory_runtime::LaunchError;
use dory_runtime::protocol::{self, Event, ExitRecord};
use dory_store::{Owner, Snapshot, StoreError};
use dory_types::{ContainerId, ContainerName, Digest, ImageId, Timestamp};

use super::launch::failure;
use super::name::random_bytes;
use super::object::Container;
use super::record::Record;
use super::state::ContainerState;
use crate::config::{ContainerConfig, HostConfig, NetworkingConfig, StrSlice, Ulimit};
use crate::engine::Inner;
use crate::mount::{Point, PointKind};
use crate::spec::namespace::Modes;
use crate::{EngineError, Result};

/// How often a wait for output looks whether the build is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of output that are read at once.
const BUFFER: usize = 32 << 10;
/// The header of a frame: stream, three zeros, length (API, "Stream format").
const HEADER: usize = 8;
const KILL: i32 = 9;
/// What processes of a build have for a host name, as with BuildKit.
const HOSTNAME: &str = "buildkitsandbox";

/// What is removed when a command has ended, however it ended.
struct Cleanup<'a> {
    inner: &'a Arc<Inner>,
    container: Arc<Container>,
}

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        self.inner.release_run(&self.container, true);
        self.container.live().removed = true;
        self.inner.ids.release(&self.container.record().user_namespace);
        if let Err(error) = self.inner.store.remove_snapshot(&self.container.id) {
            tracing::warn!(container.id = %self.container.id, %error, "Cannot remove a build command's files");
        }
    }
}

fn start_error(error: &EngineError) -> ExecuteError {
    ExecuteError::Start(error.message().to_owned())
}

impl Inner {
    /// Runs a build's command to its end, on this thread: the shim dies with it.
    pub(crate) fn run_for_build(
        self: &Arc<Self>,
        command: &RunCommand,
        observer: &dyn RunObserver,
        cancel: &Cancel,
    ) -> Result<RunEnd, ExecuteError> {
        let id = ContainerId::from_bytes(random_bytes());
        let (container, snapshot) =
            self.build_container(&id, command).map_err(|error| start_error(&error))?;
        let cleanup = Cleanup { inner: self, container };
        let container = &cleanup.container;
        let mut spec = self.prepare(container).map_err(|error| start_error(&error))?;
        spec.dies_with_parent = true;
        let points = self.build_points(container, command)?;
        let stubs = Stubs::find(&snapshot, command)?;
        spec.mounts
            .extend(points.iter().map(|point| crate::spec::of_point_for_build(point, &spec.namespaces.user)));
        spec.mounts.sort_by_key(|mount| mount.destination.matches('/').count());
        observer.running(id.as_str());
        let exit = self.run_and_wait(container, spec, observer, cancel)?;
        self.release_run(container, true);
        if cancel.is_cancelled() {
            return Err(ExecuteError::Cancelled);
        }
        stubs.remove();
        let mut end = RunEnd { exit_code: exit.exit_code, oom_killed: exit.oom_killed, layer: None };
        if exit.exit_code == 0 {
            let files = self.layered_files(container);
            let layer = files.and_then(|files| self.commit_layer(&files.no_later_than(command.latest)));
            end.layer = layer.map_err(|error| ExecuteError::Snapshot(error.message().to_owned()))?;
        }
        Ok(end)
    }

    fn build_container(
        self: &Arc<Self>,
        id: &ContainerId,
        command: &RunCommand,
    ) -> Result<(Arc<Container>, Snapshot)> {
        let (path, args) = match command.args.split_first() {
            Some((path, args)) => (path.clone(), args.to_vec()),
            None => return Err(EngineError::invalid("No command specified")),
        };
        let config = ContainerConfig {
            env: command.env.clone().into(),
            user: command.user.clone(),
            working_dir: command.directory.clone(),
            cmd: StrSlice(Some(command.args.clone())),
            hostname: HOSTNAME.to_owned(),
            ..ContainerConfig::default()
        };
        let mut host_config = host_config(command);
        super::validate::validate(&config, &mut host_config, self)?;
        self.fill_defaults(&config, &mut host_config)?;
        // Output is read as it comes, and kept nowhere.
        "none".clone_into(&mut host_config.log_config.kind);
        let modes = Modes::parse(&host_config)?;
        let endpoints = self.endpoint_wishes(&config, &host_config, &modes, NetworkingConfig::default())?;
        let user_namespace = self.allocate_user_namespace(&host_config, &modes, id)?;
        let (uid, gid) = user_namespace.root();
        let snapshot = self
            .store
            .create_build_snapshot(id, &command.layers, Owner { uid, gid })
            .map_err(|error: StoreError| crate::image::store_error(error));
        let snapshot = snapshot.inspect_err(|_| self.ids.release(&user_namespace))?;
        let name: ContainerName = format!("build-{}", id.short())
            .parse()
            .map_err(|error: dory_types::NameError| EngineError::internal(error.to_string()))?;
        let top = command.layers.last().map_or_else(|| Digest::of(b""), dory_store::LayerLease::diff_id);
        let record = Record {
            id: id.clone(),
            name,
            created: Timestamp::now(),
            image: ImageId::from(top),
            path,
            args,
            config: Arc::new(config),
            host_config: Arc::new(host_config),
            endpoints,
            state: ContainerState::default(),
            restart_count: 0,
            stopped_by_user: false,
            paused_for_commit: false,
            points: Vec::new(),
            user_namespace,
            log: LogConfig { driver: LogDriver::None, ..LogConfig::default() },
            guard_owner: None,
            run: None,
        };
        let container = Container::new(record, snapshot.directory.clone(), self.runtime_directory(id));
        Ok((Arc::new(container), snapshot))
    }

    fn run_and_wait(
        self: &Arc<Self>,
        container: &Arc<Container>,
        spec: dory_runtime::spec::ContainerSpec,
        observer: &dyn RunObserver,
        cancel: &Cancel,
    ) -> Result<ExitRecord, ExecuteError> {
        let launcher = self.launcher().map_err(|error| start_error(&error))?;
        let network = |namespace: BorrowedFd<'_>| self.connect_all(container, namespace);
        let mut attachment = None;
        let started = launcher
            .start(spec, network, || attachment = Some(container.shim().attach_early(false, true, true)))
            .map_err(|error: LaunchError<EngineError>| start_error(&failure(error).error))?;
        let lost = |error: &dyn std::error::Error| ExecuteError::Start(dory_types::with_causes(error));
        let mut shim = started.shim;
        let stream = match attachment {
            Some(attachment) => attachment.and_then(dory_runtime::client::EarlyAttachment::complete),
            None => return Err(ExecuteError::Start("the command's output was not attached".to_owned())),
        };
        let read = stream.map_err(|error| lost(&error)).and_then(|stream| {
            read_output(&stream, observer, || {
                if cancel.is_cancelled() {
                    // One that is gone already is as good as killed.
                    let _ = container.shim().signal(None, KILL);
                }
            })
            .map_err(|error| lost(&error))
        });
        if read.is_err() {
            let _ = container.shim().signal(None, KILL);
        }
        let exit = loop {
            match protocol::receive::<Event>(&started.monitor) {
                Ok((Event::Exited(exit), _)) => break Ok(exit),
                Ok(_) => {}
                Err(error) => break Err(lost(&error)),
            }
        };
        // It has nothing left to do but to end.
        if let Err(error) = shim.wait() {
            tracing::warn!(container.id = %container.id, %error, "Cannot wait for a shim");
        }
        read?;
        exit
    }

    /// The mounts of the command, with the files that some of them need.
    fn build_points(&self, container: &Container, command: &RunCommand) -> Result<Vec<Point>, ExecuteError> {
        let mut points = Vec::new();
        for (number, mount) in command.mounts.iter().enumerate() {
            let failed = |source: io::Error| ExecuteError::Mount { target: mount.target.clone(), source };
            let mut point = Point::new(PointKind::Bind, crate::mount::clean(&mount.target));
            point.writable = !mount.read_only;
            point.recursive = false;
            let place = container.runtime_directory.join(format!("mount-{number}"));
            match &mount.source {
                RunMountSource::Directory { path, subpath } => {
                    point.source = path.to_string_lossy().into_owned();
                    point.subpath.clone_from(subpath);
                }
                RunMountSource::Memory { size } => {
                    point.kind = PointKind::Tmpfs;
                    point.tmpfs = size.map(|size| format!("size={size}")).unwrap_or_default();
                }
                RunMountSource::Secret { content, mode, uid, gid } => {
                    write_secret(&place, content, *mode, *uid, *gid).map_err(failed)?;
                    point.source = place.to_string_lossy().into_owned();
                }
                RunMountSource::Agent { agents, id, mode, uid, gid } => {
                    let socket = place.join("agent");
                    serve_agent(&place, &socket, agents, id).map_err(failed)?;
                    std::fs::set_permissions(&socket, Permissions::from_mode(*mode))
                        .and_then(|()| chown(&socket, Some(*uid), Some(*gid)))
                        .map_err(failed)?;
                    point.source = socket.to_string_lossy().into_owned();
                }
            }
            points.push(point);
        }
        Ok(points)
    }
}

fn host_config(command: &RunCommand) -> HostConfig {
    let RunLimits {
        memory,
        memory_swap,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpuset_cpus,
        cpuset_mems,
        shm_size,
        ulimits,
        cgroup_parent,
        extra_hosts,
    } = command.limits.clone();
    let ulimits: Vec<Ulimit> = ulimits
        .into_iter()
        .map(|limit| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
        .collect();
    HostConfig {
        network_mode: match &command.network {
            NetworkMode::Default => String::new(),
            NetworkMode::None => "none".to_owned(),
            NetworkMode::Host => "host".to_owned(),
            NetworkMode::Named(name) => name.clone(),
        },
        auto_remove: true,
        privileged: command.insecure,
        memory,
        memory_swap,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpuset_cpus,
        cpuset_mems,
        shm_size,
        ulimits: ulimits.into(),
        cgroup_parent,
        extra_hosts: extra_hosts.into(),
        ..HostConfig::default()
    }
}

/// Reads the frames of a command's output to their end; `look` is called now and again.
fn read_output(stream: &UnixStream, observer: &dyn RunObserver, look: impl Fn()) -> io::Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    let mut header = [0; HEADER];
    let mut buffer = vec![0; BUFFER];
    while read_exactly(stream, &mut header, &look)? {
        let mut left = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let from = if header[0] == 2 { Stream::Stderr } else { Stream::Stdout };
        while left > 0 {
            let part = left.min(BUFFER);
            if !read_exactly(stream, &mut buffer[..part], &look)? {
                return Ok(());
            }
            observer.output(from, &buffer[..part]);
            left -= part;
        }
    }
    Ok(())
}

/// Fills `buffer`; false at the end.
fn read_exactly(mut stream: &UnixStream, buffer: &mut [u8], look: &impl Fn()) -> io::Result<bool> {
    let mut done = 0;
    while done < buffer.len() {
        match stream.read(&mut buffer[done..]) {
            Ok(0) => return Ok(false),
            Ok(length) => done += length,
            Err(error) => match error.kind() {
                IoErrorKind::WouldBlock | IoErrorKind::TimedOut => look(),
                IoErrorKind::Interrupted => {}
                IoErrorKind::ConnectionReset => return Ok(false),
                _ => return Err(error),
            },
        }
    }
    Ok(true)
}

/// A file in the exec-root, which is memory, that goes with the run.
fn write_secret(path: &Path, content: &[u8], mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    chown(path, Some(uid), Some(gid))?;
    file.set_permissions(Permissions::from_mode(mode))
}

/// Listens at `socket` for connections to an agent. The thread ends with the socket's file: it looks for it.
fn serve_agent(directory: &Path, socket: &Path, agents: &Arc<dyn Agents>, id: &str) -> io::Result<()> {
    DirBuilder::new().mode(0o711).create(directory)?;
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    let (agents, id, socket) = (Arc::clone(agents), id.to_owned(), socket.to_owned());
    std::thread::Builder::new().name("ssh-agent".to_owned()).spawn(move || {
        while socket.exists() {
            match listener.accept() {
                Ok((client, _)) => {
                    let connected = client.set_nonblocking(false).and_then(|()| agents.connect(&id));
                    match connected.and_then(|agent| relay(client, agent)) {
                        Ok(()) => {}
                        Err(error) => {
                            tracing::warn!(%error, "Cannot connect a build command to its SSH agent")
                        }
                    }
                }
                Err(_) => std::thread::sleep(LOOK / 4),
            }
        }
    })?;
    Ok(())
}

/// Copies both ways, on two threads, until each side has ended.
fn relay(client: UnixStream, agent: UnixStream) -> io::Result<()> {
    for (mut from, mut to) in [(client.try_clone()?, agent.try_clone()?), (agent, client)] {
        std::thread::Builder::new().name("ssh-agent".to_owned()).spawn(move || {
            // Whoever hangs up ends the conversation.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })?;
    }
    Ok(())
}

/// The places of mounts that the image does not have: the runtime makes them, and they are no part of the result.
struct Stubs {
    upper: PathBuf,
    /// From the root, the deepest first.
    paths: Vec<PathBuf>,
}

impl Stubs {
    fn find(snapshot: &Snapshot, command: &RunCommand) -> Result<Self, ExecuteError> {
        let failed = |error: dory_store::FileError| ExecuteError::Snapshot(dory_types::with_causes(&error));
        let view = dory_store::View::of_layers(&snapshot.layers).map_err(failed)?;
        let mut paths = Vec::new();
        for RunMount { target, .. } in &command.mounts {
            let resolved = view.resolve(target.as_bytes(), true).map_err(failed)?;
            for end in (1..=resolved.len()).rev() {
                if view.at(&resolved[..end]).map_err(failed)?.is_some() {
                    break;
                }
                let path: PathBuf = resolved[..end]
                    .iter()
                    .map(|name| std::os::unix::ffi::OsStrExt::from_bytes(name.as_slice()))
                    .collect::<Vec<&std::ffi::OsStr>>()
                    .iter()
                    .collect();
                paths.push(path);
            }
        }
        paths.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        Ok(Self { upper: snapshot.upper.clone(), paths })
    }

    /// Removes what is still empty; a path that a link leads out of is none of ours.
    fn remove(&self) {
        use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, statat, unlinkat};
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(upper) = rustix::fs::open(&self.upper, flags, Mode::empty()) else { return };
        for path in &self.paths {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let Ok(parent) = openat2(&upper, parent, flags, Mode::empty(), resolve) else { continue };
            let is_empty_file = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
                stat.st_size == 0
                    && rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
            });
            let how = if is_empty_file { AtFlags::empty() } else { AtFlags::REMOVEDIR };
            // What is not empty belongs to the command.
            let _ = unlinkat(&parent, name, how);
        }
    }
}
