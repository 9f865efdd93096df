//! Attempts in namespaces of the trial's own. All paths are relative to the scratch directory, which lies in the
//! data-root: what its filesystem allows is part of the question. Mounts pile up on `m` until the namespace ends, for
//! each unmount would wait for a grace period of its own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use dory_sys::mount::{MountAttributes, set_attributes};
use dory_sys::probe::NEW_CGROUP;
use dory_sys::process::{
    CloneOptions, NEW_IPC, NEW_MOUNT, NEW_NETWORK, NEW_PID, NEW_USER, NEW_UTS, clone_process,
};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsmount, fsopen, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_move, move_mount, open_tree,
};

use crate::attempt::{Attempt, Feature};
use crate::id_map;
use crate::network;
use crate::trial::{Reporter, Try, end};

/// The namespaces of a container, each with the feature that it is.
pub(crate) const NAMESPACES: [(Feature, u64); 6] = [
    (Feature::MountNamespace, NEW_MOUNT),
    (Feature::PidNamespace, NEW_PID),
    (Feature::NetworkNamespace, NEW_NETWORK),
    (Feature::UtsNamespace, NEW_UTS),
    (Feature::IpcNamespace, NEW_IPC),
    (Feature::CgroupNamespace, NEW_CGROUP),
];

const TRIES: [Try; 15] = [
    Try::new(Feature::Tmpfs, NEW_MOUNT, tmpfs),
    Try::new(Feature::Bind, NEW_MOUNT, || Ok(mount_bind("lower", "m")?)),
    Try::new(Feature::NewMountApi, NEW_MOUNT, new_mount_api),
    Try::new(Feature::FreshProc, NEW_MOUNT | NEW_PID, || mount_at("proc", MountFlags::empty())),
    Try::new(Feature::BoundProc, NEW_MOUNT, || Ok(mount_bind_recursive("/proc", "m")?)),
    Try::new(Feature::Devpts, NEW_MOUNT, || mount_at("devpts", MountFlags::NOSUID)),
    Try::new(Feature::Mqueue, NEW_MOUNT | NEW_IPC, || mount_at("mqueue", MountFlags::NODEV)),
    Try::new(Feature::Hostname, NEW_UTS, || Ok(rustix::system::sethostname(b"dory-probe")?)),
    Try::new(Feature::Bridge, NEW_NETWORK, || network::add_link("bridge")),
    Try::new(Feature::Veth, NEW_NETWORK, || network::add_link("veth")),
    Try::new(Feature::Nat, NEW_NETWORK, network::add_nat_chain),
    Try::new(Feature::NetworkSysctl, NEW_NETWORK, || write_existing("/proc/sys/net/ipv4/ip_forward", "1")),
    Try::new(Feature::CgroupFreshMount, NEW_MOUNT | NEW_CGROUP, fresh_cgroup),
    Try::new(Feature::IdMappedOwn, NEW_MOUNT, id_mapped_own),
    Try::new(Feature::IdMappedDataRoot, NEW_MOUNT, || id_map_onto("lower")),
];

/// Writable, or else read-only; an own network namespace is needed.
const SYSFS: [Try; 2] = [
    Try::new(Feature::Sysfs, NEW_MOUNT | NEW_NETWORK, || mount_at("sysfs", MountFlags::empty())),
    Try::new(Feature::SysfsReadOnly, NEW_MOUNT | NEW_NETWORK, || mount_at("sysfs", MountFlags::RDONLY)),
];

/// Two ways to change the root directory; Docker's seccomp profile forbids the first one.
const ROOT: [Try; 2] =
    [Try::new(Feature::PivotRoot, NEW_MOUNT, pivot_root), Try::new(Feature::MoveRoot, NEW_MOUNT, move_root)];

/// Makes every attempt that `namespaces` allow, as the trial's own process.
pub(crate) fn run(reporter: &mut Reporter, namespaces: u64) {
    let mut namespaces = namespaces;
    if namespaces & NEW_MOUNT != 0
        && let Err(error) = keep_mounts_private()
    {
        // Whatever is mounted from here on could show outside: nothing may be.
        namespaces &= !NEW_MOUNT;
        reporter.report(Feature::Tmpfs, Attempt::from(Err(error)));
    }
    for attempt in TRIES.iter().filter(|attempt| attempt.needs & !namespaces == 0) {
        reporter.run(attempt);
    }
    if namespaces & NEW_MOUNT == 0 {
        return;
    }
    let in_user_namespace = namespaces & NEW_USER != 0;
    let overlay: fn() -> io::Result<()> =
        if in_user_namespace { || overlay(",userxattr") } else { || overlay("") };
    reporter.run(&Try::new(Feature::Overlay, NEW_MOUNT, overlay));
    if namespaces & NEW_NETWORK != 0 {
        first_of(reporter, &SYSFS);
    }
    // Last, for they change the root directory.
    first_of(reporter, &ROOT);
}

