//! Owners, permissions, extended attributes and times of what is unpacked, with no call that changes nothing.

use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::extract::ExtractError;
use crate::tar_stream::Entry;

/// The attribute that marks an opaque directory for mounts with and without `userxattr`.
pub(super) const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];
/// The attribute that makes a regular file a whiteout (kernel 6.7, overlayfs.rst "Whiteouts and opaque directories").
pub(super) const WHITEOUT: [&str; 2] = ["trusted.overlay.whiteout", "user.overlay.whiteout"];
/// New files in a directory inherit this, so it is set when the directory's files are all there.
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// Attributes that would let an archive speak to overlayfs itself.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// What new files get from this process without being asked.
#[derive(Debug)]
pub(super) struct Creator {
    uid: u32,
    gid: u32,
    /// Permission bits that `open` and `mkdir` take away.
    umask: u32,
}

impl Creator {
    /// Reads the process's ids and its umask, which only `/proc` tells without changing it.
    pub(super) fn current() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let umask = umask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            // Unknown: as if it took everything, so that permissions are always set.
            umask: umask.unwrap_or(0o777),
        }
    }

    /// Gives the open file or directory the entry's owner, permissions and attributes, in this order: a change of
    /// owner takes setuid bits and capabilities away.
    pub(super) fn apply(
        &self,
        fd: BorrowedFd<'_>,
        entry: &Entry,
        parent_set_group_id: bool,
        fresh: bool,
        warnings: &mut Warnings,
    ) -> Result<(), ExtractError> {
        let foreign = self.is_foreign(entry, parent_set_group_id) || !fresh;
        if foreign {
            let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            fs::fchown(fd, owner.0, owner.1).map_err(|errno| owner_error(entry, errno))?;
        }
        let given = entry.mode & 0o777 & !self.umask;
        if !fresh || entry.mode != given || (parent_set_group_id && entry.kind.is_dir()) {
            let mode = Mode::from_raw_mode(entry.mode);
            fs::fchmod(fd, mode)
                .map_err(|errno| ExtractError::entry("set the permissions of", entry, errno))?;
        }
        for (name, value) in &entry.xattrs {
            set_xattr(fd, entry, name, value, warnings)?;
        }
        Ok(())
    }

    /// Gives what is not opened (links, devices) the entry's owner.
    pub(super) fn apply_owner(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        parent_set_group_id: bool,
    ) -> Result<(), ExtractError> {
        if !self.is_foreign(entry, parent_set_group_id) {
            return Ok(());
        }
        let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| owner_error(entry, errno))
    }

    /// True where a new file does not have the entry's owner already.
    fn is_foreign(&self, entry: &Entry, parent_set_group_id: bool) -> bool {
        (entry.uid, entry.gid) != (self.uid, self.gid) || parent_set_group_id
    }
}

/// What could not be kept; the first few are recorded and the rest counted, so that no archive can fill memory.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    pub(super) list: Vec<String>,
    dropped: usize,
}

impl Warnings {
    const KEPT: usize = 16;

    pub(super) fn push(&mut self, warning: impl FnOnce() -> String) {
        if self.list.len() < Self::KEPT {
            self.list.push(warning());
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn finish(mut self) -> Vec<String> {
        if self.dropped > 0 {
            self.list.push(format!("and {} more", self.dropped));
        }
        self.list
    }
}

/// An id without a mapping is EINVAL, which says nothing to people.
fn owner_error(entry: &Entry, errno: Errno) -> ExtractError {
    if errno == Errno::INVAL {
        return ExtractError::OwnerNotMapped { path: entry.display(), uid: entry.uid, gid: entry.gid };
    }
    ExtractError::entry("set the owner of", entry, errno)
}

/// Sets one attribute of the archive, unless it is overlayfs's own or has to wait.
fn set_xattr(
    fd: BorrowedFd<'_>,
    entry: &Entry,
    name: &[u8],
    value: &[u8],
    warnings: &mut Warnings,
) -> Result<(), ExtractError> {
    if name == DEFAULT_ACL || OVERLAY_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(());
    }
    match fs::fsetxattr(fd, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(()),
        // Docker goes on too: `trusted.` needs privilege, and some filesystems have no attributes.
        Err(errno @ (Errno::PERM | Errno::OPNOTSUPP)) => {
            warnings.push(|| {
                format!(
                    "attribute `{}` of `{}` is left out: {errno}",
                    String::from_utf8_lossy(name),
                    entry.display()
                )
            });
            Ok(())
        }
        Err(errno) => Err(ExtractError::entry("set an attribute of", entry, errno)),
    }
}

/// Sets overlayfs's attribute in both forms. `trusted.` is refused in a user namespace, where mounts use `user.`.
pub(super) fn set_overlay_xattr(fd: BorrowedFd<'_>, names: [&str; 2], value: &[u8]) -> Result<(), Errno> {
    let trusted = fs::fsetxattr(fd, names[0], value, XattrFlags::empty());
    let user = fs::fsetxattr(fd, names[1], value, XattrFlags::empty());
    match (trusted, user) {
        // tmpfs has no `user.` attributes before 6.6.
        (Ok(()), Err(Errno::OPNOTSUPP)) | (Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP), Ok(())) => Ok(()),
        (Err(errno), _) | (_, Err(errno)) => Err(errno),
    }
}

/// The entry's modification time; the time of access stays. What is older than 1970 gets the year 1970, as with dockerd.
pub(super) fn timestamps(modified: (i64, u32)) -> Timestamps {
    let (seconds, nanoseconds) = modified.max((0, 0));
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}
