//! Features and what became of trying them.

use std::fmt;
use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Something that an engine needs of the kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Feature {
            $($(#[$doc])* $name,)*
        }

        impl Feature {
            /// Every feature, in the order in which people should read them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What people call it.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

features! {
    /// `CLONE_NEWNS`.
    MountNamespace => "mount namespace",
    /// `CLONE_NEWPID`.
    PidNamespace => "pid namespace",
    /// `CLONE_NEWNET`.
    NetworkNamespace => "network namespace",
    /// `CLONE_NEWUTS`.
    UtsNamespace => "uts namespace",
    /// `CLONE_NEWIPC`.
    IpcNamespace => "ipc namespace",
    /// `CLONE_NEWCGROUP`.
    CgroupNamespace => "cgroup namespace",
    /// Mounting a tmpfs.
    Tmpfs => "tmpfs",
    /// A bind mount.
    Bind => "bind mount",
    /// An overlay with its upper directory in the data-root, and a whiteout made through it.
    Overlay => "overlay on the data-root",
    /// fsopen, fsmount and move_mount.
    NewMountApi => "new mount API",
    /// A new pid namespace's own /proc.
    FreshProc => "fresh /proc",
    /// The surrounding /proc bound elsewhere.
    BoundProc => "bound /proc",
    /// A new network namespace's own /sys, writable.
    Sysfs => "fresh /sys",
    /// The same, read-only; tried only where that was refused.
    SysfsReadOnly => "fresh /sys, read-only",
    /// A devpts instance of its own.
    Devpts => "devpts",
    /// POSIX message queues.
    Mqueue => "mqueue",
    /// An id-mapped mount of a filesystem mounted by ourselves.
    IdMappedOwn => "id-mapped mount of an own filesystem",
    /// An id-mapped mount of the data-root's filesystem.
    IdMappedDataRoot => "id-mapped mount of the data-root",
    /// pivot_root(2).
    PivotRoot => "pivot_root",
    /// Moving a mount onto `/` and chroot into it; tried only where pivot_root was refused.
    MoveRoot => "moving the root mount",
    /// sethostname(2) in an own uts namespace.
    Hostname => "host name",
    /// A bridge in an own network namespace.
    Bridge => "bridge",
    /// A veth pair in an own network namespace.
    Veth => "veth pair",
    /// A chain of type nat in an own network namespace.
    Nat => "nftables NAT",
    /// Writing a network sysctl in an own network namespace.
    NetworkSysctl => "network sysctl",
    /// A fresh mount of a control group hierarchy, and a group made in it.
    CgroupFreshMount => "fresh cgroup mount",
    /// A group made in the hierarchies as they are mounted.
    CgroupWrite => "cgroup as mounted",
    /// chroot(2).
    Chroot => "chroot",
    /// A character device node made and opened.
    DeviceNode => "device nodes",
    /// The 0:0 node that overlay takes for a whiteout.
    Whiteout => "whiteout nodes",
    /// Giving a file to another user.
    Chown => "chown to other users",
    /// Becoming another user.
    SetUser => "setuid to other users",
    /// `trusted.*` extended attributes.
    TrustedXattr => "trusted.* attributes",
    /// A seccomp filter without no_new_privs.
    SeccompPlain => "seccomp filter",
    /// A seccomp filter with no_new_privs.
    SeccompConfined => "seccomp filter with no_new_privs",
    /// A seccomp filter that asks a supervisor.
    SeccompNotify => "seccomp user notification",
    /// Attaching to a child with ptrace.
    Ptrace => "ptrace of a child",
    /// Opening /dev/net/tun.
    Tun => "/dev/net/tun",
    /// Opening /dev/fuse.
    Fuse => "/dev/fuse",
}

/// What became of trying.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attempt {
    /// Nobody tried: something that it builds on was refused, or nobody needed to know.
    #[default]
    Untried,
    /// It worked.
    Works,
    /// The kernel refused, with this error number.
    Refused(i32),
    /// The process that tried did not come back with an answer.
    Lost,
}

impl Attempt {
    /// True only where it was seen to work.
    pub fn works(self) -> bool {
        self == Self::Works
    }

    /// The byte in which a trial reports.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Works => 0,
            // Linux error numbers that system calls return to programs end at 133.
            Self::Refused(number) => u8::try_from(number).unwrap_or(u8::MAX),
            Self::Untried | Self::Lost => u8::MAX,
        }
    }

    /// Reads [`Attempt::to_byte`].
    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Works,
            u8::MAX => Self::Lost,
            number => Self::Refused(i32::from(number)),
        }
    }
}

impl From<io::Result<()>> for Attempt {
    fn from(result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Works,
            Err(error) => Self::Refused(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untried => formatter.write_str("not tried"),
            Self::Works => formatter.write_str("yes"),
            Self::Refused(number) => write!(formatter, "no: {}", io::Error::from_raw_os_error(*number)),
            Self::Lost => formatter.write_str("no: the attempt did not return"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        for attempt in [Attempt::Works, Attempt::Refused(1), Attempt::Refused(133), Attempt::Lost] {
            assert_eq!(Attempt::from_byte(attempt.to_byte()), attempt);
        }
        assert_eq!(Attempt::from(Err(io::Error::other("?"))), Attempt::Refused(5));
    }

    #[test]
    fn features_have_distinct_labels() {
        let labels: std::collections::BTreeSet<&str> =
            Feature::ALL.iter().map(|feature| feature.label()).collect();
        assert_eq!(labels.len(), Feature::ALL.len());
    }
}
