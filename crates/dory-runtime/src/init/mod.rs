//! The container's first process, from clone to execve; and the same last steps for exec'd processes.
//!
//! Everything here runs in a forked, single-threaded child of the shim, already inside the container's new namespaces.
//! The order is the kernel's, not ours: see `docs/architecture.md` and the comments at each step.

mod devices;
mod exec;
pub mod mounts;
pub mod namespaces;
mod privilege;
mod process;
mod program;
mod root;
mod sysctl;
pub mod terminal;
mod user;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use dory_cgroup::Entrance;
use dory_sys::fault_point;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::error::StartFailure;
use crate::filesystem::{attach, set_readonly};
use crate::protocol;
use crate::spec::{ContainerSpec, MountSource, Namespace};

pub use exec::run as run_exec;
pub use mounts::PreparedMounts;
pub use namespaces::NamespaceSet;
pub use process::{Streams, hide, null_device};
pub use root::Root;
pub use user::resolve as resolve_user;

/// From the shim to init.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToInit {
    /// Ids are mapped; attached: a chunk of the mounts that the shim made.
    Mounts {
        /// Names of the v1 hierarchies at the end of all descriptors, `""` for cgroup2.
        cgroups: Vec<String>,
        /// Another chunk follows (a message carries at most 253 descriptors).
        more: bool,
    },
    /// The network is there: execute.
    Run,
}

/// From init to the shim; the channel's end without `Failed` means that the program was executed.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromInit {
    /// The first word. Attached: the user and the network namespace.
    Namespaces,
    /// The file tree is built. Attached: the root directory, every namespace, and the terminal's master where there is
    /// one (for an exec: that alone).
    Ready {
        /// What had to be done in a lesser way.
        facts: Vec<String>,
    },
    /// It will not run.
    Failed(StartFailure),
}

/// What a new process brings along from the shim.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// Its standard streams.
    pub streams: Streams,
    /// The way into its cgroups; the v2 one it was born in.
    pub entrance: Option<&'a Entrance>,
    /// The program of `--init`.
    pub reaper: Option<OwnedFd>,
    /// The shim (a pidfd).
    pub shim: &'a OwnedFd,
}

impl Arrival<'_> {
    fn enter_cgroups(&self) -> Result<(), StartFailure> {
        let entered = self.entrance.map_or(Ok(()), Entrance::enter_v1);
        entered.map_err(|error| StartFailure::refused("cannot join the cgroup", error))
    }
}

/// Runs as the container's first process; returns an exit code only on failure, which the shim has been told.
pub fn run(spec: &ContainerSpec, channel: &UnixStream, mut arrival: Arrival<'_>) -> i32 {
    let reaper = arrival.reaper.take();
    let shim = arrival.shim;
    // From the first moment on.
    let prepared = die_with(shim).and_then(|()| set_up(spec, channel, arrival));
    let failure = match prepared {
        Ok((streams, attribute)) => process::execute_init(spec, streams, attribute.as_ref(), reaper, shim),
        Err(failure) => failure,
    };
    // Nobody is there to hear it if the shim is gone; then this process dies with its namespace anyway.
    let _unheard = protocol::send(channel, &FromInit::Failed(failure), &[]);
    128
}

