//! A file as a stat packet describes it, checked.

use bollard_buildkit_proto::fsutil::types::Stat;

/// Go's `os.FileMode`, which the packets carry.
mod go {
    pub(super) const DIRECTORY: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const NAMED_PIPE: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHARACTER_DEVICE: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
    pub(super) const IRREGULAR: u32 = 1 << 19;
    /// Everything that says "no regular file".
    pub(super) const TYPE: u32 =
        DIRECTORY | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHARACTER_DEVICE | IRREGULAR;
}

/// Longest path, the kernel's own.
const PATH_LIMIT: usize = 4096;
/// Most directories within one another: the receiver holds a descriptor for each.
const DEPTH_LIMIT: usize = 256;

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file with content, which has to be asked for.
    File,
    /// Another name of an earlier file, whose path it has.
    HardLink(String),
    /// A symbolic link, and where it leads.
    Symlink(String),
    /// A named pipe.
    Pipe,
}

/// A file of the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, clean, never empty.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; 0 for what has no content.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: i64,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// A stat packet that no honest client sends, or that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStat {
    /// The path is absolute, not clean, too long, too deep or leads out of the root.
    #[error("`{0}` is no path that a context can have")]
    Path(String),
    /// A device; nobody's context needs the machine's.
    #[error("`{0}` is a device, which a context cannot have")]
    Device(String),
    /// Neither a file nor a directory nor anything known.
    #[error("`{path}` has an unknown type (mode {mode:#o})")]
    Type {
        /// Which one.
        path: String,
        /// Go's mode.
        mode: u32,
    },
    /// The size is negative.
    #[error("`{0}` has a negative size")]
    Size(String),
}

impl Entry {
    /// The file that `stat` describes; nothing for a socket, which no context has a use for.
    ///
    /// # Errors
    /// [`InvalidStat`].
    pub fn new(stat: Stat) -> Result<Option<Self>, InvalidStat> {
        if !is_clean(&stat.path) {
            return Err(InvalidStat::Path(stat.path));
        }
        let kind = match stat.mode & go::TYPE {
            0 if stat.linkname.is_empty() => EntryKind::File,
            0 if is_clean(&stat.linkname) => EntryKind::HardLink(stat.linkname),
            0 => return Err(InvalidStat::Path(stat.linkname)),
            go::DIRECTORY => EntryKind::Directory,
            go::SYMLINK => EntryKind::Symlink(stat.linkname),
            go::NAMED_PIPE => EntryKind::Pipe,
            go::SOCKET => return Ok(None),
            kind if kind & go::DEVICE != 0 => return Err(InvalidStat::Device(stat.path)),
            _ => return Err(InvalidStat::Type { path: stat.path, mode: stat.mode }),
        };
        let Ok(size) = u64::try_from(stat.size) else { return Err(InvalidStat::Size(stat.path)) };
        let size = if kind == EntryKind::File { size } else { 0 };
        Ok(Some(Self {
            path: stat.path,
            kind,
            mode: unix_mode(stat.mode),
            uid: stat.uid,
            gid: stat.gid,
            size,
            modified: stat.mod_time,
            xattrs: stat.xattrs.into_iter().filter(|(name, _)| is_harmless(name)).collect(),
        }))
    }

    /// As a packet says it.
    pub fn to_stat(&self) -> Stat {
        let (kind, linkname) = match &self.kind {
            EntryKind::File => (0, ""),
            EntryKind::HardLink(target) => (0, target.as_str()),
            EntryKind::Directory => (go::DIRECTORY, ""),
            EntryKind::Symlink(target) => (go::SYMLINK, target.as_str()),
            EntryKind::Pipe => (go::NAMED_PIPE, ""),
        };
        Stat {
            path: self.path.clone(),
            mode: kind | go_mode(self.mode),
            uid: self.uid,
            gid: self.gid,
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            mod_time: self.modified,
            linkname: linkname.to_owned(),
            xattrs: self.xattrs.iter().cloned().collect(),
            ..Stat::default()
        }
    }

