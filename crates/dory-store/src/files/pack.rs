//! Files to an archive, in Docker's form: whole seconds, the container's ids, names in the order of their bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{self, FileType, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use tar::EntryType;

use super::FileError;
use super::assemble::Attributes;
use super::error::is_gone;
use super::header::{Member, write_end, write_member, write_padding, write_zeros};
use super::ids::IdMap;
use super::tree::{is, look, proc_path, reopen};
use crate::directory;

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;
/// Directories within one another: more have no path that a system call takes (`PATH_MAX`).
pub(super) const DEPTH_MAX: usize = 2048;
/// The attribute with a program's capabilities (capabilities(7)).
pub(super) const CAPABILITY: &[u8] = b"security.capability";
/// The longest list of attributes, and the longest value (xattr(7)).
const XATTR_MAX: usize = 64 << 10;

/// A file's extended attributes: names and values.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Writes one archive.
pub(super) struct Packer<'a, W> {
    sink: &'a mut W,
    /// Names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    /// What the next entries get in place of what their files have.
    pub(super) attributes: Attributes,
    /// No entry says that it was changed later than this, in seconds since 1970.
    pub(super) latest: Option<i64>,
}

/// A directory whose entries are being written.
struct Level {
    fd: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
    /// Length of its name with the slash.
    prefix: usize,
}

impl<'a, W: Write> Packer<'a, W> {
    pub(super) fn new(sink: &'a mut W) -> Self {
        Self {
            sink,
            links: HashMap::new(),
            buffer: vec![0; BUFFER],
            attributes: Attributes::default(),
            latest: None,
        }
    }

    /// Takes what comes for other files than what came, even where it is the same.
    pub(super) fn forget_links(&mut self) {
        self.links.clear();
    }

    /// Where the archive goes, for members that are no files of anybody's.
    pub(super) fn sink(&mut self) -> &mut W {
        self.sink
    }

    /// Writes a directory, and what is in it, under `name`.
    pub(super) fn tree(
        &mut self,
        top: OwnedFd,
        stat: &Stat,
        mut name: Vec<u8>,
        ids: &IdMap,
    ) -> Result<(), FileError> {
        self.entry(top.as_fd(), stat, &name, ids)?;
        name.push(b'/');
        let mut levels = vec![level(top, &name)?];
        while let Some(level) = levels.last_mut() {
            name.truncate(level.prefix);
            let Some(next) = level.names.next() else {
                levels.pop();
                continue;
            };
            name.extend_from_slice(&next);
            let (fd, stat) = match look(level.fd.as_fd(), &next) {
                Ok(found) => found,
                Err(errno) if is_gone(errno) => continue,
                Err(errno) => return Err(FileError::at("lstat", &name, errno)),
            };
            self.entry(fd.as_fd(), &stat, &name, ids)?;
            if is(&stat, FileType::Directory) {
                if levels.len() >= DEPTH_MAX {
                    return Err(FileError::TooDeep {
                        path: super::error::text(&name[..name.len().min(100)]),
                    });
                }
                name.push(b'/');
                levels.push(self::level(fd, &name)?);
            }
        }
        Ok(())
    }

    /// Writes one entry. What cannot be opened is left out, as dockerd does, and sockets are.
    pub(super) fn entry(
        &mut self,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        name: &[u8],
        ids: &IdMap,
    ) -> Result<(), FileError> {
        let failed = |operation, errno: Errno| FileError::at(operation, name, errno);
        let (uid, gid) = self.attributes.owner.unwrap_or_else(|| ids.inside(stat.st_uid, stat.st_gid));
        let modified = self.attributes.modified.unwrap_or(stat.st_mtime);
        let mut member = Member {
            name,
            kind: EntryType::Regular,
            link: &[],
            mode: self.attributes.mode.unwrap_or(stat.st_mode),
            uid,
            gid,
            size: 0,
            modified: self.latest.map_or(modified, |latest| modified.min(latest)),
            device: (0, 0),
            xattrs: &[],
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.regular(fd, stat, member, ids),
            FileType::Directory => {
                let name = [name, b"/"].concat();
                let xattrs = xattrs(fd, ids);
                member = Member { name: &name, kind: EntryType::Directory, xattrs: &xattrs, ..member };
                return write_member(self.sink, &member).map_err(FileError::Write);
            }
            FileType::Symlink => {
                let target = fs::readlinkat(fd, "", Vec::new()).map_err(|errno| failed("readlink", errno))?;
                member = Member { kind: EntryType::Symlink, link: target.as_bytes(), ..member };
                return write_member(self.sink, &member).map_err(FileError::Write);
            }
            FileType::Fifo => member.kind = EntryType::Fifo,
            FileType::CharacterDevice => member.kind = EntryType::Char,
            FileType::BlockDevice => member.kind = EntryType::Block,
            _ => return Ok(()),
        }
        member.device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        write_member(self.sink, &member).map_err(FileError::Write)
    }

