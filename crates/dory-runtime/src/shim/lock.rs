//! Binds of a container with a user namespace of its own keep the flags that they were given.
//!
//! Whoever is root in the namespace that owns a mount namespace may change any mount in it: root in a confined container
//! could make a read-only bind writable, and its ids are mapped so that root inside writes as root outside. The kernel
//! locks a mount's flags when it copies the mount into a mount namespace with a less privileged owner
//! (mount_namespaces(7), "Restrictions on mount namespaces"), and only then. So a short-lived child attaches the binds in
//! a mount namespace of its own, enters the container's user namespace, copies the mount namespace there, and clones the
//! binds from the copy: those clones are locked. Everything else it made dies with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use dory_sys::process::{CloneOptions, clone_process};
use rustix::fs::{self, CWD, FileType, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{WaitId, WaitIdOptions, fchdir, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::filesystem::{attach, clone_mount, mount_filesystem};
use crate::protocol;
use crate::spec::MountFlags;

/// Descriptors in one message; the kernel takes 253.
const CHUNK: usize = 200;

/// Locks the flags of `binds`, which are detached, for containers in `user_namespace`: the answer has a locked one for
/// each. The second value of each says whether the mounts below come along. `scratch` is a directory that nobody else uses.
pub fn lock_flags(
    binds: &[(&OwnedFd, bool)],
    user_namespace: BorrowedFd<'_>,
    scratch: &Path,
) -> io::Result<Vec<OwnedFd>> {
    let mut locked = Vec::with_capacity(binds.len());
    for chunk in binds.chunks(CHUNK) {
        locked.extend(lock_chunk(chunk, user_namespace, scratch)?);
    }
    Ok(locked)
}

fn lock_chunk(
    binds: &[(&OwnedFd, bool)],
    user_namespace: BorrowedFd<'_>,
    scratch: &Path,
) -> io::Result<Vec<OwnedFd>> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = clone_process(CloneOptions::default(), || {
        let result = lock_in_child(binds, user_namespace, scratch);
        let sent = match &result {
            Ok(locked) => {
                let descriptors: Vec<BorrowedFd<'_>> = locked.iter().map(AsFd::as_fd).collect();
                protocol::send(&theirs, &None::<String>, &descriptors)
            }
            Err(error) => protocol::send(&theirs, &Some(error.to_string()), &[]),
        };
        i32::from(sent.is_err())
    })?;
    drop(theirs);
    let answer = protocol::receive::<Option<String>>(&ours);
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    match answer? {
        (None, locked) if locked.len() == binds.len() => Ok(locked),
        (None, _) => Err(io::Error::other("the helper that locks binds sent too few")),
        (Some(message), _) => Err(io::Error::other(message)),
    }
}

fn lock_in_child(
    binds: &[(&OwnedFd, bool)],
    user_namespace: BorrowedFd<'_>,
    scratch: &Path,
) -> io::Result<Vec<OwnedFd>> {
    dory_sys::process::unshare_mounts()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let place = fs::open(scratch, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // Readable for root in the container, to whom its owner is nobody.
    let tmpfs = mount_filesystem("tmpfs", "dory", &["mode=755".to_owned()], &MountFlags::default())?;
    attach(tmpfs.as_fd(), place.as_fd())?;
    for (number, (bind, _)) in binds.iter().enumerate() {
        attach(bind.as_fd(), make_point(&tmpfs, &number.to_string(), bind)?.as_fd())?;
    }
    // The working directory is the one thing that leads into the copy.
    fchdir(&tmpfs)?;
    move_into_link_name_space(user_namespace, Some(LinkNameSpaceType::User))?;
    dory_sys::process::unshare_mounts()?;
    let clone = |(number, (_, recursive)): (usize, &(&OwnedFd, bool))| {
        clone_mount(CWD, Path::new(&number.to_string()), *recursive)
    };
    binds.iter().enumerate().map(clone).collect()
}

/// A directory or a file to attach `bind` on, whichever it is itself.
fn make_point(tmpfs: &OwnedFd, name: &str, bind: &OwnedFd) -> io::Result<OwnedFd> {
    if FileType::from_raw_mode(fs::fstat(bind)?.st_mode) == FileType::Directory {
        fs::mkdirat(tmpfs, name, Mode::from_raw_mode(0o755))?;
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        fs::openat(tmpfs, name, flags, Mode::from_raw_mode(0o644))?;
    }
    Ok(fs::openat(tmpfs, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}
