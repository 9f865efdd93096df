//! An archive to files of a container, as `PUT /containers/{id}/archive` means it.
//!
//! Unlike a layer's archive (`crate::layer`) this one goes on top of files that are there, may be of another user
//! namespace, and are being changed meanwhile. Directories on the way to an entry are followed as by a process of the
//! container's; the last component never is: what is there is replaced.
//!
//! COMPAT: dockerd refuses symbolic links that lead out of the extraction point. Here each path is confined by the kernel
//! when it is used, so a link may say what it wants.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxAttributes, StatxFlags,
    Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;
use tar::EntryType;

use super::FileError;
use super::error::{is_gone, text};
use super::ids::IdMap;
use super::pack::{CAPABILITY, capability_outside};
use super::place::Place;
use super::tree::{Tree, open_in_root};
use crate::compression::{Compression, decompress, sniff};
use crate::directory;
use crate::tar_stream::{Entry, SparseMap, TarError, TarStream, clean_path};

/// Bytes of the archive that are read at once.
const BUFFER: usize = 128 << 10;
/// How deep below a directory that is to be replaced mounts are looked for.
const MOUNT_DEPTH: usize = 256;
/// Zeros that fill a block of this length become a hole.
const HOLE: usize = 4096;
static ZEROS: [u8; HOLE] = [0; HOLE];
/// Permissions of directories that the archive leaves out.
const IMPLIED_MODE: u32 = 0o755;
/// Directories that are kept open.
const OPEN_MAX: usize = 64;
/// Directories that wait for their times before those are set early: bounds memory.
const DEFERRED_MAX: usize = 100_000;

/// How an archive is unpacked; API 1.51, `PUT /containers/{id}/archive`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnpackOptions {
    /// `noOverwriteDirNonDir`: a directory is not replaced by anything else, nor anything else by a directory.
    pub keep_kinds: bool,
    /// Whom everything belongs to.
    pub owner: Ownership,
    /// The beginning that names in the archive have, and what they get in its place.
    pub rename: Option<(Vec<u8>, Vec<u8>)>,
}

/// Whom unpacked files belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Whom the archive says.
    #[default]
    Archive,
    /// `copyUIDGID`: this user and group, in the container's ids.
    Given(u32, u32),
    /// Whoever unpacks.
    Unpacker,
}

impl Tree {
    /// Unpacks `archive`, compressed or not, into the directory at `path`, whose links are followed to the end.
    ///
    /// # Errors
    /// [`FileError::NotFound`], [`FileError::NotADirectory`] and [`FileError::ReadOnly`] before anything is read; later
    /// ones leave what was unpacked so far.
    pub fn unpack(
        &self,
        path: &str,
        archive: impl Read + Send,
        options: UnpackOptions,
    ) -> Result<(), FileError> {
        let place = Place::parse(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let point = open_in_root(self.root(), &place.relative(), flags, ResolveFlags::empty());
        let point = point.map_err(|errno| match errno {
            Errno::NOENT => FileError::NotFound { path: path.to_owned() },
            Errno::NOTDIR => FileError::NotADirectory,
            errno => FileError::at("open", path.as_bytes(), errno),
        })?;
        let mount = fs::fstatvfs(&point).map_err(|errno| FileError::at("statfs", path.as_bytes(), errno))?;
        if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(FileError::ReadOnly { path: path.to_owned() });
        }
        let mut unpacker = Unpacker {
            root: self.root(),
            base: place.relative(),
            ids: self.ids(),
            options,
            open: HashMap::new(),
            deferred: Vec::new(),
        };
        match self.ids().outside(0, 0).filter(|_| !self.ids().is_identity()) {
            None => unpacker.run(archive),
            // A mount with mapped ids takes new files only from ids that the map has.
            Some((uid, gid)) => with_filesystem_ids(uid, gid, move || unpacker.run(archive)),
        }
    }
}

