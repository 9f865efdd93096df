//! Detached mounts: made by descriptor, attached later, gone with the descriptor if never attached.
//!
//! The shim makes what needs the engine's privilege or namespaces (the overlay, binds, id maps), init makes what must
//! belong to the container's namespaces (`/proc`, `/sys`, `/dev/pts`…). Neither ever has a mount at a path of the
//! engine's, so nothing can leak into it and nothing needs unmounting after a crash.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dory_sys::mount::{self, MountAttributes};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::spec::{MountFlags, Propagation};

/// Mounts a new instance of filesystem `kind` with `options` (`name` or `name=value`), detached.
pub fn mount_filesystem(
    kind: &str,
    source: &str,
    options: &[String],
    flags: &MountFlags,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Some clients print it (`tmpfs on /tmp`); a filesystem that takes none is content without.
    let _ = fsconfig_set_string(&context, "source", source);
    for option in options {
        match option.split_once('=') {
            Some((name, value)) => fsconfig_set_string(&context, name, value),
            None => fsconfig_set_flag(&context, option.as_str()),
        }
        .map_err(|error| describe(&context, error))?;
    }
    finish(&context, attribute_flags(flags))
}

/// Creates the superblock of a configured context and a detached mount of it.
pub fn finish(context: &OwnedFd, flags: MountAttrFlags) -> io::Result<OwnedFd> {
    fsconfig_create(context).map_err(|error| describe(context, error))?;
    Ok(fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// Clones the mount at `path` (relative to `directory`), detached, with its peer group.
pub fn clone_mount(directory: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(directory, path, flags)?)
}

/// [`clone_mount`] of an absolute path.
pub fn clone_path(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_mount(CWD, path, recursive)
}

/// [`clone_mount`] of what `subpath` leads to beneath `path`. It is resolved once, into a descriptor: what a container may
/// swap in afterwards does not matter any more.
pub fn clone_beneath(path: &Path, subpath: &str, recursive: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::open(path, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let inside = rustix::fs::openat2(&top, subpath, flags, Mode::empty(), resolve)?;
    clone_mount(inside.as_fd(), Path::new(""), recursive)
}

/// Attaches a detached mount on `place`, on top of whatever is there.
pub fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", place, "", flags)?)
}

/// Applies flags and propagation of a bind. Flags are only added: those that the source has may be locked.
pub fn set_flags(mount: BorrowedFd<'_>, flags: &MountFlags, propagation: Propagation) -> io::Result<()> {
    let (kind, recursive) = match propagation {
        Propagation::Private => (mount::PRIVATE, false),
        Propagation::RecursivePrivate => (mount::PRIVATE, true),
        Propagation::Slave => (mount::SLAVE, false),
        Propagation::RecursiveSlave => (mount::SLAVE, true),
        Propagation::Shared => (mount::SHARED, false),
        Propagation::RecursiveShared => (mount::SHARED, true),
    };
    mount::set_attributes(mount, recursive, &MountAttributes { propagation: kind, ..Default::default() })?;
    let set = attribute_bits(flags);
    if set != 0 {
        let clear = if flags.noatime { mount::ATIME_MASK } else { 0 };
        mount::set_attributes(
            mount,
            flags.recursive_readonly,
            &MountAttributes { set, clear, ..Default::default() },
        )?;
    }
    Ok(())
}

/// Makes a mount read-only.
pub fn set_readonly(mount: BorrowedFd<'_>) -> io::Result<()> {
    mount::set_attributes(mount, false, &MountAttributes { set: mount::RDONLY, ..Default::default() })
}

/// The same flags for fsmount(2), which takes them at creation.
pub fn attribute_flags(flags: &MountFlags) -> MountAttrFlags {
    MountAttrFlags::from_bits_retain(attribute_bits(flags) as u32)
}

fn attribute_bits(flags: &MountFlags) -> u64 {
    [
        (flags.readonly, mount::RDONLY),
        (flags.nosuid, mount::NOSUID),
        (flags.nodev, mount::NODEV),
        (flags.noexec, mount::NOEXEC),
        (flags.noatime, mount::NOATIME),
    ]
    .iter()
    .filter(|(wanted, _)| *wanted)
    .fold(0, |bits, (_, bit)| bits | bit)
}

/// Adds what the filesystem itself said (fsopen(2): read from the context) to a bare error number.
pub fn describe(context: &OwnedFd, error: rustix::io::Errno) -> io::Error {
    let mut text = [0; 512];
    let mut words = Vec::new();
    while let Ok(length) = rustix::io::read(context.as_fd(), &mut text) {
        if length == 0 || words.len() > 8 {
            break;
        }
        words.push(String::from_utf8_lossy(&text[..length]).trim_end().to_owned());
    }
    let error = io::Error::from(error);
    if words.is_empty() {
        error
    } else {
        io::Error::new(error.kind(), format!("{error} ({})", words.join("; ")))
    }
}