    fn regular(
        &mut self,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        member: Member<'_>,
        ids: &IdMap,
    ) -> Result<(), FileError> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let member = Member { kind: EntryType::Link, link: first, ..member };
                return write_member(self.sink, &member).map_err(FileError::Write);
            }
            self.links.insert(key, member.name.to_vec());
        }
        let xattrs = xattrs(fd, ids);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let member = Member { size, xattrs: &xattrs, ..member };
        // Files of the kernel's say that they are empty, and some may not even be opened.
        if size == 0 {
            return write_member(self.sink, &member).map_err(FileError::Write);
        }
        let file = match reopen(fd, OFlags::RDONLY) {
            Ok(file) => File::from(file),
            Err(error) => {
                tracing::warn!(path = %super::error::text(member.name), %error, "A file is left out of an archive");
                return Ok(());
            }
        };
        write_member(self.sink, &member).map_err(FileError::Write)?;
        self.content(&file, stat, size, member.name)
    }

    /// Writes `size` bytes of content; holes are not read. A file that became shorter ends in zeros.
    fn content(&mut self, file: &File, stat: &Stat, size: u64, name: &[u8]) -> Result<(), FileError> {
        let has_holes = u64::try_from(stat.st_blocks).unwrap_or(0) * 512 < size;
        let mut offset = 0;
        while offset < size {
            let (data, hole) = if has_holes { extent(file, offset, size) } else { (offset, size) };
            write_zeros(self.sink, data - offset).map_err(FileError::Write)?;
            offset = data;
            while offset < hole {
                let wanted = usize::try_from(hole - offset).map_or(BUFFER, |rest| rest.min(BUFFER));
                let length = match file.read_at(&mut self.buffer[..wanted], offset) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    length => length.map_err(|error| FileError::at("read", name, error))?,
                };
                if length == 0 {
                    write_zeros(self.sink, size - offset).map_err(FileError::Write)?;
                    offset = size;
                    break;
                }
                self.sink.write_all(&self.buffer[..length]).map_err(FileError::Write)?;
                offset += length as u64;
            }
        }
        write_padding(self.sink, size).map_err(FileError::Write)
    }

    /// Writes an empty file that says something about others.
    pub(super) fn marker(&mut self, name: &[u8]) -> Result<(), FileError> {
        let member = Member {
            name,
            kind: EntryType::Regular,
            link: &[],
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            modified: 0,
            device: (0, 0),
            xattrs: &[],
        };
        write_member(self.sink, &member).map_err(FileError::Write)
    }

    /// Writes the archive's end.
    pub(super) fn finish(self) -> Result<(), FileError> {
        write_end(self.sink).and_then(|()| self.sink.flush()).map_err(FileError::Write)
    }
}

/// Where the next data at or behind `offset` begins and ends (lseek(2), `SEEK_DATA` and `SEEK_HOLE`).
fn extent(file: &File, offset: u64, size: u64) -> (u64, u64) {
    let data = match fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data.clamp(offset, size),
        Err(Errno::NXIO) => return (size, size),
        Err(_) => return (offset, size),
    };
    let hole = fs::seek(file, SeekFrom::Hole(data)).map_or(size, |hole| hole.clamp(data, size));
    // A filesystem that contradicts itself must not keep the loop from ending.
    if hole == data { (data, size) } else { (data, hole) }
}