/// Runs `work` in a thread whose new files belong to these ids, and which may do all that this one may.
fn with_filesystem_ids(
    uid: u32,
    gid: u32,
    work: impl FnOnce() -> Result<(), FileError> + Send,
) -> Result<(), FileError> {
    let thread = || {
        dory_sys::process::set_filesystem_ids(uid, gid)
            .map_err(|error| FileError::at("setfsuid", b"/", error))
            .and_then(|()| work())
    };
    std::thread::scope(|scope| match scope.spawn(thread).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    /// The directory that the archive goes to, relative to the root.
    base: Vec<u8>,
    ids: &'a IdMap,
    options: UnpackOptions,
    /// Open directories by their path below the base.
    open: HashMap<Vec<u8>, Arc<OwnedFd>>,
    /// Directories and the times they get when everything in them is there.
    deferred: Vec<(Vec<u8>, (i64, u32))>,
}

impl Unpacker<'_> {
    fn run(&mut self, archive: impl Read + Send) -> Result<(), FileError> {
        let (start, archive) = sniff(archive).map_err(TarError::Read)?;
        let archive = decompress(archive, Compression::of(&start)).map_err(TarError::Read)?;
        let mut stream = TarStream::new(BufReader::with_capacity(BUFFER, archive));
        while let Some(entry) = stream.next_entry()? {
            self.entry(&entry, &mut stream)?;
        }
        self.set_deferred();
        // Clients go on with zeros behind the end, and must not find their connection closed.
        io::copy(&mut stream.into_inner(), &mut io::sink()).map_err(TarError::Read)?;
        Ok(())
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, stream: &mut TarStream<R>) -> Result<(), FileError> {
        let path = clean(&self.renamed(&entry.path))?;
        let Some((name, parents)) = split(&path) else {
            // The extraction point itself stays as it is.
            return Ok(());
        };
        let parent = self.parent(parents)?;
        match entry.kind {
            EntryType::Directory => self.directory(entry, &parent, name, &path),
            EntryType::Regular => self.regular(entry, &parent, name, stream),
            EntryType::Symlink => {
                let target = entry.link_name.as_slice();
                self.in_place("symlink", entry, &parent, name, || fs::symlinkat(target, &*parent, name))?;
                self.finish_node(entry, &parent, name)
            }
            EntryType::Link => self.hard_link(entry, &parent, name),
            EntryType::Fifo | EntryType::Char | EntryType::Block => self.node(entry, &parent, name),
            kind => Err(FileError::UnknownKind { path: entry.display(), kind: char::from(kind.as_byte()) }),
        }
    }

    /// A name of the archive's with the beginning that it gets.
    fn renamed<'n>(&self, name: &'n [u8]) -> Cow<'n, [u8]> {
        match &self.options.rename {
            Some((from, to)) => match name.strip_prefix(from.as_slice()) {
                Some(rest) => Cow::Owned([to, rest].concat()),
                None => Cow::Borrowed(name),
            },
            None => Cow::Borrowed(name),
        }
    }

    /// The path in the container of something below the base.
    fn full(&self, path: &[u8]) -> Vec<u8> {
        if path.is_empty() { self.base.clone() } else { [&self.base, b"/".as_slice(), path].concat() }
    }

    /// The directory `path` below the base; missing ones are made.
    fn parent(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, FileError> {
        if let Some(open) = self.open.get(path) {
            return Ok(Arc::clone(open));
        }
        let opened = match self.open_directory(path) {
            Err(Errno::NOENT) => self.make_implied(path),
            opened => opened,
        };
        let opened = Arc::new(opened.map_err(|errno| FileError::at("open", &self.full(path), errno))?);
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Arc::clone(&opened));
        Ok(opened)
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        open_in_root(self.root, &self.full(path), OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())
    }

    /// Makes `path` and what is missing above it.
    fn make_implied(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut directory = self.open_directory(b"")?;
        let mut done = 0;
        for component in path.split(|byte| *byte == b'/') {
            done += component.len() + 1;
            match fs::mkdirat(&directory, component, Mode::from_raw_mode(IMPLIED_MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            directory = self.open_directory(&path[..done - 1])?;
        }
        Ok(directory)
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), FileError> {
        let failed = |errno: Errno| FileError::at("mkdir", &entry.path, errno);
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::mkdirat(parent, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) if kind_of(parent, name).map_err(failed)? == Some(FileType::Directory) => {}
            Err(Errno::EXIST) if self.options.keep_kinds => {
                return Err(FileError::OverwritesFile { path: text(&self.full(path)) });
            }
            Err(Errno::EXIST) => {
                self.remove(parent, name).map_err(failed)?;
                fs::mkdirat(parent, name, mode).map_err(failed)?;
            }
            Err(errno) => return Err(failed(errno)),
        }
        let fd = fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
        self.finish_file(entry, fd.as_fd())?;
        if self.deferred.len() >= DEFERRED_MAX {
            self.set_deferred();
        }
        self.deferred.push((path.to_vec(), entry.modified));
        Ok(())
    }

    fn regular<R: BufRead>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        stream: &mut TarStream<R>,
    ) -> Result<(), FileError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let file = File::from(self.in_place("open", entry, parent, name, create)?);
        let written = match &entry.sparse {
            Some(map) => write_sparse(&file, stream, map),
            None => write_plain(&file, stream, entry.size),
        };
        written.map_err(|error| match error {
            WriteError::Archive(error) => TarError::Read(error).into(),
            WriteError::File(error) => FileError::at("write", &entry.path, error),
        })?;
        self.finish_file(entry, file.as_fd())?;
        fs::futimens(&file, &times(entry.modified))
            .map_err(|errno| FileError::at("utimensat", &entry.path, errno))
    }

    fn hard_link(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), FileError> {
        let target = clean(&self.renamed(&entry.link_name))?;
        let Some((target_name, target_parents)) = split(&target) else {
            return Err(FileError::InvalidName { path: entry.display() });
        };
        let from = self.parent(target_parents)?;
        self.in_place("link", entry, parent, name, || {
            fs::linkat(&*from, target_name, parent, name, AtFlags::empty())
        })
    }

    /// A fifo, or a device. A container that has ids of its own could not make devices itself, and gets none here.
    fn node(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), FileError> {
        let kind = match entry.kind {
            EntryType::Fifo => FileType::Fifo,
            _ if !self.ids.is_identity() => return Ok(()),
            EntryType::Char => FileType::CharacterDevice,
            _ => FileType::BlockDevice,
        };
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let device = fs::makedev(entry.device.0, entry.device.1);
        self.in_place("mknod", entry, parent, name, || fs::mknodat(parent, name, kind, mode, device))?;
        self.finish_node(entry, parent, name)
    }

    /// Runs `make`; what has the name already is removed.
    fn in_place<T>(
        &mut self,
        operation: &'static str,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, FileError> {
        let failed = |errno: Errno| FileError::at(operation, &entry.path, errno);
        match make() {
            Err(Errno::EXIST) => {}
            made => return made.map_err(failed),
        }
        if self.options.keep_kinds && kind_of(parent, name).map_err(failed)? == Some(FileType::Directory) {
            return Err(FileError::OverwritesDirectory { path: text(&self.full(&entry.path)) });
        }
        self.remove(parent, name).map_err(|errno| match errno {
            Errno::BUSY => FileError::Mounted { path: text(&self.full(&entry.path)) },
            errno => FileError::at("unlinkat", &entry.path, errno),
        })?;
        make().map_err(failed)
    }

    /// As dockerd, this replaces nothing that is mounted in the container, such as `/etc/hosts`. The kernel would: what is
    /// a mount point in another namespace only can be removed, and the mount is then gone there (rename(2), Linux 3.15).
    fn remove(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        self.open.clear();
        match has_mount(parent.as_fd(), name, MOUNT_DEPTH) {
            Ok(true) => Err(Errno::BUSY),
            Err(Errno::NOENT) => Ok(()),
            Ok(false) => directory::remove(parent.as_fd(), name),
            Err(errno) => Err(errno),
        }
    }

    /// The entry's owner, or the one that everything gets, outside.
    fn owner(&self, entry: &Entry) -> Result<(Option<Uid>, Option<Gid>), FileError> {
        let (uid, gid) = match self.options.owner {
            Ownership::Archive => (entry.uid, entry.gid),
            Ownership::Given(uid, gid) => (uid, gid),
            Ownership::Unpacker => return Ok((None, None)),
        };
        let outside = self.ids.outside(uid, gid);
        let (uid, gid) =
            outside.ok_or_else(|| FileError::OwnerNotMapped { path: entry.display(), uid, gid })?;
        Ok((Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
    }

    /// Owner, then attributes and permissions: a change of owner takes some of them away.
    fn finish_file(&self, entry: &Entry, fd: BorrowedFd<'_>) -> Result<(), FileError> {
        let (uid, gid) = self.owner(entry)?;
        fs::fchown(fd, uid, gid).map_err(|errno| FileError::at("chown", &entry.path, errno))?;
        for (name, value) in &entry.xattrs {
            self.set_xattr(entry, fd, name, value)?;
        }
        fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
            .map_err(|errno| FileError::at("chmod", &entry.path, errno))
    }

    fn set_xattr(
        &self,
        entry: &Entry,
        fd: BorrowedFd<'_>,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), FileError> {
        // An archive must not speak to overlayfs, nor to the kernel's security modules but for capabilities.
        let refused = [b"trusted.".as_slice(), b"user.overlay.", b"security.", b"system."];
        if name != CAPABILITY && refused.iter().any(|prefix| name.starts_with(prefix)) {
            return Ok(());
        }
        let value = value.to_vec();
        let value = if name == CAPABILITY { capability_outside(value, self.ids) } else { value };
        match fs::fsetxattr(fd, name, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(FileError::at("setxattr", &entry.path, errno)),
        }
    }

    /// The same for what is not opened. Permissions are set without following a link that took the name's place.
    fn finish_node(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), FileError> {
        let (uid, gid) = self.owner(entry)?;
        fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| FileError::at("lchown", &entry.path, errno))?;
        if entry.kind != EntryType::Symlink {
            chmod_node(parent, name, entry.mode)
                .map_err(|errno| FileError::at("chmod", &entry.path, errno))?;
        }
        fs::utimensat(parent, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| FileError::at("utimensat", &entry.path, errno))
    }

    /// Sets the directories' times. One that the container has moved away meanwhile has a time of its own.
    fn set_deferred(&mut self) {
        for (path, modified) in std::mem::take(&mut self.deferred) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let opened = open_in_root(self.root, &self.full(&path), flags, ResolveFlags::empty());
            let set = opened.and_then(|fd| fs::futimens(&fd, &times(modified)));
            if let Err(error) = set
                && !is_gone(error)
            {
                tracing::debug!(path = %text(&path), %error, "A directory's time is not set");
            }
        }
    }
}

