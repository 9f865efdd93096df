//! A container's files without its mounts: the writable layer over the image's layers, merged here by overlayfs's rules
//! (kernel, Documentation/filesystems/overlayfs.rst), so that nothing needs to be mounted and a running container is not
//! disturbed.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::FileError;
use super::error::{is_gone, text};
use super::ids::IdMap;
use super::pack::{DEPTH_MAX, Packer, capability};
use super::tree::{is, look, proc_path};
use crate::directory;

/// What the engine makes in every container's own layer so that it has something to mount on, and the marker that programs
/// look for. dockerd has these in a layer between (moby `daemon/initlayer`); they are no changes of the container's.
const MADE_BY_ENGINE: [&[u8]; 11] = [
    b"/.dockerenv",
    b"/dev",
    b"/dev/console",
    b"/dev/pts",
    b"/dev/shm",
    b"/etc",
    b"/etc/hostname",
    b"/etc/hosts",
    b"/etc/resolv.conf",
    b"/proc",
    b"/sys",
];

/// overlayfs's attributes: a directory that hides what lies below it, and a file that is a whiteout.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];
const WHITEOUT: [&str; 2] = ["trusted.overlay.whiteout", "user.overlay.whiteout"];

/// How a path differs from the image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Another content, owner or permission; a directory also where something in it changed.
    Modified,
    /// New.
    Added,
    /// Gone.
    Deleted,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path in the container.
    pub path: String,
    /// How it differs.
    pub kind: ChangeKind,
}

/// A writable layer and the layers below it.
#[derive(Debug)]
pub struct LayeredFiles {
    /// The topmost first.
    layers: Vec<OwnedFd>,
    /// Of the writable layer; images have the container's ids.
    ids: IdMap,
    /// The latest time in an archive of changes, in seconds since 1970.
    latest: Option<i64>,
}

impl LayeredFiles {
    /// Opens the writable layer `upper`, whose files belong to the ids outside of `ids`, and the layers `lower`, the topmost
    /// first.
    ///
    /// # Errors
    /// [`FileError::Path`].
    pub fn open(upper: &Path, lower: &[PathBuf], ids: IdMap) -> Result<Self, FileError> {
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fs::open(path, flags, Mode::empty())
                .map_err(|errno| FileError::at("open", path.as_os_str().as_encoded_bytes(), errno))
        };
        let lower = lower.iter().map(PathBuf::as_path);
        let layers = std::iter::once(upper).chain(lower).map(open).collect::<Result<_, _>>()?;
        Ok(Self { layers, ids, latest: None })
    }

    /// The same, but archives of its changes say of nothing that it was changed later than `latest`, in seconds since 1970.
    #[must_use]
    pub fn no_later_than(self, latest: Option<i64>) -> Self {
        Self { latest, ..self }
    }

    /// What the writable layer changed, parents before what is in them, names in the order of their bytes.
    ///
    /// # Errors
    /// [`FileError::Path`] for what cannot be read, [`FileError::TooDeep`].
    pub fn changes(&self) -> Result<Vec<Change>, FileError> {
        let mut comparison = Comparison { ids: &self.ids, changes: Vec::new(), path: Vec::new() };
        let failed = |errno| FileError::at("open", b"/", errno);
        let upper = self.layers[0].try_clone().map_err(|error| FileError::at("open", b"/", error))?;
        let lower = Merged::root(&self.layers[1..]).map_err(failed)?;
        comparison.directory(&upper, Some(&lower), true, 0)?;
        Ok(comparison.changes)
    }

    /// Writes an archive of the merged files to `sink`, as `docker export` does.
    ///
    /// # Errors
    /// [`FileError::Write`] where the sink is gone, [`FileError::Path`] for what cannot be read: the archive is then
    /// without its end.
    pub fn export(&self, mut sink: impl Write) -> Result<(), FileError> {
        let mut packer = Packer::new(&mut sink);
        let images = IdMap::default();
        let root = Merged::root(&self.layers).map_err(|errno| FileError::at("open", b"/", errno))?;
        let mut path = Vec::new();
        let mut levels = vec![(root.names(b"/")?.into_iter(), root, 0)];
        while let Some((names, directory, prefix)) = levels.last_mut() {
            path.truncate(*prefix);
            let Some(name) = names.next() else {
                levels.pop();
                continue;
            };
            path.extend_from_slice(&name);
            let failed = |errno| FileError::at("lstat", &path, errno);
            let Some(entry) = directory.look(&name).map_err(failed)? else { continue };
            let ids = if entry.layer == 0 { &self.ids } else { &images };
            packer.entry(entry.fd.as_fd(), &entry.stat, &path, ids)?;
            if let Some(merged) = entry.directory {
                if levels.len() >= DEPTH_MAX {
                    return Err(FileError::TooDeep { path: text(&path[..path.len().min(100)]) });
                }
                path.push(b'/');
                levels.push((merged.names(&path)?.into_iter(), merged, path.len()));
            }
        }
        packer.finish()
    }
}