/// Makes the second attempt only where the first was refused.
fn first_of(reporter: &mut Reporter, attempts: &[Try; 2]) {
    if !reporter.run(&attempts[0]).works() {
        reporter.run(&attempts[1]);
    }
}

/// Private, or at least not shown outside where the surroundings lock the propagation.
fn keep_mounts_private() -> io::Result<()> {
    let change = |propagation| mount_change("/", MountPropagationFlags::REC | propagation);
    change(MountPropagationFlags::PRIVATE).or_else(|_| change(MountPropagationFlags::DOWNSTREAM))?;
    Ok(())
}

fn mount_at(kind: &str, flags: MountFlags) -> io::Result<()> {
    Ok(mount(kind, "m", kind, flags, None)?)
}

fn tmpfs() -> io::Result<()> {
    mount_at("tmpfs", MountFlags::empty())
}

fn write_existing(path: &str, text: &str) -> io::Result<()> {
    io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(path)?, text.as_bytes())
}

/// A detached tmpfs.
fn detached_tmpfs() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

fn new_mount_api() -> io::Result<()> {
    let tree = detached_tmpfs()?;
    Ok(move_mount(tree, "", CWD, "m", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Mounting alone proves little: the first removed file of a lower layer needs a whiteout. Unless volatile (5.10),
/// an overlay syncs its upper filesystem when it is unmounted, which takes up to 0.1 s on a busy disk.
fn overlay(more: &str) -> io::Result<()> {
    let mount_with = |more: &str| {
        let options = format!("lowerdir=lower,upperdir=upper,workdir=work{more}");
        let options = std::ffi::CString::new(options).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(mount("overlay", "m", "overlay", MountFlags::empty(), options.as_c_str())?)
    };
    mount_with(&format!("{more},volatile")).or_else(|_: io::Error| mount_with(more))?;
    fs::remove_file("m/file")
}

fn fresh_cgroup() -> io::Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let on_v1 = own.lines().any(|line| line.split(':').nth(1) == Some("memory"));
    if on_v1 {
        mount("cgroup", "m", "cgroup", MountFlags::empty(), c"memory")?;
    } else {
        mount("cgroup2", "m", "cgroup2", MountFlags::empty(), None)?;
    }
    let group = format!("m/dory-probe-{}", std::process::id());
    fs::create_dir(&group).and_then(|()| fs::remove_dir(&group))
}

fn id_mapped_own() -> io::Result<()> {
    id_map(&detached_tmpfs()?)
}

fn id_map_onto(path: &str) -> io::Result<()> {
    id_map(&open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

fn id_map(tree: &OwnedFd) -> io::Result<()> {
    let namespace = child_user_namespace()?;
    let attributes =
        MountAttributes { user_namespace: Some(namespace.as_fd()), ..MountAttributes::default() };
    set_attributes(tree.as_fd(), false, &attributes)
}

/// A user namespace below this one with some map.
fn child_user_namespace() -> io::Result<OwnedFd> {
    let child = clone_process(CloneOptions { flags: NEW_USER, ..CloneOptions::default() }, || {
        loop {
            std::thread::park();
        }
    })?;
    let namespace = outer_pid_of(child.pid).and_then(|pid| {
        id_map::write_best(pid)?;
        Ok(fs::File::open(format!("/proc/{}/ns/user", pid.as_raw_nonzero()))?.into())
    });
    end(&child);
    namespace
}

/// The name of our only child in /proc, which may belong to an outer pid namespace.
fn outer_pid_of(child: rustix::process::Pid) -> io::Result<rustix::process::Pid> {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let pid = children.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
    Ok(pid.and_then(rustix::process::Pid::from_raw).unwrap_or(child))
}

fn pivot_root() -> io::Result<()> {
    mount("tmpfs", "m", "tmpfs", MountFlags::empty(), None)?;
    fs::create_dir("m/old")?;
    Ok(rustix::process::pivot_root("m", "m/old")?)
}

fn move_root() -> io::Result<()> {
    mount("tmpfs", "m", "tmpfs", MountFlags::empty(), None)?;
    rustix::process::chdir("m")?;
    mount_move(".", "/")?;
    Ok(rustix::process::chroot(".")?)
}
