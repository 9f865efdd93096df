//! Making processes: `clone3(2)` from a single-threaded process, `execve(2)`, signal dispositions.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// A child made by [`clone_process`].
#[derive(Debug)]
pub struct ChildProcess {
    /// Its pid in the caller's pid namespace.
    pub pid: Pid,
    /// A descriptor of it: readable when it has ended, immune to reuse of the pid.
    pub pidfd: OwnedFd,
}

/// How [`clone_process`] makes the child.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneOptions<'a> {
    /// `CLONE_NEW*` bits (clone(2)).
    pub flags: u64,
    /// Start it in this cgroup v2 directory (`CLONE_INTO_CGROUP`, kernel 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// `CLONE_NEWUSER`.
pub const NEW_USER: u64 = libc::CLONE_NEWUSER as u64;
/// `CLONE_NEWNS`.
pub const NEW_MOUNT: u64 = libc::CLONE_NEWNS as u64;
/// `CLONE_NEWPID`.
pub const NEW_PID: u64 = libc::CLONE_NEWPID as u64;
/// `CLONE_NEWNET`.
pub const NEW_NETWORK: u64 = libc::CLONE_NEWNET as u64;
/// `CLONE_NEWIPC`.
pub const NEW_IPC: u64 = libc::CLONE_NEWIPC as u64;
/// `CLONE_NEWUTS`.
pub const NEW_UTS: u64 = libc::CLONE_NEWUTS as u64;

/// `CLONE_INTO_CGROUP` (linux/sched.h); libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks; `child` runs in the new process, whose exit code is what it returns.
///
/// Only a single-threaded process may do this, because the child goes on with ordinary Rust code: a lock held by another
/// thread (the allocator's, for one) would stay locked in it for ever. This is checked.
///
/// Falls back to clone(2) where clone3(2) is not there (`ENOSYS` under older seccomp profiles); `cgroup` is then an error.
///
/// # Errors
/// `EBUSY` in a process with several threads, else the kernel's.
pub fn clone_process(options: CloneOptions<'_>, child: impl FnOnce() -> i32) -> io::Result<ChildProcess> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let mut pidfd: RawFd = -1;
    let pid = match raw_clone3(options, &mut pidfd) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && options.cgroup.is_none() => {
            raw_clone(options.flags, &mut pidfd)?
        }
        other => other?,
    };
    let Some(pid) = Pid::from_raw(pid) else {
        let code = child();
        // SAFETY: `_exit` ends the process without running destructors or exit handlers that belong to the parent.
        unsafe { libc::_exit(code) }
    };
    // SAFETY: the kernel stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(ChildProcess { pid, pidfd })
}

/// The link count of the task directory is 2 and one for each thread (proc(5)).
fn is_single_threaded() -> io::Result<bool> {
    Ok(rustix::fs::stat("/proc/self/task")?.st_nlink == 3)
}

fn raw_clone3(options: CloneOptions<'_>, pidfd: &mut RawFd) -> io::Result<i32> {
    // SAFETY: `clone_args` is a plain structure of integers, for which all zeroes is the documented default.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = options.flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = pidfd as *mut RawFd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = options.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and without a stack this is a fork: the child gets a copy of this very stack. The process
    // is single-threaded (checked by the caller), so no lock is held by a thread that the child lacks. `arguments` and
    // `pidfd` outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    if result >= 0 { Ok(result as i32) } else { Err(io::Error::last_os_error()) }
}

fn raw_clone(flags: u64, pidfd: &mut RawFd) -> io::Result<i32> {
    let flags = flags | libc::CLONE_PIDFD as u64 | libc::SIGCHLD as u64;
    // SAFETY: as in `raw_clone3`; clone(2) stores the pidfd where `parent_tid` points.
    let result =
        unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, pidfd as *mut RawFd, 0_usize, 0_usize) };
    if result >= 0 { Ok(result as i32) } else { Err(io::Error::last_os_error()) }
}

