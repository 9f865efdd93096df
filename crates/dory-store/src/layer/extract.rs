//! The extractor: entries of a layer's archive become files beneath one directory, and nowhere else.
//!
//! What an archive may say and what comes of it:
//! - names are cleaned as Docker does (absolute ones are taken relative, `a/../b` is `b`); one that climbs out is
//!   refused, and with it the layer;
//! - a parent that is a symbolic link of the same layer is followed as by a process whose root is the layer
//!   (openat2 `RESOLVE_IN_ROOT`): absolute and climbing links end within the layer;
//! - the root directory's own entry is passed over: all layers' roots are root's, with 0755;
//! - the last component is never followed: what is there is replaced, a directory by a directory excepted;
//! - hard links are made to what their name means within the layer, by the same rules;
//! - `.wh.<name>` becomes overlayfs's whiteout, `.wh..wh..opq` its opaque directory (OCI image-spec, layer.md
//!   "Whiteouts"); attributes of overlayfs that the archive has itself are left out.

use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use dory_types::Digest;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::framing::REPLACED;
use super::metadata::{self, Creator, DEFAULT_ACL, OPAQUE, WHITEOUT, Warnings};
use super::parents::{Parent, Parents};
use super::{LayerRecord, Replaced};
use crate::directory;
use crate::record::RecordError;
use crate::tar_stream::{Entry, TarError, TarStream, clean_path};

/// Marks the deletion of the name that follows (OCI image-spec, layer.md).
const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Marks the deletion of everything that lower layers have in this directory.
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// AUFS's own files, which Docker leaves out too.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// How many directories wait for their times before those are set early: bounds memory.
const DEFERRED_MAX: usize = 100_000;
/// How many names an archive may have twice before that is taken for malice: each is kept in the layer's record.
const REPLACED_MAX: usize = 10_000;

