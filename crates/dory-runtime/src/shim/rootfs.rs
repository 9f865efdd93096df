//! The overlay of a container, as a detached mount.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use dory_sys::mount::{MountAttributes, PRIVATE, set_attributes};
use dory_sys::process::{CloneOptions, clone_process};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{
    FsOpenFlags, MountAttrFlags, MountPropagationFlags, fsconfig_set_flag, fsconfig_set_string, fsopen,
    mount_change,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::filesystem::{attach, clone_path, describe, finish, mount_filesystem};
use crate::protocol;
use crate::spec::{MountFlags, Rootfs};

/// Mounts the container's root. With `user_namespace` the layers are seen through its id map, so that what root owns in
/// the image belongs to the container's root; the upper directory already belongs to the mapped ids.
pub fn mount_rootfs(
    rootfs: &Rootfs,
    user_namespace: Option<BorrowedFd<'_>>,
    scratch: &Path,
) -> io::Result<OwnedFd> {
    if rootfs.lower.is_empty() {
        // Overlayfs wants something below; with nothing there, the upper directory is all that there is.
        let root = clone_path(&rootfs.upper, false)?;
        let private = MountAttributes { propagation: PRIVATE, ..Default::default() };
        set_attributes(root.as_fd(), false, &private)?;
        return Ok(root);
    }
    match user_namespace {
        None => mount_overlay(&rootfs.lower, &rootfs.upper, &rootfs.work),
        Some(namespace) => mount_mapped(rootfs, namespace, scratch),
    }
}

/// Mounts an overlay of `lower`, the topmost first, and `upper`, attached to no mount namespace yet.
///
/// # Errors
/// What the kernel says, with its own words where it has any.
pub fn mount_overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let explain = |error| describe(&context, error);
    fsconfig_set_string(&context, "source", "overlay").map_err(explain)?;
    set_lower(&context, lower)?;
    fsconfig_set_string(&context, "upperdir", upper).map_err(explain)?;
    fsconfig_set_string(&context, "workdir", work).map_err(explain)?;
    if !in_initial_user_namespace() {
        // `trusted.*` attributes need CAP_SYS_ADMIN in the initial namespace; `user.*` serve a nested engine (5.11).
        fsconfig_set_flag(&context, "userxattr").map_err(explain)?;
    }
    finish(&context, MountAttrFlags::empty())
}

/// One parameter per layer (`lowerdir+`, kernel 6.5) has no limit of a page; older kernels take one colon-separated list.
fn set_lower(context: &OwnedFd, lower: &[PathBuf]) -> io::Result<()> {
    for (place, layer) in lower.iter().enumerate() {
        match fsconfig_set_string(context, "lowerdir+", layer.as_path()) {
            Ok(()) => {}
            Err(Errno::INVAL) if place == 0 => return set_lower_list(context, lower),
            Err(error) => return Err(describe(context, error)),
        }
    }
    Ok(())
}

fn set_lower_list(context: &OwnedFd, lower: &[PathBuf]) -> io::Result<()> {
    let list: Vec<String> =
        lower.iter().map(|path| path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")).collect();
    fsconfig_set_string(context, "lowerdir", list.join(":")).map_err(|error| describe(context, error))
}

/// Overlay refuses a lower directory that is not attached in the caller's mount namespace (before 6.15), and an id map can
/// only be set before attaching. So a short-lived child with a mount namespace of its own attaches the mapped layers,
/// mounts the overlay and hands the detached result back; its namespace and everything in it die with it.
fn mount_mapped(rootfs: &Rootfs, namespace: BorrowedFd<'_>, scratch: &Path) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = clone_process(CloneOptions::default(), || {
        let result = mount_mapped_in_child(rootfs, namespace, scratch);
        let sent = match &result {
            Ok(mount) => protocol::send(&theirs, &None::<String>, &[mount.as_fd()]),
            Err(error) => protocol::send(&theirs, &Some(error.to_string()), &[]),
        };
        i32::from(sent.is_err())
    })?;
    drop(theirs);
    let answer = protocol::receive::<Option<String>>(&ours);
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    match answer? {
        (None, mut descriptors) => {
            descriptors.pop().ok_or_else(|| io::Error::other("the overlay's helper sent no mount"))
        }
        (Some(message), _) => Err(io::Error::other(message)),
    }
}

fn mount_mapped_in_child(rootfs: &Rootfs, namespace: BorrowedFd<'_>, scratch: &Path) -> io::Result<OwnedFd> {
    dory_sys::process::unshare_mounts()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let place =
        rustix::fs::open(scratch, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, Mode::empty())?;
    let tmpfs = mount_filesystem("tmpfs", "dory", &[], &MountFlags::default())?;
    attach(tmpfs.as_fd(), place.as_fd())?;
    let mut lower = Vec::with_capacity(rootfs.lower.len());
    for (number, layer) in rootfs.lower.iter().enumerate() {
        let mapped = clone_path(layer, false)?;
        let attributes = MountAttributes { user_namespace: Some(namespace), ..Default::default() };
        set_attributes(mapped.as_fd(), false, &attributes)?;
        rustix::fs::mkdirat(&tmpfs, number.to_string(), Mode::from_raw_mode(0o755))?;
        let target = rustix::fs::openat(
            &tmpfs,
            number.to_string(),
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        attach(mapped.as_fd(), target.as_fd())?;
        lower.push(scratch.join(number.to_string()));
    }
    mount_overlay(&lower, &rootfs.upper, &rootfs.work)
}

/// True where this process's user namespace maps every id to itself: the initial one.
fn in_initial_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}
