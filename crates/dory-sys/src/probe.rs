//! System calls that are made only to see whether they are allowed.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// `CLONE_NEWCGROUP`.
pub const NEW_CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;

/// Returns from a filter that lets every call through.
const ALLOW_ALL: [libc::sock_filter; 1] =
    [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];

/// The version of Landlock's interface (landlock(7)).
///
/// # Errors
/// `ENOSYS` without Landlock in the kernel, `EOPNOTSUPP` where it is switched off.
pub fn landlock_version() -> io::Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no structure and reads no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Puts a filter that lets every call through on the calling thread, for good.
///
/// # Errors
/// As [`crate::seccomp::load_filter`].
pub fn load_open_filter() -> io::Result<()> {
    crate::seccomp::load_filter(&ALLOW_ALL)
}

/// The same, with a descriptor on which a supervisor could answer calls (`SECCOMP_FILTER_FLAG_NEW_LISTENER`).
///
/// # Errors
/// As [`load_open_filter`]; `EBUSY` where a filter above has a listener already.
pub fn load_open_filter_with_listener() -> io::Result<OwnedFd> {
    let mut program = ALLOW_ALL;
    let header = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: `header` points to one initialised instruction, and both live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const header,
        )
    };
    match RawFd::try_from(result) {
        // SAFETY: on success the kernel returned a new descriptor that nobody else owns.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Attaches to `pid` with ptrace(2), without stopping it; the attachment ends with the caller.
///
/// # Errors
/// `EPERM` where Yama, a security module or a tracer above does not let it.
pub fn seize(pid: Pid) -> io::Result<()> {
    // SAFETY: PTRACE_SEIZE takes no memory: address and options are zero.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw_nonzero().get(), 0_usize, 0_usize) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn landlock_answers_with_a_version_or_an_error() {
        match landlock_version() {
            Ok(version) => assert!(version >= 1),
            Err(error) => {
                assert!(matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)), "{error}")
            }
        }
    }
}