    /// The directory that it is in, and its name there.
    pub fn parent_and_name(&self) -> (&str, &str) {
        self.path.rsplit_once('/').unwrap_or(("", &self.path))
    }
}

/// Whether a sender counts `stat` as one whose content may be asked for: both sides must agree.
pub(super) fn has_content(stat: &Stat) -> bool {
    stat.mode & go::TYPE == 0
}

const SPECIAL_BITS: [(u32, u32); 3] = [(go::SETUID, 0o4000), (go::SETGID, 0o2000), (go::STICKY, 0o1000)];

fn unix_mode(mode: u32) -> u32 {
    let special = SPECIAL_BITS.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, unix)| unix);
    special.fold(mode & 0o777, |mode, bit| mode | bit)
}

fn go_mode(mode: u32) -> u32 {
    let special = SPECIAL_BITS.iter().filter(|(_, unix)| mode & unix != 0).map(|(bit, _)| bit);
    special.fold(mode & 0o777, |mode, bit| mode | bit)
}

/// Relative, without `.`, `..`, empty parts and NUL.
fn is_clean(path: &str) -> bool {
    !path.is_empty()
        && path.len() < PATH_LIMIT
        && path.split('/').count() <= DEPTH_LIMIT
        && !path.contains('\0')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Attributes that mean something to the programs of an image. Others mean something to the kernel: those of overlayfs
/// (`trusted.overlay.*`, `user.overlay.*`) would let a context redirect directories of layers.
fn is_harmless(name: &str) -> bool {
    name == "security.capability" || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(path: &str, mode: u32) -> Stat {
        Stat { path: path.to_owned(), mode, ..Stat::default() }
    }

    #[test]
    fn entries_survive_packets() {
        for (mode, linkname) in [
            (0o644, ""),
            (0o755 | go::SETUID | go::STICKY, ""),
            (0o644, "other"),
            (go::DIRECTORY | 0o755, ""),
            (go::SYMLINK | 0o777, "../anywhere"),
            (go::NAMED_PIPE | 0o600, ""),
        ] {
            let stat = Stat { linkname: linkname.to_owned(), mod_time: -5, ..stat("a/b", mode) };
            assert_eq!(Entry::new(stat.clone()).unwrap().unwrap().to_stat(), stat, "{mode:o}");
        }
    }

    #[test]
    fn hostile_stats_are_refused() {
        let long = "abcdefgh/".repeat(500) + "x";
        let deep = "a/".repeat(300) + "x";
        for path in ["", "/etc", "..", "a/../b", "a//b", "./a", "a/", "a\0", &long, &deep] {
            assert_eq!(Entry::new(stat(path, 0o644)), Err(InvalidStat::Path(path.to_owned())));
            let link = Stat { linkname: path.to_owned(), ..stat("a", 0o644) };
            assert_eq!(Entry::new(link).is_err(), !path.is_empty(), "link to {path}");
        }
        let device = go::DEVICE | go::CHARACTER_DEVICE | 0o600;
        assert_eq!(Entry::new(stat("null", device)), Err(InvalidStat::Device("null".to_owned())));
        assert!(matches!(Entry::new(stat("x", go::IRREGULAR)), Err(InvalidStat::Type { .. })));
        assert_eq!(Entry::new(stat("socket", go::SOCKET)), Ok(None));
        let negative = Stat { size: -1, ..stat("a", 0o644) };
        assert_eq!(Entry::new(negative), Err(InvalidStat::Size("a".to_owned())));
    }

    #[test]
    fn attributes_of_the_kernel_stay_outside() {
        let mut stat = stat("a", 0o644);
        for name in ["user.a", "user.overlay.redirect", "trusted.overlay.opaque", "security.capability"] {
            stat.xattrs.insert(name.to_owned(), Vec::new());
        }
        let mut names: Vec<_> =
            Entry::new(stat).unwrap().unwrap().xattrs.into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["security.capability", "user.a"]);
    }
}
