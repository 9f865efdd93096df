//! Actions of a profile and the filter return values they stand for.

use serde::Deserialize;

/// What a rule does with a call (OCI runtime-spec config-linux.md "Seccomp", libseccomp's names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Action {
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// The 32-bit value that a filter returns to the kernel (uapi `linux/seccomp.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Return(pub(crate) u32);

impl Return {
    pub(crate) const KILL_PROCESS: Self = Self(libc::SECCOMP_RET_KILL_PROCESS);
    pub(crate) const ENOSYS: Self = Self(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned());
}

impl Action {
    /// The return value; `errno` is the low half where the action has one, EPERM unless given (as runc).
    pub(crate) fn to_return(self, errno: Option<u16>) -> Return {
        let data = u32::from(errno.unwrap_or(1));
        Return(match self {
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Errno => libc::SECCOMP_RET_ERRNO | data,
            Self::Trace => libc::SECCOMP_RET_TRACE | data,
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Notify => libc::SECCOMP_RET_USER_NOTIF,
        })
    }

    /// True where an unlisted call goes through, so that the profile is a list of denials.
    pub(crate) fn lets_pass(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }
}
