//! `seccomp(2)`: loading a filter.

use std::io;

/// Confines the calling thread by `program` (`SECCOMP_SET_MODE_FILTER`). It needs `no_new_privs` or CAP_SYS_ADMIN in
/// the caller's user namespace.
///
/// # Errors
/// `EINVAL` for a program that the kernel's checker refuses, `EACCES` without the privilege above, `ENOMEM` past 32,768
/// instructions over all filters of the thread.
pub fn load_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // The kernel's declaration is not const, but it copies the program and never writes it.
    let header = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `header` points to `length` initialised instructions that live until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const header) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
