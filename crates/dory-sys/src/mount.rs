//! `mount_setattr(2)`, which rustix lacks: read-only trees, propagation, id-mapped mounts.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What `mount_setattr` changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttributes<'a> {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or 0 for no change.
    pub propagation: u64,
    /// Map ids through this user namespace (`MOUNT_ATTR_IDMAP`, kernel 5.12; overlay's lower directories: 5.19).
    pub user_namespace: Option<BorrowedFd<'a>>,
}

/// `MOUNT_ATTR_RDONLY`.
pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// `MOUNT_ATTR_NOSUID`.
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// `MOUNT_ATTR_NODEV`.
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
/// `MOUNT_ATTR_NOEXEC`.
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
/// `MOUNT_ATTR_NOATIME`.
pub const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
/// The bits that choose an access-time mode: cleared together when one of them is set.
pub const ATIME_MASK: u64 = libc::MOUNT_ATTR__ATIME;
/// `MS_PRIVATE`.
pub const PRIVATE: u64 = libc::MS_PRIVATE;
/// `MS_SLAVE`.
pub const SLAVE: u64 = libc::MS_SLAVE;
/// `MS_SHARED`.
pub const SHARED: u64 = libc::MS_SHARED;

/// Changes the mount that `mount` refers to, and with `recursive` those below it (mount_setattr(2), kernel 5.12).
///
/// # Errors
/// The kernel's; `EPERM` for an id map of a filesystem whose superblock belongs to an outer user namespace.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: &MountAttributes<'_>,
) -> io::Result<()> {
    let mut raw = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    if let Some(namespace) = attributes.user_namespace {
        raw.attr_set |= libc::MOUNT_ATTR_IDMAP;
        raw.userns_fd = namespace.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is open for the call's length, the path is an empty C string, and `raw` is a complete
    // `mount_attr` of exactly the size that is passed; the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
