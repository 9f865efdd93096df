//! The files of a container that does not run, put together as a start would: its overlay with volumes and binds on it.
//!
//! A short-lived process mounts them in a mount namespace of its own, in which nobody ever runs anything, and hands the
//! engine two descriptors: the root directory and the namespace. The namespace lives as long as its descriptor. So nothing
//! is mounted where anybody could see it, and an engine that dies leaves nothing to unmount.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use dory_sys::fault_point;
use dory_sys::process::{self, CloneOptions, clone_process};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, mount_change};
use serde::{Deserialize, Serialize};

use crate::error::StartFailure;
use crate::filesystem::{attach, set_readonly};
use crate::init::Root;
use crate::init::mounts::attach_bind;
use crate::init::namespaces::open_one;
use crate::protocol;
use crate::shim;
use crate::shim::rootfs::mount_rootfs;
use crate::shim::start::{clone_binds, end, map_ids, write_maps};
use crate::spec::{Mount, MountSource, Rootfs, UserNamespace};

/// The role's first argument.
pub const ROLE: &str = "stopped";

/// What the files are made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoppedFiles {
    /// The overlay.
    pub rootfs: Rootfs,
    /// Volumes and binds, parents before what lies below them; everything else than binds is left out.
    pub binds: Vec<Mount>,
    /// Whose ids the files belong to.
    pub user_namespace: UserNamespace,
    /// A directory that is there, for mounts that nobody sees.
    pub scratch: PathBuf,
}

/// A stopped container's files, for as long as this lives.
#[derive(Debug)]
pub struct StoppedRoot {
    /// The root directory (`O_PATH`).
    pub root: OwnedFd,
    /// Keeps what is mounted on the root.
    namespace: OwnedFd,
}

impl StoppedRoot {
    /// The root directory, and the namespace that must be kept for as long as it is used.
    pub fn into_parts(self) -> (OwnedFd, OwnedFd) {
        (self.root, self.namespace)
    }
}

/// A stopped container's files cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum StoppedError {
    /// The helper could not be started or waited for.
    #[error("cannot start the helper that mounts a stopped container's files")]
    Spawn(#[source] io::Error),
    /// The helper went away without an answer.
    #[error("the helper that mounts a stopped container's files went away")]
    Lost(#[source] io::Error),
    /// Something cannot be mounted.
    #[error("cannot mount the container's files: {0}")]
    Mount(String),
}

/// The helper's word; the two descriptors come with `None`.
type Answer = Option<String>;

/// The engine's side.
pub(crate) fn ask(helper: &UnixStream, files: &StoppedFiles) -> Result<StoppedRoot, StoppedError> {
    protocol::send(helper, files, &[]).map_err(StoppedError::Lost)?;
    let (answer, descriptors) = protocol::receive::<Answer>(helper).map_err(StoppedError::Lost)?;
    match (answer, <[OwnedFd; 2]>::try_from(descriptors)) {
        (Some(message), _) => Err(StoppedError::Mount(message)),
        (None, Ok([root, namespace])) => Ok(StoppedRoot { root, namespace }),
        (None, Err(_)) => Err(StoppedError::Lost(io::Error::other("no descriptors arrived"))),
    }
}

/// Runs as the helper, whose standard input is the connection; returns the process's exit code.
pub fn main() -> i32 {
    let run = || -> io::Result<()> {
        let engine = shim::take_channel()?;
        let (files, _) = protocol::receive::<StoppedFiles>(&engine)?;
        fault_point!("stopped.asked");
        match mount(&files).and_then(|root| Ok((root, namespace()?))) {
            Ok((root, namespace)) => {
                fault_point!("stopped.mounted");
                protocol::send(&engine, &Answer::None, &[root.as_fd(), namespace.as_fd()])
            }
            Err(failure) => protocol::send(&engine, &Answer::Some(failure.to_string()), &[]),
        }
    };
    match run() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("dory {ROLE}: cannot speak with the engine: {error}");
            2
        }
    }
}

fn namespace() -> Result<OwnedFd, StartFailure> {
    open_one("mnt").map_err(|error| StartFailure::refused("cannot open the mount namespace", error))
}

/// Mounts everything; the root directory.
fn mount(files: &StoppedFiles) -> Result<OwnedFd, StartFailure> {
    let refused = |what: &'static str| move |error: io::Error| StartFailure::refused(what, error);
    let user = &files.user_namespace;
    let mapped = if user.is_identity() {
        None
    } else {
        Some(make_user_namespace(user).map_err(refused("cannot make a user namespace"))?)
    };
    // In the engine's mount namespace, as at a start.
    let binds = clone_binds(&files.binds)?;
    fault_point!("stopped.binds-cloned");
    process::unshare_mounts().map_err(refused("cannot make a mount namespace"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| StartFailure::refused("cannot separate the mounts", error))?;
    let root = mount_rootfs(&files.rootfs, mapped.as_ref().map(AsFd::as_fd), &files.scratch)
        .map_err(refused("cannot mount the root filesystem"))?;
    attach_at(&root, Path::new("/")).map_err(refused("cannot attach the root filesystem"))?;
    if mapped.is_some() {
        // Mount points that are missing are made, and belong to the container's root.
        let (uid, gid) = user.root();
        process::set_filesystem_ids(uid, gid).map_err(refused("cannot take the container's ids"))?;
    }
    let sources = files.binds.iter().filter(|mount| matches!(mount.source, MountSource::Bind { .. }));
    for (mount, bind) in sources.zip(&binds) {
        place(&root, mount, bind, mapped.as_ref().map(AsFd::as_fd)).map_err(|error| {
            StartFailure::refused(format!("error mounting to `{}`", mount.destination), error)
        })?;
    }
    if files.rootfs.readonly {
        set_readonly(root.as_fd()).map_err(refused("cannot make the root read-only"))?;
    }
    Ok(root)
}

fn attach_at(mount: &OwnedFd, place: &Path) -> io::Result<()> {
    let place = rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(mount.as_fd(), place.as_fd())
}

fn place(root: &OwnedFd, mount: &Mount, bind: &OwnedFd, mapped: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if let (MountSource::Bind { id_mapped: true, recursive, .. }, Some(namespace)) = (&mount.source, mapped) {
        map_ids(bind.as_fd(), *recursive, namespace)?;
    }
    attach_bind(Root::new(root.as_fd()), mount, bind)
}

/// A user namespace with the container's maps, for id-mapped mounts; it lives as long as they do.
fn make_user_namespace(user: &UserNamespace) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let options = CloneOptions { flags: process::NEW_USER, cgroup: None };
    let child = clone_process(options, || {
        let told = open_one("user").and_then(|namespace| protocol::send(&theirs, &(), &[namespace.as_fd()]));
        if told.is_ok() {
            // Until it is killed: the maps are written while a process is in the namespace.
            let _ended = protocol::receive::<()>(&theirs);
        }
        0
    })?;
    drop(theirs);
    let made = protocol::receive::<()>(&ours).and_then(|((), mut descriptors)| {
        write_maps(child.pid.as_raw_nonzero().get(), user)?;
        descriptors.pop().ok_or_else(|| io::Error::other("the namespace did not arrive"))
    });
    end(&child);
    made
}