fn level(fd: OwnedFd, name: &[u8]) -> Result<Level, FileError> {
    let mut names: Vec<Vec<u8>> = match directory::names(&fd) {
        Ok(names) => names.into_iter().map(|(name, _)| name).collect(),
        Err(errno) if is_gone(errno) => Vec::new(),
        Err(errno) => return Err(FileError::at("open", name, errno)),
    };
    names.sort_unstable();
    Ok(Level { fd, names: names.into_iter(), prefix: name.len() })
}

/// The attributes that mean something outside: capabilities, and those that belong to the user.
fn xattrs(fd: BorrowedFd<'_>, ids: &IdMap) -> Xattrs {
    let path = proc_path(fd);
    let mut names = [0; 1024];
    let mut longer = Vec::new();
    let names = match fs::listxattr(&path, &mut names) {
        Ok(length) => &names[..length],
        Err(Errno::RANGE) => {
            longer.resize(XATTR_MAX, 0);
            let length = fs::listxattr(&path, longer.as_mut_slice()).unwrap_or(0);
            &longer[..length]
        }
        Err(_) => &[],
    };
    let names = names.split(|byte| *byte == 0).filter(|name| is_portable(name));
    names.filter_map(|name| Some((name.to_vec(), xattr(&path, name, ids)?))).collect()
}

