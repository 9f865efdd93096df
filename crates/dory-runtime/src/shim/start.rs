//! Leads one container from its spec to a running program; `trust.md` "Order, because the kernel cares".

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use dory_cgroup::{Entrance, Group};
use dory_sys::fault_point;
use dory_sys::mount::{MountAttributes, set_attributes};
use dory_sys::process::{self, ChildProcess, CloneOptions, clone_process};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::error::{FailureKind, StartFailure};
use crate::filesystem::{clone_beneath, clone_path, set_flags};
use crate::init::{self, Arrival, FromInit, NamespaceSet, ToInit};
use crate::protocol::{self, Launch, Progress, SOCKET_NAME};
use crate::spec::{ContainerSpec, IdMapping, Mount, MountFlags, MountSource, Namespace, UserNamespace};

use super::container_log::ContainerLog;
use super::guard;
use super::lock::lock_flags;
use super::rootfs::mount_rootfs;
use super::stdio::{ShimStreams, make_streams, terminal_streams};
use super::unmask::unmask;
use crate::init::namespaces::join_shared;

/// Descriptors in one message to init; the kernel takes 253.
const CHUNK: usize = 200;

/// A container whose program runs.
#[derive(Debug)]
pub struct Container {
    /// What it was made of.
    pub spec: ContainerSpec,
    /// Its first process.
    pub child: ChildProcess,
    /// The shim's ends of its streams.
    pub streams: ShimStreams,
    /// Its log.
    pub log: ContainerLog,
    /// Its namespaces.
    pub namespaces: NamespaceSet,
    /// Its root directory (`O_PATH`).
    pub root: OwnedFd,
    /// Its directory in the data-root.
    pub directory: OwnedFd,
    /// Where the engine connects.
    pub listener: UnixListener,
    /// The container's own API socket; held for engines, never used.
    pub guard: Option<UnixListener>,
    /// Sockets of published ports and the like; held, never used.
    pub held: Vec<OwnedFd>,
    /// What the surroundings refused.
    pub facts: Vec<String>,
}

/// What init reported when the file tree stood.
struct Ready {
    root: OwnedFd,
    namespaces: NamespaceSet,
    terminal: Option<OwnedFd>,
    facts: Vec<String>,
}

/// Runs the start protocol with the engine at the other end of `engine`.
pub fn start(engine: &UnixStream) -> Result<Container, StartFailure> {
    let refused = |what: &'static str| move |error: io::Error| StartFailure::refused(what, error);
    let spec = match protocol::receive(engine).map_err(refused("no spec arrived"))? {
        (Launch::Prepare(spec), _) => *spec,
        (other, _) => return Err(StartFailure::refused("unexpected message", format!("{other:?}"))),
    };
    fault_point!("shim.spec-received");
    if spec.dies_with_parent {
        // One that died before this closes the connection, which is seen before anything runs.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(|errno| StartFailure::refused("cannot tie the shim to its engine", errno))?;
    }
    let directory =
        open_directory(&spec.directory).map_err(refused("cannot open the container's directory"))?;
    let listener = listen(&spec.runtime_directory).map_err(refused("cannot listen"))?;
    let log = ContainerLog::open(directory.as_fd(), &spec.log).map_err(refused("cannot open the log"))?;
    let guard = spec.guarded_socket.then(|| guard::listen(&spec.runtime_directory)).transpose();
    let guard = guard.map_err(refused("cannot listen on the container's own API socket"))?;
    fault_point!("shim.listening");
    let binds = clone_binds(&spec.mounts)?;
    let (streams, init_streams) = make_streams(&spec.stdio, true, spec.namespaces.user.root())
        .map_err(refused("cannot make the standard streams"))?;
    if spec.namespaces.user.is_new() {
        unmask().map_err(refused("cannot take the masks off /proc"))?;
    }
    join_shared(&spec.namespaces)?;
    let (channel, init_channel) = UnixStream::pair().map_err(refused("cannot make a channel"))?;
    let reaper = reaper(&spec).map_err(refused("cannot find the reaper"))?;
    let entrance = spec.cgroup.as_ref().map(Group::entrance).transpose();
    let entrance = entrance.map_err(|error| StartFailure::refused("cannot join the cgroup", error))?;
    fault_point!("shim.before-clone");
    let options =
        CloneOptions { flags: clone_flags(&spec), cgroup: entrance.as_ref().and_then(Entrance::v2) };
    let own = own_pidfd().map_err(refused("cannot open a descriptor of the shim"))?;
    let arrival = Arrival { streams: init_streams, entrance: entrance.as_ref(), reaper, shim: &own };
    let child = clone_process(options, || init::run(&spec, &init_channel, arrival))
        .map_err(refused("cannot clone the container's process"))?;
    drop(init_channel);
    fault_point!("shim.cloned");
    match lead(engine, &channel, &spec, &child, binds) {
        Ok((ready, held)) => {
            let streams = match ready.terminal {
                Some(master) => {
                    terminal_streams(master, &spec.stdio).map_err(refused("cannot use the terminal"))?
                }
                None => streams,
            };
            let Ready { root, namespaces, facts, .. } = ready;
            Ok(Container {
                spec,
                child,
                streams,
                log,
                namespaces,
                root,
                directory,
                listener,
                guard,
                held,
                facts,
            })
        }
        Err(failure) => {
            end(&child);
            Err(failure)
        }
    }
}