/// A level of [`LayeredFiles::pack_changes`]: a directory of the writable layer.
struct UpperLevel {
    fd: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
    /// Length of its path with the slash.
    prefix: usize,
    /// What the layers below have there.
    lower: Option<Merged>,
    /// Its own entry, held back until something in it needs it.
    pending: Option<(OwnedFd, Stat)>,
}

impl LayeredFiles {
    /// Writes the writable layer as the archive of an image's layer: deletions as `.wh.NAME`, directories that hide what is
    /// below with `.wh..wh..opq` in them (OCI image-spec, layer.md "Whiteouts"). True where there was anything to write.
    ///
    /// # Errors
    /// As [`Self::export`].
    pub fn pack_changes(&self, mut sink: impl Write) -> Result<bool, FileError> {
        let mut packer = Packer::new(&mut sink);
        packer.latest = self.latest;
        let failed = |errno: Errno| FileError::at("open", b"/", errno);
        let upper = directory::open_child(&self.layers[0], ".").map_err(failed)?;
        let lower = Merged::root(&self.layers[1..]).map_err(failed)?;
        let mut path = Vec::new();
        let mut levels = vec![upper_level(upper, b"", Some(lower), None)?];
        let mut is_empty = true;
        while let Some(level) = levels.last_mut() {
            path.truncate(level.prefix);
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let failed = |errno| FileError::at("lstat", &name, errno);
            let found = look_in_layer(level.fd.as_fd(), &name).map_err(failed)?;
            let old = match &level.lower {
                Some(lower) => lower.look(&name).map_err(failed)?,
                None => None,
            };
            let prefix = level.prefix;
            path.extend_from_slice(&name);
            let (fd, stat) = match found {
                Part::Nothing => continue,
                // What nobody has below need not be deleted.
                Part::Whiteout if old.is_none() => continue,
                Part::Whiteout => {
                    self.write_pending(&mut packer, &mut levels, &path)?;
                    path.truncate(prefix);
                    path.extend_from_slice(b".wh.");
                    path.extend_from_slice(&name);
                    packer.marker(&path)?;
                    is_empty = false;
                    continue;
                }
                Part::Found(fd, stat) => (fd, stat),
            };
            let absolute = [b"/", path.as_slice()].concat();
            let is_directory = is(&stat, FileType::Directory);
            let held_back = match &old {
                None => is_made_by_engine(&absolute, &stat),
                Some(old) => is_directory && !is_opaque(fd.as_fd()) && !differs(&fd, &stat, old, &self.ids),
            };
            if !held_back {
                self.write_pending(&mut packer, &mut levels, &path)?;
                packer.entry(fd.as_fd(), &stat, &path, &self.ids)?;
                is_empty = false;
            }
            if !is_directory {
                continue;
            }
            if levels.len() >= DEPTH_MAX {
                return Err(FileError::TooDeep { path: text(&path[..path.len().min(100)]) });
            }
            path.push(b'/');
            let old = old.and_then(|old| old.directory);
            if old.is_some() && is_opaque(fd.as_fd()) {
                packer.marker(&[path.as_slice(), b".wh..wh..opq"].concat())?;
            }
            let pending = if held_back {
                let copy = fd.try_clone().map_err(|error| FileError::at("dup", &path, error))?;
                Some((copy, stat))
            } else {
                None
            };
            levels.push(upper_level(fd, &path, old, pending)?);
        }
        packer.finish()?;
        Ok(!is_empty)
    }

    /// Writes the directories on the way to `path` that were held back.
    fn write_pending<W: Write>(
        &self,
        packer: &mut Packer<'_, W>,
        levels: &mut [UpperLevel],
        path: &[u8],
    ) -> Result<(), FileError> {
        for level in levels {
            if let Some((fd, stat)) = level.pending.take() {
                packer.entry(fd.as_fd(), &stat, &path[..level.prefix - 1], &self.ids)?;
            }
        }
        Ok(())
    }
}