/// A layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The archive is damaged or breaks off.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The source failed, or its compression is damaged.
    #[error("cannot read the layer")]
    Read(#[source] std::io::Error),
    /// The directory to unpack into cannot be used.
    #[error("cannot prepare the layer's directory")]
    Root(#[source] Errno),
    /// The store, which other engines write to as well, cannot be changed now.
    #[error("cannot take the layer into the shared store")]
    Shared(#[source] std::io::Error),
    /// What the archive has around its files cannot be kept.
    #[error("cannot keep the archive's framing")]
    Framing(#[source] std::io::Error),
    /// The archive has more entries than the configuration allows.
    #[error("the layer has more than {0} entries")]
    TooManyEntries(u64),
    /// The archive takes back too much of what it has.
    #[error("the layer has more than {REPLACED_MAX} names twice")]
    TooManyReplaced,
    /// The archive as it came is not the one that was asked for.
    #[error("the layer's digest is `{found}` with {size} bytes, and should be `{expected}`")]
    BlobDigest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
        /// The length of what came, in bytes.
        size: u64,
    },
    /// The uncompressed archive is not the one that was asked for.
    #[error("the layer's diff-id is `{found}`, and should be `{expected}`")]
    DiffId {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The layer's record cannot be written.
    #[error("cannot record the layer")]
    Record(#[source] RecordError),
    /// A name or a link leads out of the layer.
    #[error("invalid path `{path}`: it climbs out of the layer")]
    ClimbsOut {
        /// The name in the archive.
        path: String,
    },
    /// A name that no file can have.
    #[error("invalid path `{path}`")]
    InvalidPath {
        /// The name in the archive.
        path: String,
    },
    /// An entry is of a kind that layers do not have.
    #[error("`{path}` is of the unknown kind `{kind:?}`")]
    UnknownKind {
        /// The name in the archive.
        path: String,
        /// The type flag.
        kind: u8,
    },
    /// The owner has no mapping in this process's user namespace.
    #[error(
        "`{path}` belongs to {uid}:{gid}, which is not mapped in this user namespace: a larger id range is needed"
    )]
    OwnerNotMapped {
        /// The name in the archive.
        path: String,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// The file system refuses an entry.
    #[error("cannot {operation} `{path}`")]
    Entry {
        /// What was tried.
        operation: &'static str,
        /// The name in the archive.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ExtractError {
    pub(super) fn entry(operation: &'static str, entry: &Entry, source: impl Into<std::io::Error>) -> Self {
        Self::Entry { operation, path: entry.display(), source: source.into() }
    }
}

/// A directory whose times, and what its new files would inherit, are set when all files are there.
struct DeferredDirectory {
    path: Vec<u8>,
    modified: (i64, u32),
    default_acl: Option<Vec<u8>>,
}

/// What stood in an entry's place.
#[derive(PartialEq, Eq)]
enum Predecessor {
    Whiteout,
    Other,
}

/// Unpacks one layer.
pub(super) struct Extractor<'a> {
    root: BorrowedFd<'a>,
    /// The directory that has the layer's `fs`.
    staging: BorrowedFd<'a>,
    parents: Parents<'a>,
    creator: Creator,
    deferred: Vec<DeferredDirectory>,
    size: u64,
    warnings: Warnings,
    /// The position of the present entry.
    position: u64,
    replaced: Vec<Replaced>,
}

impl<'a> Extractor<'a> {
    /// An extractor into the directory `root` within `staging`, both of which are open for reading.
    pub(super) fn new(root: BorrowedFd<'a>, staging: BorrowedFd<'a>) -> Result<Self, ExtractError> {
        let mut extractor = Self {
            root,
            staging,
            parents: Parents::new(root),
            creator: Creator::current(),
            deferred: Vec::new(),
            size: 0,
            warnings: Warnings::default(),
            position: 0,
            replaced: Vec::new(),
        };
        // A layer without an entry for its root gets Docker's permissions, not those left by the umask.
        fs::fchmod(root, Mode::from_raw_mode(0o755)).map_err(ExtractError::Root)?;
        extractor.parents.forget();
        Ok(extractor)
    }

    /// Makes one entry; `archive` has its payload, which is read to its end where [`stored_path`] has a value.
    pub(super) fn apply<R: BufRead>(
        &mut self,
        entry: &Entry,
        archive: &mut TarStream<R>,
    ) -> Result<(), ExtractError> {
        self.make(entry, archive)?;
        self.position += 1;
        Ok(())
    }

    fn make<R: BufRead>(&mut self, entry: &Entry, archive: &mut TarStream<R>) -> Result<(), ExtractError> {
        let path = clean(&entry.path, entry)?;
        if path.is_empty() {
            return root_entry(entry);
        }
        let (parent_path, name) = split(&path);
        let parent = self
            .parents
            .get(parent_path)
            .map_err(|errno| ExtractError::entry("open the parent of", entry, errno))?;
        if name.starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(entry, &parent, name);
        }
        match entry.kind {
            EntryType::Directory => self.directory(entry, &parent, name, &path),
            EntryType::Regular => self.regular(entry, &parent, name, archive),
            EntryType::Symlink => self.symlink(entry, &parent, name),
            EntryType::Link => self.hard_link(entry, &parent, name),
            EntryType::Fifo | EntryType::Char | EntryType::Block => self.node(entry, &parent, name),
            kind => Err(ExtractError::UnknownKind { path: entry.display(), kind: kind.as_byte() }),
        }
    }

    /// Sets what had to wait, and tells what was unpacked.
    pub(super) fn finish(mut self) -> Result<LayerRecord, ExtractError> {
        self.set_deferred()?;
        let Self { size, warnings, replaced, .. } = self;
        Ok(LayerRecord { size, warnings: warnings.finish(), replaced, ..LayerRecord::default() })
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: &Parent,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), ExtractError> {
        let error = |errno| ExtractError::entry("create directory", entry, errno);
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let mut opaque = false;
        let (fd, fresh) = match fs::mkdirat(&parent.fd, name, mode) {
            Ok(()) => (directory::open_child(&parent.fd, name).map_err(error)?, true),
            Err(Errno::EXIST) => match directory::open_child(&parent.fd, name) {
                Ok(fd) => (fd, false),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    // A directory in place of a deleted one must not show what the lower one had.
                    opaque = self.replace(entry, parent, name)? == Predecessor::Whiteout;
                    fs::mkdirat(&parent.fd, name, mode).map_err(error)?;
                    (directory::open_child(&parent.fd, name).map_err(error)?, true)
                }
                Err(errno) => return Err(error(errno)),
            },
            Err(errno) => return Err(error(errno)),
        };
        self.creator.apply(fd.as_fd(), entry, parent.set_group_id, fresh, &mut self.warnings)?;
        if opaque {
            metadata::set_overlay_xattr(fd.as_fd(), OPAQUE, b"y").map_err(error)?;
        }
        self.defer(entry, path)?;
        let set_group_id = entry.mode & 0o2000 != 0;
        self.parents.insert(path, Parent { fd, set_group_id }).map_err(error)?;
        Ok(())
    }

    fn regular<R: BufRead>(
        &mut self,
        entry: &Entry,
        parent: &Parent,
        name: &[u8],
        archive: &mut TarStream<R>,
    ) -> Result<(), ExtractError> {
        let file = self.create_file(entry, parent, name)?;
        self.size += match &entry.sparse {
            Some(map) => {
                write_sparse(&file, archive, map, entry)?;
                map.real_size
            }
            None => write_plain(&file, archive, entry)?,
        };
        self.creator.apply(file.as_fd(), entry, parent.set_group_id, true, &mut self.warnings)?;
        fs::futimens(&file, &metadata::timestamps(entry.modified))
            .map_err(|errno| ExtractError::entry("set the time of", entry, errno))
    }

    /// Opens a new file in place of whatever has its name.
    fn create_file(
        &mut self,
        entry: &Entry,
        parent: &Parent,
        name: &[u8],
    ) -> Result<std::fs::File, ExtractError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        self.in_place(entry, parent, name, "create", || fs::openat(&parent.fd, name, flags, mode))
            .map(std::fs::File::from)
    }

    fn symlink(&mut self, entry: &Entry, parent: &Parent, name: &[u8]) -> Result<(), ExtractError> {
        let target = entry.link_name.as_slice();
        self.in_place(entry, parent, name, "create symbolic link", || {
            fs::symlinkat(target, &parent.fd, name)
        })?;
        self.finish_node(entry, parent, name)
    }

    fn hard_link(&mut self, entry: &Entry, parent: &Parent, name: &[u8]) -> Result<(), ExtractError> {
        let target = clean(&entry.link_name, entry)?;
        let (target_parent, target_name) = split(&target);
        if target_name.is_empty() {
            return Err(ExtractError::InvalidPath { path: entry.display() });
        }
        let error = |errno| ExtractError::entry("open the link target's directory of", entry, errno);
        let from = self.parents.get(target_parent).map_err(error)?;
        self.in_place(entry, parent, name, "create hard link", || {
            fs::linkat(&from.fd, target_name, &parent.fd, name, AtFlags::empty())
        })
    }

    /// Makes a fifo or a device; a device that may not be made is left out with a warning.
    fn node(&mut self, entry: &Entry, parent: &Parent, name: &[u8]) -> Result<(), ExtractError> {
        let kind = match entry.kind {
            EntryType::Fifo => FileType::Fifo,
            EntryType::Char => FileType::CharacterDevice,
            _ => FileType::BlockDevice,
        };
        let device = fs::makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(entry.mode);
        let make = || fs::mknodat(&parent.fd, name, kind, mode, device);
        match self.in_place(entry, parent, name, "create special file", make) {
            Err(ExtractError::Entry { source, .. })
                if kind != FileType::Fifo && source.raw_os_error() == Some(Errno::PERM.raw_os_error()) =>
            {
                self.warnings.push(|| format!("device `{}` is left out: {source}", entry.display()));
                return Ok(());
            }
            result => result?,
        }
        self.finish_node(entry, parent, name)?;
        // The umask applies to mknod; the name was made just now and is no symbolic link.
        fs::chmodat(&parent.fd, name, mode, AtFlags::empty())
            .map_err(|errno| ExtractError::entry("set the permissions of", entry, errno))
    }

    /// Owner and time of what has no descriptor.
    fn finish_node(&mut self, entry: &Entry, parent: &Parent, name: &[u8]) -> Result<(), ExtractError> {
        self.creator.apply_owner(parent.fd.as_fd(), name, entry, parent.set_group_id)?;
        if let Some((attribute, _)) = entry.xattrs.first() {
            self.warnings.push(|| {
                let attribute = String::from_utf8_lossy(attribute);
                format!(
                    "attribute `{attribute}` of `{}` is left out: it is no file or directory",
                    entry.display()
                )
            });
        }
        let times = metadata::timestamps(entry.modified);
        fs::utimensat(&parent.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| ExtractError::entry("set the time of", entry, errno))
    }

    /// Deletes a name, or all names, of the layers below.
    fn whiteout(&mut self, entry: &Entry, parent: &Parent, name: &[u8]) -> Result<(), ExtractError> {
        let error = |errno| ExtractError::entry("create whiteout", entry, errno);
        if name == OPAQUE_MARKER {
            return metadata::set_overlay_xattr(parent.fd.as_fd(), OPAQUE, b"y").map_err(error);
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        let deleted = &name[WHITEOUT_PREFIX.len()..];
        if matches!(deleted, b"" | b"." | b"..") {
            return Err(ExtractError::InvalidPath { path: entry.display() });
        }
        match fs::mknodat(&parent.fd, deleted, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // Deletions concern lower layers only: what this layer has of that name stays, without the lower content.
            Err(Errno::EXIST) => match directory::open_child(&parent.fd, deleted) {
                Ok(fd) => metadata::set_overlay_xattr(fd.as_fd(), OPAQUE, b"y").map_err(error),
                Err(_) => Ok(()),
            },
            Err(Errno::PERM) => whiteout_by_attribute(&parent.fd, deleted).map_err(error),
            Err(errno) => Err(error(errno)),
        }
    }

    /// Runs `make`; where its name is taken, removes what has it and runs it again.
    fn in_place<T>(
        &mut self,
        entry: &Entry,
        parent: &Parent,
        name: &[u8],
        operation: &'static str,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, ExtractError> {
        let made = match make() {
            Err(Errno::EXIST) => {
                self.replace(entry, parent, name)?;
                make()
            }
            made => made,
        };
        made.map_err(|errno| ExtractError::entry(operation, entry, errno))
    }

    /// Removes what has the entry's name.
    fn replace(&mut self, entry: &Entry, parent: &Parent, name: &[u8]) -> Result<Predecessor, ExtractError> {
        let error = |errno| ExtractError::entry("replace", entry, errno);
        self.parents.forget();
        let stat = fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(error)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => self.set_aside(entry, parent, name)?,
            _ => directory::remove(parent.fd.as_fd(), name).map_err(error)?,
        }
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        Ok(if is_device && stat.st_rdev == 0 { Predecessor::Whiteout } else { Predecessor::Other })
    }

    /// Moves what has the entry's name out of the layer: its content is needed when the archive is written again.
    fn set_aside(&mut self, entry: &Entry, parent: &Parent, name: &[u8]) -> Result<(), ExtractError> {
        let error = |errno| ExtractError::entry("replace", entry, errno);
        if self.replaced.len() >= REPLACED_MAX {
            return Err(ExtractError::TooManyReplaced);
        }
        let aside = directory::make_and_open(self.staging, REPLACED, 0o700).map_err(error)?;
        fs::renameat(&parent.fd, name, &aside, self.position.to_string()).map_err(error)?;
        let path = clean(&entry.path, entry)?;
        self.replaced.push(Replaced { path, entry: self.position });
        Ok(())
    }

    /// Notes what a directory gets when its files are there.
    fn defer(&mut self, entry: &Entry, path: &[u8]) -> Result<(), ExtractError> {
        if self.deferred.len() >= DEFERRED_MAX {
            self.set_deferred()?;
        }
        let default_acl =
            entry.xattrs.iter().find(|(name, _)| name == DEFAULT_ACL).map(|(_, value)| value.clone());
        self.deferred.push(DeferredDirectory { path: path.to_vec(), modified: entry.modified, default_acl });
        Ok(())
    }

    /// Sets the times of all directories noted so far; one that was replaced since is passed over.
    fn set_deferred(&mut self) -> Result<(), ExtractError> {
        for directory in std::mem::take(&mut self.deferred) {
            let path = if directory.path.is_empty() { b".".as_slice() } else { &directory.path };
            let fd = match directory::open_in_root(self.root, path) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => return Err(ExtractError::Root(errno)),
            };
            if let Some(acl) = &directory.default_acl
                && let Err(errno) = fs::fsetxattr(&fd, DEFAULT_ACL, acl, XattrFlags::empty())
            {
                let path = String::from_utf8_lossy(&directory.path).into_owned();
                self.warnings.push(|| format!("the default access list of `{path}` is left out: {errno}"));
            }
            fs::futimens(&fd, &metadata::timestamps(directory.modified)).map_err(ExtractError::Root)?;
        }
        Ok(())
    }
}