fn set_up(
    spec: &ContainerSpec,
    channel: &UnixStream,
    arrival: Arrival<'_>,
) -> Result<(Streams, Option<std::fs::File>), StartFailure> {
    let refused = |what: &'static str| move |error: io::Error| StartFailure::refused(what, error);
    fault_point!("init.cloned");
    arrival.enter_cgroups()?;
    fault_point!("init.cgroups-entered");
    let user = namespaces::open_one("user").map_err(refused("cannot open the user namespace"))?;
    let network = namespaces::open_one("net").map_err(refused("cannot open the network namespace"))?;
    protocol::send(channel, &FromInit::Namespaces, &[user.as_fd(), network.as_fd()])
        .map_err(refused("the shim is gone"))?;
    let (rootfs, prepared) = receive_mounts(spec, channel).map_err(refused("cannot receive the mounts"))?;
    fault_point!("init.mounts-received");
    // Opened while the engine's /proc is in reach; written at the very end.
    let attribute = process::open_apparmor_attribute(&spec.process)?;
    if spec.namespaces.user.is_new() {
        become_namespace_root()?;
        die_with(arrival.shim)?;
    }
    if spec.namespaces.cgroup == Namespace::New && spec.cgroup.is_some() {
        // After joining the group: it becomes the root of the view.
        dory_sys::process::unshare_cgroup().map_err(refused("cannot make a cgroup namespace"))?;
    }
    set_names(spec)?;
    // Nothing mounted from here on may reach the engine's namespace. Not private: that would cut `rslave` binds off.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|error| StartFailure::refused("cannot separate the mounts", error))?;
    // On top of `/` itself: a directory of the data-root may not be reachable for the container's ids.
    let top = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| StartFailure::refused("cannot open `/`", error))?;
    attach(rootfs.as_fd(), top.as_fd()).map_err(refused("cannot attach the root filesystem"))?;
    fault_point!("init.root-attached");
    let root = Root::new(rootfs.as_fd());
    let mut facts = Vec::new();
    mounts::mount_all(root, spec, prepared, &mut facts)?;
    devices::make_devices(root, &spec.devices)?;
    sysctl::write_all(root, &spec.sysctls)?;
    let terminal = open_terminal(spec, root)?;
    process::make_working_directory(root, &spec.process.cwd)?;
    mounts::protect_paths(root, &spec.readonly_paths)?;
    mounts::mask_paths(root, &spec.masked_paths)?;
    if spec.rootfs.readonly {
        set_readonly(rootfs.as_fd()).map_err(refused("cannot make the root read-only"))?;
    }
    fault_point!("init.tree-built");
    // While a /proc is certainly in reach: an image need not have one.
    let own_namespaces = namespaces::open_own().map_err(refused("cannot open the namespaces"))?;
    change_root(rootfs.as_fd()).map_err(refused("cannot change the root"))?;
    fault_point!("init.root-changed");
    announce(channel, facts, &own_namespaces, terminal.as_ref()).map_err(refused("the shim is gone"))?;
    fault_point!("init.announced");
    let streams = terminal.map_or(arrival.streams, |terminal| Streams::Terminal(terminal.slave));
    match protocol::receive(channel).map_err(refused("the shim is gone"))? {
        (ToInit::Run, _) => Ok((streams, attribute)),
        (other, _) => Err(StartFailure::refused("unexpected message", format!("{other:?}"))),
    }
}

fn announce(
    channel: &UnixStream,
    facts: Vec<String>,
    namespaces: &[OwnedFd],
    terminal: Option<&terminal::Terminal>,
) -> io::Result<()> {
    let root = own_root()?;
    let mut descriptors = vec![root.as_fd()];
    descriptors.extend(namespaces.iter().map(AsFd::as_fd));
    descriptors.extend(terminal.map(|terminal| terminal.master.as_fd()));
    protocol::send(channel, &FromInit::Ready { facts }, &descriptors)
}

/// The root filesystem comes first, then the binds in the spec's order, then the cgroups.
fn receive_mounts(spec: &ContainerSpec, channel: &UnixStream) -> io::Result<(OwnedFd, PreparedMounts)> {
    let mut all = Vec::new();
    let names = loop {
        match protocol::receive(channel)? {
            (ToInit::Mounts { cgroups, more }, descriptors) => {
                all.extend(descriptors);
                if !more {
                    break cgroups;
                }
            }
            (other, _) => return Err(io::Error::other(format!("unexpected message {other:?}"))),
        }
    };
    let binds = spec.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Bind { .. })).count();
    if all.len() != 1 + binds + names.len() {
        return Err(io::Error::other(format!("{} descriptors for {binds} binds", all.len())));
    }
    let mut all = all.into_iter();
    let rootfs = all.next().ok_or_else(|| io::Error::other("no root filesystem"))?;
    let binds = all.by_ref().take(binds).collect();
    Ok((rootfs, PreparedMounts { binds, cgroups: names.into_iter().zip(all).collect() }))
}