/// From the cloned process to the executed program.
fn lead(
    engine: &UnixStream,
    channel: &UnixStream,
    spec: &ContainerSpec,
    child: &ChildProcess,
    binds: Vec<OwnedFd>,
) -> Result<(Ready, Vec<OwnedFd>), StartFailure> {
    let refused = |what: &'static str| move |error: io::Error| StartFailure::refused(what, error);
    let pid = child.pid.as_raw_nonzero().get();
    let (user, network) = receive_namespaces(channel)?;
    fault_point!("shim.namespaces-received");
    write_maps(pid, &spec.namespaces.user).map_err(refused("cannot write the id maps"))?;
    let new_network = [network.as_fd()];
    let attached: &[BorrowedFd<'_>] =
        if spec.namespaces.network == Namespace::New { &new_network } else { &[] };
    protocol::send(engine, &Progress::Namespaces { pid }, attached).map_err(refused("the engine is gone"))?;
    fault_point!("shim.namespaces-sent");
    // From here on the engine configures the network while the mounts are made.
    set_oom_score(pid, spec.process.oom_score_adj)?;
    send_mounts(channel, spec, user.as_fd(), binds)?;
    fault_point!("shim.mounts-sent");
    let ready = receive_ready(channel, spec)?;
    fault_point!("shim.init-ready");
    let held = match protocol::receive(engine).map_err(refused("the engine is gone"))? {
        (Launch::Run, held) => held,
        (other, _) => return Err(StartFailure::refused("unexpected message", format!("{other:?}"))),
    };
    fault_point!("shim.told-to-run");
    protocol::send(channel, &ToInit::Run, &[]).map_err(refused("init is gone"))?;
    fault_point!("shim.run-sent");
    await_execution(channel)?;
    Ok((ready, held))
}

/// The channel closes by itself when the program is executed (close-on-exec); a message says that it was not.
pub fn await_execution(channel: &UnixStream) -> Result<(), StartFailure> {
    match protocol::receive(channel) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(StartFailure::refused("lost the container's process", error)),
        Ok((FromInit::Failed(failure), _)) => Err(failure),
        Ok((other, _)) => Err(StartFailure::refused("unexpected message", format!("{other:?}"))),
    }
}

fn receive_namespaces(channel: &UnixStream) -> Result<(OwnedFd, OwnedFd), StartFailure> {
    match receive_from_init(channel)? {
        (FromInit::Namespaces, descriptors) => match <[OwnedFd; 2]>::try_from(descriptors) {
            Ok([user, network]) => Ok((user, network)),
            Err(_) => Err(StartFailure::new(FailureKind::Refused, "init sent no namespaces")),
        },
        (other, _) => Err(StartFailure::refused("unexpected message", format!("{other:?}"))),
    }
}