/// chmod(2) follows links, so the node is opened as a reference first; only then is its kind certain.
fn chmod_node(parent: &OwnedFd, name: &[u8], mode: u32) -> Result<(), Errno> {
    let (fd, stat) = super::tree::look(parent.as_fd(), name)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    fs::chmod(super::tree::proc_path(fd.as_fd()), Mode::from_raw_mode(mode))
}

/// True where something is mounted on what has the name, or below it down to `depth` directories.
fn has_mount(parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<bool, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = fs::statx(parent, name, flags, StatxFlags::TYPE)?;
    if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(true);
    }
    if FileType::from_raw_mode(found.stx_mode.into()) != FileType::Directory {
        return Ok(false);
    }
    // Nobody mounts so deep, and a container must not make us open descriptors without end.
    let depth = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let directory = directory::open_child(parent, name)?;
    for (name, _) in directory::names(&directory)? {
        match has_mount(directory.as_fd(), &name, depth) {
            Ok(false) => {}
            // What has gone meanwhile has no mount.
            Err(errno) if is_gone(errno) => {}
            other => return other,
        }
    }
    Ok(false)
}

/// What has the name; `None` where nothing has any more.
fn kind_of(parent: &OwnedFd, name: &[u8]) -> Result<Option<FileType>, Errno> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Which side of a copy failed.
enum WriteError {
    Archive(io::Error),
    File(io::Error),
}