/// overlayfs's own attributes are about the layer, not the file.
fn is_portable(name: &[u8]) -> bool {
    name == CAPABILITY || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

fn xattr(path: &str, name: &[u8], ids: &IdMap) -> Option<Vec<u8>> {
    let mut value = vec![0; XATTR_MAX];
    let length = fs::getxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(if name == CAPABILITY { capability_inside(value, ids) } else { value })
}

/// The capabilities that one file has as [`super::layered`] compares them.
pub(super) fn capability(fd: BorrowedFd<'_>, ids: &IdMap) -> Option<Vec<u8>> {
    xattr(&proc_path(fd), CAPABILITY, ids)
}

/// linux/capability.h: revision 3 of the attribute is revision 2 with the root that it counts for behind it.
const CAPABILITY_REVISION_2: u8 = 2;
const CAPABILITY_REVISION_3: u8 = 3;
const CAPABILITY_LENGTH_2: usize = 20;

/// Capabilities that count for the container's root are plain ones inside.
fn capability_inside(mut value: Vec<u8>, ids: &IdMap) -> Vec<u8> {
    let root = ids.outside(0, 0).map(|(uid, _)| uid.to_le_bytes());
    let is_ours = value.len() == CAPABILITY_LENGTH_2 + 4
        && value[3] == CAPABILITY_REVISION_3
        && root.is_some_and(|root| value[CAPABILITY_LENGTH_2..] == root);
    if is_ours {
        value.truncate(CAPABILITY_LENGTH_2);
        value[3] = CAPABILITY_REVISION_2;
    }
    value
}

/// The reverse: plain capabilities count for the container's root only.
pub(super) fn capability_outside(mut value: Vec<u8>, ids: &IdMap) -> Vec<u8> {
    let Some((root, _)) = ids.outside(0, 0).filter(|_| !ids.is_identity()) else { return value };
    if value.len() == CAPABILITY_LENGTH_2 && value[3] == CAPABILITY_REVISION_2 {
        value[3] = CAPABILITY_REVISION_3;
        value.extend_from_slice(&root.to_le_bytes());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{IdRange, Tree};
    use crate::tar_stream::TarStream;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn tree(path: &std::path::Path) -> Tree {
        Tree::new(File::open(path).unwrap().into(), IdMap::default())
    }

    fn names(tree: &Tree, path: &str) -> Vec<String> {
        let mut archive = Vec::new();
        tree.find(path).unwrap().pack(&mut archive).unwrap();
        let mut stream = TarStream::new(archive.as_slice());
        let mut names = Vec::new();
        while let Some(entry) = stream.next_entry().unwrap() {
            let link = String::from_utf8(entry.link_name).unwrap();
            let name = String::from_utf8(entry.path).unwrap();
            names.push(if link.is_empty() { name } else { format!("{name} {link}") });
        }
        names
    }

    #[test]
    fn names_entries_as_dockerd_does() {
        let path = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(path.path().join("a/b")).unwrap();
        std::fs::write(path.path().join("a/f"), "text").unwrap();
        std::fs::hard_link(path.path().join("a/f"), path.path().join("a/g")).unwrap();
        symlink("/a", path.path().join("l")).unwrap();
        let tree = tree(path.path());
        assert_eq!(names(&tree, "/a"), ["a/", "a/b/", "a/f", "a/g a/f"]);
        assert_eq!(names(&tree, "/a/."), ["./", "./b/", "./f", "./g ./f"]);
        assert_eq!(names(&tree, "/a/f"), ["f"]);
        assert_eq!(names(&tree, "/l"), ["l /a"]);
        assert_eq!(names(&tree, "/l/"), ["l/", "l/b/", "l/f", "l/g l/f"]);
        assert_eq!(names(&tree, "/")[..3], ["/", "/a/", "/a/b/"]);
        assert_eq!(tree.find("/l").unwrap().stat().unwrap().link_target, "/a");
        assert!(matches!(tree.find("/nope"), Err(FileError::NotFound { .. })));
        assert!(matches!(tree.find("/a/f/"), Err(FileError::Path { .. })));
    }

    #[test]
    fn links_end_at_the_root() {
        let path = tempfile::tempdir().unwrap();
        std::fs::create_dir(path.path().join("root")).unwrap();
        std::fs::write(path.path().join("secret"), "outside").unwrap();
        for (target, link) in [("../..", "up"), ("/usr", "etc"), ("loop", "loop"), ("up/../x", "far")] {
            symlink(target, path.path().join("root").join(link)).unwrap();
        }
        let tree = tree(&path.path().join("root"));
        for missing in ["/up/secret", "/etc/passwd", "/up/../secret", "../secret"] {
            assert!(matches!(tree.find(missing), Err(FileError::NotFound { .. })), "{missing}");
        }
        assert_eq!(tree.find("/up/").unwrap().stat().unwrap().mode & 0o170000, 0o040000);
        assert_eq!(tree.find("/up").unwrap().stat().unwrap().link_target, "/");
        assert_eq!(tree.find("/far").unwrap().stat().unwrap().link_target, "/x");
        assert!(tree.find("/loop").unwrap().stat().is_err());
    }

    #[test]
    fn holes_become_zeros() {
        let path = tempfile::tempdir().unwrap();
        let file = File::create(path.path().join("f")).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"middle", 500_000).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o640)).unwrap();
        let mut archive = Vec::new();
        tree(path.path()).find("f").unwrap().pack(&mut archive).unwrap();
        let mut stream = TarStream::new(archive.as_slice());
        let entry = stream.next_entry().unwrap().unwrap();
        assert_eq!((entry.size, entry.mode), (1 << 20, 0o640));
        let mut content = Vec::new();
        io::Read::read_to_end(&mut stream, &mut content).unwrap();
        assert_eq!(content.len(), 1 << 20);
        assert_eq!(&content[500_000..500_006], b"middle");
        assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 6);
    }

    #[test]
    fn capabilities_count_for_the_containers_root() {
        let range = IdRange { inside: 0, outside: 70_000, length: 65_536 };
        let ids = IdMap { uids: vec![range], gids: vec![range] };
        let mut plain = vec![7; CAPABILITY_LENGTH_2];
        plain[3] = CAPABILITY_REVISION_2;
        let outside = capability_outside(plain.clone(), &ids);
        assert_eq!((outside.len(), outside[3]), (24, CAPABILITY_REVISION_3));
        assert_eq!(capability_inside(outside, &ids), plain);
        assert_eq!(capability_outside(plain.clone(), &IdMap::default()), plain);
    }
}
