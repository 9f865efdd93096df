//! Descriptors of a container's namespaces, for those who join it later.
//!
//! They come from the container's own init through the channel and not from `/proc/<pid>/ns`: opening those asks for
//! ptrace rights over a process that may run as somebody else (and setns on a pidfd asks the same).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use crate::error::StartFailure;
use crate::spec::{Namespace, Namespaces};

/// Kinds in the order in which they are joined: the user namespace first, for its privilege over the rest; mounts last,
/// because they take `/proc` away.
const KINDS: [(&str, LinkNameSpaceType); 7] = [
    ("user", LinkNameSpaceType::User),
    ("pid", LinkNameSpaceType::ProcessID),
    ("net", LinkNameSpaceType::Network),
    ("ipc", LinkNameSpaceType::InterProcessCommunication),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("cgroup", LinkNameSpaceType::ControlGroup),
    ("mnt", LinkNameSpaceType::Mount),
];

/// The namespaces of one container that are not the shim's own.
#[derive(Debug)]
pub struct NamespaceSet {
    members: Vec<(&'static str, LinkNameSpaceType, OwnedFd)>,
}

/// This process's own namespaces, in the order of [`KINDS`]; called by init.
pub fn open_own() -> io::Result<Vec<OwnedFd>> {
    KINDS.iter().map(|(name, _)| open_one(name)).collect()
}

/// This process's own namespace of one kind.
pub fn open_one(name: &str) -> io::Result<OwnedFd> {
    let path = format!("/proc/thread-self/ns/{name}");
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

impl NamespaceSet {
    /// How many descriptors make a set.
    pub const LENGTH: usize = KINDS.len();

    /// The set of the descriptors that init sent, less those in which this process is already: joining those is needless,
    /// for the user namespace an error, and for one of the engine's forbidden from within a container's user namespace.
    pub fn new(descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let mut members = Vec::new();
        for ((name, kind), descriptor) in KINDS.into_iter().zip(descriptors) {
            let (theirs, ours) = (rustix::fs::fstat(&descriptor)?, rustix::fs::fstat(open_one(name)?)?);
            if theirs.st_ino != ours.st_ino {
                members.push((name, kind, descriptor));
            }
        }
        Ok(Self { members })
    }

    /// True where joining changes the user namespace.
    pub fn has_user(&self) -> bool {
        self.members.iter().any(|(name, ..)| *name == "user")
    }

    /// The network namespace, where it is not the shim's.
    pub fn network(&self) -> Option<BorrowedFd<'_>> {
        self.members.iter().find(|(name, ..)| *name == "net").map(|(.., descriptor)| descriptor.as_fd())
    }

    /// Makes this process's *children* members of the pid namespace.
    pub fn join_pid(&self) -> io::Result<()> {
        self.join(|name| name == "pid")
    }

    /// Makes this process a member of all others.
    pub fn join_rest(&self) -> io::Result<()> {
        self.join(|name| name != "pid")
    }

    fn join(&self, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        for (name, kind, descriptor) in &self.members {
            if wanted(name) {
                move_into_link_name_space(descriptor.as_fd(), Some(*kind))
                    .map_err(|error| io::Error::other(format!("{name}: {error}")))?;
            }
        }
        Ok(())
    }
}

/// Moves the shim itself into the namespaces of another container (`container:…`): its children are born there. For pids
/// that is the only way; the others could be joined by the child, had it not lost its privilege over them when it got a
/// user namespace of its own.
pub fn join_shared(namespaces: &Namespaces) -> Result<(), StartFailure> {
    let shared = [
        (namespaces.ipc, ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION, "ipc"),
        (namespaces.uts, ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME, "uts"),
        (namespaces.network, ThreadNameSpaceType::NETWORK, "network"),
        (namespaces.pid, ThreadNameSpaceType::PROCESS_ID, "pid"),
    ];
    for (namespace, kind, name) in shared {
        let Namespace::Of { pid } = namespace else { continue };
        let join = || -> io::Result<()> {
            let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no such process"))?;
            let process = pidfd_open(pid, PidfdFlags::empty())?;
            Ok(move_into_thread_name_spaces(process.as_fd(), kind)?)
        };
        join().map_err(|error| {
            StartFailure::refused(format!("cannot join the {name} namespace of process {pid}"), error)
        })?;
    }
    Ok(())
}