/// The archive's entry for the layer's root directory. dockerd passes it over too: packers name there whatever
/// directory they packed, often one that only its owner may enter.
fn root_entry(entry: &Entry) -> Result<(), ExtractError> {
    match entry.kind {
        EntryType::Directory => Ok(()),
        _ => Err(ExtractError::InvalidPath { path: entry.display() }),
    }
}

/// Copies the payload to `file`; its length.
fn write_plain<R: BufRead>(
    mut file: &std::fs::File,
    archive: &mut TarStream<R>,
    entry: &Entry,
) -> Result<u64, ExtractError> {
    let mut written = 0;
    loop {
        let available = archive.fill_buf().map_err(TarError::Read)?;
        if available.is_empty() {
            return Ok(written);
        }
        let length = available.len();
        std::io::Write::write_all(&mut file, available)
            .map_err(|source| ExtractError::entry("write", entry, source))?;
        archive.consume(length);
        written += length as u64;
    }
}

/// Copies the payload's segments to their places in `file`, and leaves holes between them.
fn write_sparse<R: BufRead>(
    file: &std::fs::File,
    archive: &mut TarStream<R>,
    map: &crate::tar_stream::SparseMap,
    entry: &Entry,
) -> Result<(), ExtractError> {
    let error = |source| ExtractError::entry("write", entry, source);
    file.set_len(map.real_size).map_err(error)?;
    for &(mut offset, mut length) in &map.segments {
        while length > 0 {
            let available = archive.fill_buf().map_err(TarError::Read)?;
            let part = usize::try_from(length).map_or(available.len(), |length| length.min(available.len()));
            file.write_all_at(&available[..part], offset).map_err(error)?;
            archive.consume(part);
            offset += part as u64;
            length -= part as u64;
        }
    }
    Ok(())
}