fn receive_ready(channel: &UnixStream, spec: &ContainerSpec) -> Result<Ready, StartFailure> {
    match receive_from_init(channel)? {
        (FromInit::Ready { facts }, mut descriptors) => {
            let terminal = if spec.stdio.tty { descriptors.pop() } else { None };
            if descriptors.len() != 1 + NamespaceSet::LENGTH {
                return Err(StartFailure::new(FailureKind::Refused, "init sent too few descriptors"));
            }
            let namespaces = NamespaceSet::new(descriptors.split_off(1))
                .map_err(|error| StartFailure::refused("cannot compare namespaces", error))?;
            match descriptors.pop() {
                Some(root) => Ok(Ready { root, namespaces, terminal, facts }),
                None => Err(StartFailure::new(FailureKind::Refused, "init sent no root")),
            }
        }
        (other, _) => Err(StartFailure::refused("unexpected message", format!("{other:?}"))),
    }
}

/// A message of init's; its failure becomes ours, and its death without a word too.
pub fn receive_from_init(channel: &UnixStream) -> Result<(FromInit, Vec<OwnedFd>), StartFailure> {
    match protocol::receive(channel) {
        Ok((FromInit::Failed(failure), _)) => Err(failure),
        Ok(other) => Ok(other),
        Err(error) => Err(StartFailure::refused("the container's process died during the set-up", error)),
    }
}

fn send_mounts(
    channel: &UnixStream,
    spec: &ContainerSpec,
    user_namespace: BorrowedFd<'_>,
    mut binds: Vec<OwnedFd>,
) -> Result<(), StartFailure> {
    let refused = |what: &'static str| move |error: io::Error| StartFailure::refused(what, error);
    let mapped = (!spec.namespaces.user.is_identity()).then_some(user_namespace);
    let mut all = vec![
        mount_rootfs(&spec.rootfs, mapped, &spec.runtime_directory)
            .map_err(refused("cannot mount the root filesystem"))?,
    ];
    let sources = spec.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Bind { .. }));
    for (mount, bind) in sources.zip(&binds) {
        let MountSource::Bind { path, id_mapped, recursive, .. } = &mount.source else { continue };
        if let (true, Some(namespace)) = (*id_mapped, mapped) {
            map_ids(bind.as_fd(), *recursive, namespace).map_err(|error| {
                StartFailure::refused(format!("cannot map the ids of `{}`", path.display()), error)
            })?;
        }
    }
    if spec.namespaces.user.is_new() {
        lock_binds(spec, user_namespace, &mut binds)
            .map_err(refused("cannot lock the flags of the container's binds"))?;
    }
    fault_point!("shim.rootfs-mounted");
    all.extend(binds);
    let mut cgroups = Vec::new();
    for (name, path) in cgroup_views(spec) {
        all.push(clone_path(&path, false).map_err(refused("cannot clone the cgroup directory"))?);
        cgroups.push(name);
    }
    let mut chunks = all.chunks(CHUNK).peekable();
    while let Some(chunk) = chunks.next() {
        let descriptors: Vec<BorrowedFd<'_>> = chunk.iter().map(AsFd::as_fd).collect();
        let more = chunks.peek().is_some();
        let names = if more { Vec::new() } else { std::mem::take(&mut cgroups) };
        protocol::send(channel, &ToInit::Mounts { cgroups: names, more }, &descriptors)
            .map_err(refused("init is gone"))?;
    }
    Ok(())
}

/// Puts locked binds in the place of those that the container must not make writable, or may not execute from.
fn lock_binds(spec: &ContainerSpec, user_namespace: BorrowedFd<'_>, binds: &mut [OwnedFd]) -> io::Result<()> {
    let recursive = spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Bind { recursive, .. } => Some((mount.flags != MountFlags::default(), *recursive)),
        _ => None,
    });
    let flagged: Vec<(usize, bool)> = recursive
        .enumerate()
        .filter(|(_, (has_flags, _))| *has_flags)
        .map(|(place, (_, recursive))| (place, recursive))
        .collect();
    if flagged.is_empty() {
        return Ok(());
    }
    let chosen: Vec<_> = flagged.iter().map(|(place, recursive)| (&binds[*place], *recursive)).collect();
    let locked = lock_flags(&chosen, user_namespace, &spec.runtime_directory)?;
    for ((place, _), locked) in flagged.into_iter().zip(locked) {
        binds[place] = locked;
    }
    Ok(())
}