fn upper_level(
    fd: OwnedFd,
    path: &[u8],
    lower: Option<Merged>,
    pending: Option<(OwnedFd, Stat)>,
) -> Result<UpperLevel, FileError> {
    let mut names: Vec<Vec<u8>> = match directory::names(&fd) {
        Ok(names) => names.into_iter().map(|(name, _)| name).collect(),
        Err(errno) if is_gone(errno) => Vec::new(),
        Err(errno) => return Err(FileError::at("open", path, errno)),
    };
    names.sort_unstable();
    Ok(UpperLevel { fd, names: names.into_iter(), prefix: path.len(), lower, pending })
}

/// A directory as several layers together have it: one open directory for each layer that has a part of it.
#[derive(Debug)]
pub(super) struct Merged {
    /// Number of the layer, and its part; the topmost first.
    parts: Vec<(usize, OwnedFd)>,
}

/// What a name means in a merged directory.
pub(super) struct MergedEntry {
    /// Number of the layer that has it.
    layer: usize,
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
    /// Its own parts where it is a directory.
    pub(super) directory: Option<Merged>,
}

/// What a layer says about a name.
enum Part {
    /// Nothing: the layers below count.
    Nothing,
    /// That it is deleted.
    Whiteout,
    /// A file or a directory.
    Found(OwnedFd, Stat),
}

impl Merged {
    pub(super) fn root(layers: &[OwnedFd]) -> Result<Self, Errno> {
        let part = |(number, layer): (usize, &OwnedFd)| Ok((number, directory::open_child(layer, ".")?));
        Ok(Self { parts: layers.iter().enumerate().map(part).collect::<Result<_, Errno>>()? })
    }

    /// Every name of every part, deleted ones included.
    pub(super) fn names(&self, path: &[u8]) -> Result<BTreeSet<Vec<u8>>, FileError> {
        let mut names = BTreeSet::new();
        for (_, part) in &self.parts {
            match directory::names(part) {
                Ok(part) => names.extend(part.into_iter().map(|(name, _)| name)),
                Err(errno) if is_gone(errno) => {}
                Err(errno) => return Err(FileError::at("open", path, errno)),
            }
        }
        Ok(names)
    }