/// Copies the payload; long zeros become holes, so that a sparse file stays one through an archive that knows no holes.
fn write_plain<R: BufRead>(file: &File, stream: &mut TarStream<R>, size: u64) -> Result<(), WriteError> {
    let mut offset = 0;
    let mut end = 0;
    loop {
        let available = stream.fill_buf().map_err(WriteError::Archive)?;
        if available.is_empty() {
            break;
        }
        let length = available.len();
        for (from, run) in data_runs(available, offset) {
            file.write_all_at(run, offset + from as u64).map_err(WriteError::File)?;
            end = offset + (from + run.len()) as u64;
        }
        offset += length as u64;
        stream.consume(length);
    }
    if end < size { file.set_len(size).map_err(WriteError::File) } else { Ok(()) }
}

/// The parts of `bytes`, which belong at `offset`, that are not zeros up to a block's end.
fn data_runs(bytes: &[u8], offset: u64) -> Vec<(usize, &[u8])> {
    let mut runs = Vec::new();
    let mut begin = 0;
    let mut at = 0;
    while at < bytes.len() {
        let in_block = ((offset + at as u64) % HOLE as u64) as usize;
        let length = (HOLE - in_block).min(bytes.len() - at);
        if bytes[at..at + length] == ZEROS[..length] {
            if begin < at {
                runs.push((begin, &bytes[begin..at]));
            }
            begin = at + length;
        }
        at += length;
    }
    if begin < bytes.len() {
        runs.push((begin, &bytes[begin..]));
    }
    runs
}

fn write_sparse<R: BufRead>(
    file: &File,
    stream: &mut TarStream<R>,
    map: &SparseMap,
) -> Result<(), WriteError> {
    file.set_len(map.real_size).map_err(WriteError::File)?;
    for &(mut offset, mut length) in &map.segments {
        while length > 0 {
            let available = stream.fill_buf().map_err(WriteError::Archive)?;
            let part = usize::try_from(length).map_or(available.len(), |length| length.min(available.len()));
            file.write_all_at(&available[..part], offset).map_err(WriteError::File)?;
            stream.consume(part);
            offset += part as u64;
            length -= part as u64;
        }
    }
    Ok(())
}

/// The cleaned form of an entry's name.
fn clean(name: &[u8]) -> Result<Vec<u8>, FileError> {
    if name.contains(&0) {
        return Err(FileError::InvalidName { path: text(name) });
    }
    clean_path(name).ok_or_else(|| FileError::ClimbsOut { path: text(name) })
}

/// The last component, and the path before it; `None` for the empty path.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[slash + 1..], &path[..slash])),
        None if path.is_empty() => None,
        None => Some((path, b"")),
    }
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