/// A whiteout where device nodes may not be made: an empty file with an attribute, in a directory that says it has
/// such files.
fn whiteout_by_attribute(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let mut value = [0; 1];
    let is_opaque =
        OPAQUE.iter().any(|name| fs::fgetxattr(parent, *name, &mut value) == Ok(1) && value == *b"y");
    if is_opaque {
        // Nothing of the layers below shows here anyway, and the two meanings of the attribute exclude each other.
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::EXIST) => return Ok(()),
        file => file?,
    };
    metadata::set_overlay_xattr(file.as_fd(), WHITEOUT, b"y")?;
    metadata::set_overlay_xattr(parent.as_fd(), OPAQUE, b"x")
}

/// Where the content of `entry` goes to; `None` where it has none that is kept.
pub(super) fn stored_path(entry: &Entry) -> Result<Option<Vec<u8>>, ExtractError> {
    if entry.kind != EntryType::Regular {
        return Ok(None);
    }
    let path = clean(&entry.path, entry)?;
    let is_file = !path.is_empty() && !split(&path).1.starts_with(WHITEOUT_PREFIX);
    Ok(is_file.then_some(path))
}

/// The cleaned form of an entry's name or link name.
fn clean(name: &[u8], entry: &Entry) -> Result<Vec<u8>, ExtractError> {
    if name.contains(&0) {
        return Err(ExtractError::InvalidPath { path: entry.display() });
    }
    clean_path(name).ok_or_else(|| ExtractError::ClimbsOut { path: entry.display() })
}

/// The path's directory and its last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn privileged_whiteouts_by_attribute_hide_what_is_below() {
        let path = tempfile::tempdir().unwrap();
        for file in ["lower/d/gone", "lower/d/stays", "lower/o/gone", "upper/d/new", "upper/o/new"] {
            let file = path.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "x").unwrap();
        }
        for (directory, opaque) in [("upper/d", false), ("upper/o", true)] {
            let directory = OwnedFd::from(std::fs::File::open(path.path().join(directory)).unwrap());
            if opaque {
                metadata::set_overlay_xattr(directory.as_fd(), OPAQUE, b"y").expect("this test needs root");
            }
            whiteout_by_attribute(&directory, b"gone").unwrap();
            whiteout_by_attribute(&directory, b"gone").unwrap();
        }
        for option in ["", "userxattr,"] {
            let mount = format!(
                "mount -t overlay overlay -o ro,{option}lowerdir={0}/upper:{0}/lower /mnt && cd /mnt && echo */*",
                path.path().display()
            );
            let output = Command::new("unshare").args(["-m", "sh", "-c", &mount]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert_eq!(text, "d/new d/stays o/new\n", "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