    /// What `name` means; `None` where it is deleted, or was never there.
    pub(super) fn look(&self, name: &[u8]) -> Result<Option<MergedEntry>, Errno> {
        let mut found: Option<MergedEntry> = None;
        for (layer, part) in &self.parts {
            let (fd, stat) = match look_in_layer(part.as_fd(), name)? {
                Part::Nothing => continue,
                Part::Whiteout => break,
                Part::Found(fd, stat) => (fd, stat),
            };
            let is_directory = is(&stat, FileType::Directory);
            let is_last = !is_directory || is_opaque(fd.as_fd());
            match &mut found {
                // A directory above hides a file below.
                Some(_) if !is_directory => break,
                Some(entry) => {
                    if let Some(directory) = &mut entry.directory {
                        directory.parts.push((*layer, fd));
                    }
                }
                None => {
                    let own = if is_directory {
                        Some(Self { parts: vec![(*layer, directory::open_child(&fd, ".")?)] })
                    } else {
                        None
                    };
                    found = Some(MergedEntry { layer: *layer, fd, stat, directory: own });
                }
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }
}

fn look_in_layer(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Part, Errno> {
    let (fd, stat) = match look(directory, name) {
        Ok(found) => found,
        Err(errno) if is_gone(errno) => return Ok(Part::Nothing),
        Err(errno) => return Err(errno),
    };
    let is_device = is(&stat, FileType::CharacterDevice) && stat.st_rdev == 0;
    let by_attribute =
        || is(&stat, FileType::RegularFile) && stat.st_size == 0 && has_attribute(fd.as_fd(), WHITEOUT, None);
    if is_device || by_attribute() {
        return Ok(Part::Whiteout);
    }
    Ok(Part::Found(fd, stat))
}

fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    has_attribute(directory, OPAQUE, Some(b'y'))
}

fn has_attribute(fd: BorrowedFd<'_>, names: [&str; 2], wanted: Option<u8>) -> bool {
    let path = proc_path(fd);
    let mut value = [0; 8];
    names.iter().any(|name| match fs::getxattr(&path, *name, &mut value) {
        Ok(length) => wanted.is_none_or(|wanted| value[..length] == [wanted]),
        Err(_) => false,
    })
}

/// The comparison of dockerd's (moby `pkg/archive`, `addChanges`): the times of directories do not count, and a directory
/// with a change in it has changed.
struct Comparison<'a> {
    ids: &'a IdMap,
    changes: Vec<Change>,
    /// Of what is being compared, without a slash at its end.
    path: Vec<u8>,
}

impl Comparison<'_> {
    /// Compares what is in the directory `upper` with what `lower` has. `listed` says that the directory itself is among
    /// the changes already.
    fn directory(
        &mut self,
        upper: &OwnedFd,
        lower: Option<&Merged>,
        listed: bool,
        depth: usize,
    ) -> Result<(), FileError> {
        if depth >= DEPTH_MAX {
            return Err(FileError::TooDeep { path: text(&self.path[..self.path.len().min(100)]) });
        }
        let first = self.changes.len();
        let length = self.path.len();
        let mut names: Vec<_> = match directory::names(upper) {
            Ok(names) => names.into_iter().map(|(name, _)| name).collect(),
            Err(errno) if is_gone(errno) => return Ok(()),
            Err(errno) => return Err(FileError::at("open", &self.path, errno)),
        };
        names.sort_unstable();
        let mut deleted = Vec::new();
        if let Some(lower) = lower.filter(|_| is_opaque(upper.as_fd())) {
            let gone = lower.names(&self.path)?;
            deleted.extend(gone.into_iter().filter(|name| names.binary_search(name).is_err()));
        }
        for name in names {
            self.path.truncate(length);
            self.path.push(b'/');
            self.path.extend_from_slice(&name);
            let failed = |errno| FileError::at("lstat", &self.path, errno);
            match look_in_layer(upper.as_fd(), &name).map_err(failed)? {
                Part::Nothing => {}
                Part::Whiteout => deleted.push(name),
                Part::Found(fd, stat) => {
                    let old = match lower {
                        Some(lower) => lower.look(&name).map_err(failed)?,
                        None => None,
                    };
                    self.entry(&fd, &stat, old, depth)?;
                }
            }
        }
        for name in deleted {
            self.path.truncate(length);
            self.path.push(b'/');
            self.path.extend_from_slice(&name);
            let failed = |errno| FileError::at("lstat", &self.path, errno);
            if let Some(lower) = lower
                && lower.look(&name).map_err(failed)?.is_some()
            {
                self.push(ChangeKind::Deleted);
            }
        }
        self.path.truncate(length);
        if self.changes.len() > first && !listed {
            let change = Change { path: text(&self.path), kind: ChangeKind::Modified };
            self.changes.insert(first, change);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        fd: &OwnedFd,
        stat: &Stat,
        old: Option<MergedEntry>,
        depth: usize,
    ) -> Result<(), FileError> {
        let is_directory = is(stat, FileType::Directory);
        let listed = match &old {
            None if is_made_by_engine(&self.path, stat) => false,
            None => {
                self.push(ChangeKind::Added);
                true
            }
            Some(old) if differs(fd, stat, old, self.ids) => {
                self.push(ChangeKind::Modified);
                true
            }
            Some(_) => false,
        };
        if is_directory {
            let old = old.and_then(|old| old.directory);
            self.directory(fd, old.as_ref(), listed, depth + 1)?;
        }
        Ok(())
    }

    fn push(&mut self, kind: ChangeKind) {
        self.changes.push(Change { path: text(&self.path), kind });
    }
}

/// True where a file of the writable layer, whose ids are those outside of `ids`, is not what the image has.
fn differs(fd: &OwnedFd, new: &Stat, old: &MergedEntry, ids: &IdMap) -> bool {
    let owner = ids.inside(new.st_uid, new.st_gid);
    if new.st_mode != old.stat.st_mode
        || owner != (old.stat.st_uid, old.stat.st_gid)
        || new.st_rdev != old.stat.st_rdev
    {
        return true;
    }
    if is(new, FileType::Directory) {
        return false;
    }
    new.st_size != old.stat.st_size
        || !same_time(new, &old.stat)
        || capability(fd.as_fd(), ids) != capability(old.fd.as_fd(), &IdMap::default())
}

/// True for a mount point, which the engine makes empty.
fn is_made_by_engine(path: &[u8], stat: &Stat) -> bool {
    let is_empty = is(stat, FileType::Directory) || is(stat, FileType::RegularFile) && stat.st_size == 0;
    is_empty && MADE_BY_ENGINE.contains(&path)
}

/// Archives carry whole seconds: a time that has no fraction is compared without.
fn same_time(one: &Stat, other: &Stat) -> bool {
    one.st_mtime == other.st_mtime
        && (one.st_mtime_nsec == other.st_mtime_nsec || one.st_mtime_nsec == 0 || other.st_mtime_nsec == 0)
}

#[cfg(test)]
mod tests;