/// Makes the shim's death this process's; to be renewed whenever the ids have changed, which clears it (prctl(2),
/// `PR_SET_PDEATHSIG`). A shim that died before says so through its pidfd. Nothing else would: this process has copies of
/// the shim's ends of all connections, and so would wait for ever, and have the engine wait.
fn die_with(shim: &OwnedFd) -> Result<(), StartFailure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| StartFailure::refused("cannot tie the process to its shim", error))?;
    let mut watched = [PollFd::new(shim, PollFlags::IN)];
    // The container's own seccomp policy, where it holds already, may refuse this call.
    match poll(&mut watched, Some(&Timespec::default())) {
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => Err(StartFailure::refused("the shim is gone", "it ended")),
    }
}

/// Root of the user namespace just entered, so that what is made here belongs to the container.
fn become_namespace_root() -> Result<(), StartFailure> {
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(|error| StartFailure::refused("cannot become root of the user namespace", error))
}

fn set_names(spec: &ContainerSpec) -> Result<(), StartFailure> {
    if spec.namespaces.uts != Namespace::New {
        return Ok(());
    }
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes())
            .map_err(|error| StartFailure::refused("cannot set the host name", error))?;
    }
    if !spec.domainname.is_empty() {
        rustix::system::setdomainname(spec.domainname.as_bytes())
            .map_err(|error| StartFailure::refused("cannot set the domain name", error))?;
    }
    Ok(())
}

fn open_terminal(spec: &ContainerSpec, root: Root<'_>) -> Result<Option<terminal::Terminal>, StartFailure> {
    if !spec.stdio.tty {
        return Ok(None);
    }
    let open = || {
        let opened = terminal::open(root, spec.stdio.console_size)?;
        terminal::bind_console(root, &opened)?;
        Ok(opened)
    };
    open().map(Some).map_err(|error: io::Error| StartFailure::refused("cannot open a terminal", error))
}

/// pivot_root(2) onto the descriptor's mount, leaving nothing of the old tree. Docker's own seccomp profile refuses it even
/// with CAP_SYS_ADMIN. Then the old tree is unmounted from below and the process takes the mount as its root where it is,
/// on top of `/`: all mounts of that stack lie on one another's roots, so `..` finds no way down (as after
/// switch_root(8)). What stays beneath is the old root filesystem itself: whoever has CAP_SYS_ADMIN over this mount
/// namespace can uncover it.
fn change_root(rootfs: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(rootfs)?;
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => {
            // The old root is now stacked on the new one; cwd still names the new.
            unmount(".", UnmountFlags::DETACH)?;
        }
        Err(Errno::PERM | Errno::INVAL) => {
            unmount_everything_else()?;
            rustix::process::chroot(".")?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::process::chdir("/")?)
}

/// Unmounts, deepest first, every mount of the old tree that can be. Locked ones (in a user namespace) stay, covered.
fn unmount_everything_else() -> io::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    points.sort_unstable_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points.into_iter().filter(|point| *point != "/") {
        let _locked = unmount(point.replace("\\040", " "), UnmountFlags::DETACH);
    }
    Ok(())
}

/// The working directory of this process, as a sanity check against CVE-2024-21626: it must lie in the container.
fn check_working_directory() -> io::Result<()> {
    let path = rustix::process::getcwd(Vec::new())?;
    if path.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(io::Error::other("current working directory is outside of container mount namespace root"))
    }
}

/// `/` of this process.
fn own_root() -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