/// Replaces the program of this process; returns only on failure.
pub fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: both arrays are NULL-terminated and point to C strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// [`execve`] of an open file (execveat(2) with `AT_EMPTY_PATH`).
pub fn execute_descriptor(file: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: as in `execve`; the descriptor is open and the path is an empty C string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

/// Gives every signal its default disposition and unblocks all: a user's program must not inherit Rust's ignored
/// `SIGPIPE`.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: `SIG_DFL` is a valid disposition; the kernel refuses it for SIGKILL, SIGSTOP and the C library's own
        // two, which never have another.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero `sigset_t` is overwritten by `sigemptyset` before use.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is a valid place for a signal set.
    unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: `none` is initialised; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Makes `command`'s child begin with [`reset_signals`].
pub fn reset_signals_in_child(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: `reset_signals` makes system calls only (signal, sigemptyset, sigprocmask are async-signal-safe), allocates
    // nothing and takes no lock.
    unsafe {
        command.pre_exec(|| {
            reset_signals();
            Ok(())
        });
    }
}

/// Blocks every signal, so that [`wait_signal`] receives them one by one.
pub fn block_signals() {
    // SAFETY: an all-zero `sigset_t` is overwritten by `sigfillset` before use.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is a valid place for a signal set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: `all` is initialised; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
}

/// Waits for the next signal of a process that called [`block_signals`].
///
/// # Errors
/// `EINTR` when a stop was continued in between.
pub fn wait_signal() -> io::Result<i32> {
    // SAFETY: an all-zero `sigset_t` is overwritten by `sigfillset` before use.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is a valid place for a signal set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: `all` is initialised; no details of the signal are asked for.
    let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
    if signal > 0 { Ok(signal) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal by number (kill(2)); rustix knows only the named ones, containers use real-time signals too.
///
/// # Errors
/// The kernel's.
pub fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers.
    let result = unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal by number to the process of a pidfd (pidfd_send_signal(2)).
///
/// # Errors
/// The kernel's; `ESRCH` for a process that is gone.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open, no details are given.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on as close-on-exec (close_range(2) with `CLOSE_RANGE_CLOEXEC`, kernel 5.11).
///
/// # Errors
/// The kernel's.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only marks descriptors; none is closed before an exec.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes over a descriptor that this process inherited under a fixed number (sd_listen_fds(3)), marked close-on-exec.
///
/// # Errors
/// `EBADF` where it is not open, `EINVAL` for a standard stream.
pub fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: fcntl with two integers; it fails with EBADF for a number that is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and as an inherited one no value of this program owns it; callers take each once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Detaches this process from a cgroup view: `unshare(CLONE_NEWCGROUP)`, and likewise for other namespaces that do not
/// split memory or descriptors.
///
/// # Errors
/// The kernel's.
pub fn unshare_cgroup() -> io::Result<()> {
    // SAFETY: a new cgroup namespace changes no memory, descriptor or thread property that Rust relies on.
    let result = unsafe { libc::unshare(libc::CLONE_NEWCGROUP) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives this process a mount namespace of its own (single-threaded helper processes only).
///
/// # Errors
/// The kernel's.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: unsharing the mount namespace also unshares the working directory and root of this thread from other
    // threads, which Rust code does not rely on; memory and descriptors stay shared.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has new files of the calling thread belong to these ids (setfsuid(2)), while the thread may do as much as before. For
/// a thread that ends with its work: other threads keep their ids.
///
/// # Errors
/// `EPERM` where the ids may not be taken.
pub fn set_filesystem_ids(uid: u32, gid: u32) -> io::Result<()> {
    use rustix::thread::{CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits};
    // Otherwise the kernel takes the capabilities over files away when the id changes from 0 (capabilities(7), "Effect of
    // user ID changes on capabilities").
    set_capabilities_secure_bits(capabilities_secure_bits()? | CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    // They report no failure, only the id before.
    set_filesystem_id(libc::SYS_setfsgid, gid);
    set_filesystem_id(libc::SYS_setfsuid, uid);
    // Asking for an id that nobody has tells the present one.
    let now_gid = set_filesystem_id(libc::SYS_setfsgid, u32::MAX);
    let now_uid = set_filesystem_id(libc::SYS_setfsuid, u32::MAX);
    if (now_uid, now_gid) == (i64::from(uid), i64::from(gid)) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

/// setfsuid(2) or setfsgid(2).
fn set_filesystem_id(call: libc::c_long, id: u32) -> libc::c_long {
    // SAFETY: takes an integer and changes the credentials of the calling thread alone.
    unsafe { libc::syscall(call, id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_to_fork_a_threaded_process() {
        // The test harness itself is threaded.
        let error = clone_process(CloneOptions::default(), || 0).expect_err("must be refused");
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn failed_exec_returns_the_error() {
        assert_eq!(execve(c"/does/not/exist", &[], &[]).raw_os_error(), Some(libc::ENOENT));
    }
}
