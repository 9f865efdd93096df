//! The summary of facilities that people see.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Feature};
use crate::facilities::Facilities;

/// How containers can be isolated here, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// An engine of ours above makes the containers. Never found by trying, only by its handshake.
    Delegated,
    /// Namespaces, mounts and networks of the kernel, as on a host.
    Kernel,
    /// The same, with networks owned by a child user namespace.
    Mixed,
    /// Everything within a new user namespace.
    Rootless,
    /// chroot and real users, no namespaces: no security boundary between containers.
    Chroot,
    /// Unchanged surroundings; a supervisor answers system calls.
    Supervised,
}

impl Tier {
    /// The best tier whose needs are met.
    pub(crate) fn of(facilities: &Facilities) -> Option<Self> {
        let direct = |feature| facilities.direct(feature);
        let inner = |feature| facilities.in_user_namespace(feature);
        let mapped = facilities.user_namespace.map.is_some();
        if has_rootfs(direct) && has_network(direct) {
            Some(Self::Kernel)
        } else if has_rootfs(direct) && mapped && has_network(inner) {
            Some(Self::Mixed)
        } else if mapped && has_rootfs(inner) {
            Some(Self::Rootless)
        } else if [Feature::Chroot, Feature::SetUser, Feature::Chown]
            .into_iter()
            .all(|feature| direct(feature).works())
        {
            Some(Self::Chroot)
        } else if direct(Feature::SeccompNotify).works() && direct(Feature::Ptrace).works() {
            // A supervisor reads its processes' memory, which falls under Yama as ptrace does.
            Some(Self::Supervised)
        } else {
            None
        }
    }
}

/// A root file system of a container's own, with a /proc.
fn has_rootfs(attempt: impl Fn(Feature) -> Attempt) -> bool {
    let works = |feature| attempt(feature).works();
    ROOTFS.into_iter().all(works)
        && (works(Feature::PivotRoot) || works(Feature::MoveRoot))
        && (works(Feature::FreshProc) || works(Feature::BoundProc))
}

fn has_network(attempt: impl Fn(Feature) -> Attempt) -> bool {
    NETWORK.into_iter().all(|feature| attempt(feature).works())
}

/// Needed for a root file system, besides a way to change root and a /proc.
pub(crate) const ROOTFS: [Feature; 4] =
    [Feature::MountNamespace, Feature::PidNamespace, Feature::Tmpfs, Feature::Bind];

/// Needed for bridge networks.
pub(crate) const NETWORK: [Feature; 3] = [Feature::NetworkNamespace, Feature::Bridge, Feature::Veth];

impl fmt::Display for Tier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Delegated => "delegated",
            Self::Kernel => "kernel",
            Self::Mixed => "mixed",
            Self::Rootless => "rootless",
            Self::Chroot => "chroot",
            Self::Supervised => "supervised",
        })
    }
}