/// The container's own cgroup directories and what they are called in its `/sys/fs/cgroup`: `""` where cgroup2 is all
/// there is, else a v1 hierarchy's controllers, and `unified` for a cgroup2 beside them.
fn cgroup_views(spec: &ContainerSpec) -> Vec<(String, PathBuf)> {
    let Some(group) = &spec.cgroup else { return Vec::new() };
    let mut views: Vec<(String, PathBuf)> = group
        .leaf_directories()
        .map(|(path, controllers)| {
            let names: Vec<String> =
                controllers.iter().map(|controller| controller.v1_name().to_owned()).collect();
            (names.join(","), path)
        })
        .collect();
    if views.len() > 1 {
        views.iter_mut().filter(|(name, _)| name.is_empty()).for_each(|(name, _)| name.push_str("unified"));
    }
    views
}

/// Filesystems that know no id maps (some network ones) lie below many a recursive bind: then only the top is mapped.
pub fn map_ids(bind: BorrowedFd<'_>, recursive: bool, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = MountAttributes { user_namespace: Some(namespace), ..Default::default() };
    match set_attributes(bind, recursive, &attributes) {
        Err(_) if recursive => set_attributes(bind, false, &attributes),
        other => other,
    }
}

/// Cloned here, in the engine's mount namespace: a shared source keeps its peer group.
pub fn clone_binds(mounts: &[Mount]) -> Result<Vec<OwnedFd>, StartFailure> {
    let mut binds = Vec::new();
    for mount in mounts {
        let MountSource::Bind { path, subpath, recursive, .. } = &mount.source else { continue };
        let clone = || -> io::Result<OwnedFd> {
            let bind = match subpath.as_str() {
                "" => clone_path(path, *recursive)?,
                subpath => clone_beneath(path, subpath, *recursive)?,
            };
            set_flags(bind.as_fd(), &mount.flags, mount.propagation)?;
            Ok(bind)
        };
        binds.push(clone().map_err(|error| {
            StartFailure::refused(
                format!("error mounting `{}` to `{}`", path.display(), mount.destination),
                error,
            )
        })?);
    }
    Ok(binds)
}

fn clone_flags(spec: &ContainerSpec) -> u64 {
    let namespaces = &spec.namespaces;
    let wanted = |namespace: Namespace, flag: u64| if namespace == Namespace::New { flag } else { 0 };
    process::NEW_MOUNT
        | wanted(namespaces.pid, process::NEW_PID)
        | wanted(namespaces.network, process::NEW_NETWORK)
        | wanted(namespaces.ipc, process::NEW_IPC)
        | wanted(namespaces.uts, process::NEW_UTS)
        | if namespaces.user.is_new() { process::NEW_USER } else { 0 }
}

pub fn write_maps(pid: i32, user: &UserNamespace) -> io::Result<()> {
    let UserNamespace::New { uid_mappings, gid_mappings } = user else { return Ok(()) };
    let text = |maps: &[IdMapping]| -> String {
        maps.iter().map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size)).collect()
    };
    fs::write(format!("/proc/{pid}/uid_map"), text(uid_mappings))?;
    fs::write(format!("/proc/{pid}/gid_map"), text(gid_mappings))
}

/// Written from outside: the file of a process in a new user namespace belongs to the engine's root.
pub fn set_oom_score(pid: i32, score: Option<i32>) -> Result<(), StartFailure> {
    match score {
        None => Ok(()),
        Some(score) => fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
            .map_err(|error| StartFailure::refused(format!("cannot set oom_score_adj to {score}"), error)),
    }
}

fn reaper(spec: &ContainerSpec) -> io::Result<Option<OwnedFd>> {
    if !spec.init {
        return Ok(None);
    }
    // The sealed memfd that this shim runs from.
    Ok(Some(rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
}

/// This process, for its children to know whether it still lives.
pub fn own_pidfd() -> io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    Ok(pidfd_open(getpid(), PidfdFlags::empty())?)
}

pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn listen(directory: &Path) -> io::Result<UnixListener> {
    let listener = bind_in(open_directory(directory)?.as_fd(), SOCKET_NAME)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Binds through a descriptor of the directory, because a socket's own path may not exceed 107 bytes.
pub fn bind_in(directory: BorrowedFd<'_>, name: &str) -> io::Result<UnixListener> {
    match rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

/// Ends and collects a process that must not stay.
pub fn end(child: &ChildProcess) {
    let _already_gone = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
    let _nobodys = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
}
