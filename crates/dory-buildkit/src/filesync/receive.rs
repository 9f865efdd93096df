//! Receives a tree into a directory that may have an older version of it.
//!
//! Paths come parents first and in order, so the directories on the way to the present one are a stack, and what a directory has
//! and was not told when it is left goes. Nothing is ever opened through a link, so that nothing outside of the root is
//! reached whatever the other side says.
//!
//! A file gets its time of modification when it is complete. One that a crash left incomplete has another one, and is asked for again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};

use super::entry::{Entry, EntryKind, InvalidStat, has_content};
use super::packet::Conversation;

/// Files that are asked for at the same time. Senders send four at once; more of them wait in the connection.
const REQUESTS: usize = 128;

/// A tree that could not be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The connection broke, or the build does not want it any more.
    #[error("the transfer was interrupted")]
    Connection(#[source] io::Error),
    /// The sender failed, in its own words.
    #[error("error from sender: {0}")]
    Sender(String),
    /// A stat makes no sense.
    #[error(transparent)]
    Stat(#[from] InvalidStat),
    /// A path is not where its order has a place for it.
    #[error("`{0}` comes out of order")]
    Order(String),
    /// A packet is not what comes at this point.
    #[error("a packet of type {0} was not expected")]
    Packet(i32),
    /// Content of a file that was not asked for.
    #[error("content came for the file {0}, which was not asked for")]
    Content(u32),
    /// The content is longer than was said.
    #[error("`{0}` is longer than was told")]
    TooLong(String),
    /// A file cannot be made here.
    #[error("cannot write `{path}`")]
    Write {
        /// Which one.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What a transfer amounted to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Files, directories and links that were told.
    pub entries: u64,
    /// Files whose content came.
    pub files: u64,
    /// Bytes that came, packets counted whole.
    pub bytes: u64,
}

/// Makes the directory `root` what the other side tells; `progress` is told the bytes so far.
///
/// # Errors
/// [`ReceiveError`]; the directory is then something between the old and the new tree, and good for another attempt.
pub fn receive(
    root: BorrowedFd<'_>,
    conversation: &mut impl Conversation,
    progress: &mut dyn FnMut(u64),
) -> Result<Received, ReceiveError> {
    let mut receiver = Receiver::new(root)?;
    let result = receiver.run(conversation, progress);
    if let Err(error) = &result
        && !matches!(error, ReceiveError::Connection(_) | ReceiveError::Sender(_))
    {
        // Best effort: the sender shows it, and the build fails with the same in any case.
        let _ = conversation.send(packet(PacketType::PacketErr, 0, error.to_string().into_bytes()));
    }
    result
}

fn packet(kind: PacketType, id: u32, data: Vec<u8>) -> Packet {
    Packet { r#type: kind as i32, stat: None, id, data }
}

/// A directory on the way to the present file.
struct Level {
    path: String,
    fd: OwnedFd,
    /// What it had and was not told yet.
    remaining: BTreeSet<Vec<u8>>,
    /// What was told last: names come in order.
    last: String,
}

/// A file whose content comes.
struct Pending {
    entry: Entry,
    file: Option<File>,
    left: u64,
}

struct Receiver<'a> {
    root: BorrowedFd<'a>,
    levels: Vec<Level>,
    waiting: VecDeque<u32>,
    pending: HashMap<u32, Pending>,
    under_way: usize,
    /// Links to files whose content is still to come, in their order.
    links: Vec<Entry>,
    /// Times of directories, which change while files are made in them.
    directories: Vec<(String, i64)>,
    next_id: u32,
    received: Received,
}

impl<'a> Receiver<'a> {
    fn new(root: BorrowedFd<'a>) -> Result<Self, ReceiveError> {
        let failed = |source| ReceiveError::Write { path: ".".to_owned(), source };
        let fd =
            fs::openat(root, ".", DIRECTORY_FLAGS, Mode::empty()).map_err(|error| failed(error.into()))?;
        let remaining = names(&fd).map_err(failed)?;
        let level = Level { path: String::new(), fd, remaining, last: String::new() };
        Ok(Self {
            root,
            levels: vec![level],
            waiting: VecDeque::new(),
            pending: HashMap::new(),
            under_way: 0,
            links: Vec::new(),
            directories: Vec::new(),
            next_id: 0,
            received: Received::default(),
        })
    }

    fn run(
        &mut self,
        conversation: &mut impl Conversation,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Received, ReceiveError> {
        let mut told = false;
        while !told || !self.pending.is_empty() {
            let next = conversation.next().map_err(ReceiveError::Connection)?;
            let early = || ReceiveError::Connection(io::ErrorKind::UnexpectedEof.into());
            let packet = next.ok_or_else(early)?;
            self.received.bytes += prost::Message::encoded_len(&packet) as u64;
            progress(self.received.bytes);
            match PacketType::try_from(packet.r#type) {
                Ok(PacketType::PacketStat) if !told => match packet.stat {
                    Some(stat) => self.told(stat)?,
                    None => {
                        told = true;
                        self.leave_all()?;
                    }
                },
                Ok(PacketType::PacketData) => self.content(packet.id, &packet.data)?,
                Ok(PacketType::PacketErr) => {
                    return Err(ReceiveError::Sender(String::from_utf8_lossy(&packet.data).into_owned()));
                }
                _ => return Err(ReceiveError::Packet(packet.r#type)),
            }
            self.ask(conversation)?;
        }
        self.link_all()?;
        self.set_times()?;
        conversation.send(packet(PacketType::PacketFin, 0, Vec::new())).map_err(ReceiveError::Connection)?;
        // The sender confirms, or just ends.
        while let Some(packet) = conversation.next().map_err(ReceiveError::Connection)? {
            if packet.r#type == PacketType::PacketErr as i32 {
                return Err(ReceiveError::Sender(String::from_utf8_lossy(&packet.data).into_owned()));
            }
            if packet.r#type == PacketType::PacketFin as i32 {
                break;
            }
        }
        Ok(self.received)
    }

    /// A file of the other side.
    fn told(&mut self, stat: bollard_buildkit_proto::fsutil::types::Stat) -> Result<(), ReceiveError> {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).ok_or(ReceiveError::Order(stat.path.clone()))?;
        let may_ask = has_content(&stat);
        let Some(entry) = Entry::new(stat)? else { return Ok(()) };
        self.received.entries += 1;
        self.enter(&entry)?;
        let failed = |source| ReceiveError::Write { path: entry.path.clone(), source };
        match &entry.kind {
            EntryKind::Directory => {
                let level = make_directory(self.directory(), &entry).map_err(failed)?;
                self.directories.push((entry.path.clone(), entry.modified));
                self.levels.push(level);
            }
            EntryKind::HardLink(_) => self.links.push(entry),
            EntryKind::File if may_ask && !is_same_file(self.directory(), &entry).map_err(failed)? => {
                let left = entry.size;
                self.pending.insert(id, Pending { entry, file: None, left });
                self.waiting.push_back(id);
            }
            EntryKind::File => {}
            EntryKind::Symlink(target) => {
                make_symlink(self.directory(), &entry, target).map_err(failed)?;
            }
            EntryKind::Pipe => make_pipe(self.directory(), &entry).map_err(failed)?,
        }
        Ok(())
    }

    /// The present directory.
    fn directory(&self) -> BorrowedFd<'_> {
        self.levels.last().expect("the root is never left before the end").fd.as_fd()
    }

    /// Leaves directories until `entry`'s own is the present one, and notes its name there.
    fn enter(&mut self, entry: &Entry) -> Result<(), ReceiveError> {
        let out_of_order = || ReceiveError::Order(entry.path.clone());
        let (parent, name) = entry.parent_and_name();
        while self.levels.last().is_some_and(|level| level.path != parent) {
            if self.levels.len() == 1 {
                return Err(out_of_order());
            }
            self.leave()?;
        }
        let level = self.levels.last_mut().ok_or_else(out_of_order)?;
        if level.last.as_str() >= name {
            return Err(out_of_order());
        }
        name.clone_into(&mut level.last);
        level.remaining.remove(name.as_bytes());
        Ok(())
    }

    /// Takes away what the present directory has and was not told, and leaves it.
    fn leave(&mut self) -> Result<(), ReceiveError> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        for name in &level.remaining {
            remove(level.fd.as_fd(), name).map_err(|source| {
                let path = format!("{}/{}", level.path, String::from_utf8_lossy(name));
                ReceiveError::Write { path, source }
            })?;
        }
        Ok(())
    }

    fn leave_all(&mut self) -> Result<(), ReceiveError> {
        while !self.levels.is_empty() {
            self.leave()?;
        }
        Ok(())
    }

    /// Asks for files, not for too many at a time.
    fn ask(&mut self, conversation: &mut impl Conversation) -> Result<(), ReceiveError> {
        while self.under_way < REQUESTS
            && let Some(id) = self.waiting.pop_front()
        {
            let request = packet(PacketType::PacketReq, id, Vec::new());
            conversation.send(request).map_err(ReceiveError::Connection)?;
            self.under_way += 1;
        }
        Ok(())
    }

    /// Content of a file; none of it means that it is complete.
    fn content(&mut self, id: u32, data: &[u8]) -> Result<(), ReceiveError> {
        let root = self.root;
        let Some(pending) = self.pending.get_mut(&id) else { return Err(ReceiveError::Content(id)) };
        let failed = |path: &str, source| ReceiveError::Write { path: path.to_owned(), source };
        let path = pending.entry.path.as_str();
        let mut file = match pending.file.take() {
            Some(file) => file,
            None => create(root, &pending.entry).map_err(|source| failed(path, source))?,
        };
        if data.is_empty() {
            set_metadata(&file, &pending.entry).map_err(|source| failed(path, source))?;
            self.received.files += 1;
            self.under_way -= 1;
            self.pending.remove(&id);
            return Ok(());
        }
        // A file that grows while it is sent is honest, one without an end is not.
        let beyond = || ReceiveError::TooLong(path.to_owned());
        pending.left = match pending.left.checked_sub(data.len() as u64) {
            Some(left) => left,
            None => return Err(beyond()),
        };
        file.write_all(data).map_err(|source| failed(path, source))?;
        pending.file = Some(file);
        Ok(())
    }

    /// Makes the second names of files, which are all there now.
    fn link_all(&mut self) -> Result<(), ReceiveError> {
        for entry in std::mem::take(&mut self.links) {
            make_link(self.root, &entry)
                .map_err(|source| ReceiveError::Write { path: entry.path.clone(), source })?;
        }
        Ok(())
    }

    /// Gives directories their times, now that nothing is made in them any more.
    fn set_times(&mut self) -> Result<(), ReceiveError> {
        for (path, modified) in std::mem::take(&mut self.directories) {
            let failed = |source: io::Error| ReceiveError::Write { path: path.clone(), source };
            let fd = open(self.root, &path, DIRECTORY_FLAGS).map_err(failed)?;
            let stat = fs::fstat(&fd).map_err(|error| failed(error.into()))?;
            if modified_of(&stat) != modified {
                fs::futimens(&fd, &times(modified)).map_err(|error| failed(error.into()))?;
            }
        }
        Ok(())
    }
}

const DIRECTORY_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a path beneath `root`, through no link.
fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
    Ok(fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve)?)
}

/// The directory of `entry`, and its name there.
fn place<'e>(root: BorrowedFd<'_>, entry: &'e Entry) -> io::Result<(OwnedFd, &'e str)> {
    let (parent, name) = entry.parent_and_name();
    let parent = if parent.is_empty() { "." } else { parent };
    Ok((open(root, parent, DIRECTORY_FLAGS)?, name))
}

fn names(directory: &OwnedFd) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut names = BTreeSet::new();
    for entry in fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.insert(name);
        }
    }
    Ok(names)
}

/// What is there under `entry`'s name; nothing where nothing is.
fn look(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<fs::Stat>> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn modified_of(stat: &fs::Stat) -> i64 {
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add_unsigned(stat.st_mtime_nsec)
}

fn times(modified: i64) -> Timestamps {
    let time =
        Timespec { tv_sec: modified.div_euclid(1_000_000_000), tv_nsec: modified.rem_euclid(1_000_000_000) };
    Timestamps { last_access: time, last_modification: time }
}

fn has_metadata(stat: &fs::Stat, entry: &Entry) -> bool {
    stat.st_mode & 0o7777 == entry.mode && (stat.st_uid, stat.st_gid) == (entry.uid, entry.gid)
}

/// Whether the file is there already, as complete and old as the other side's. Its mode and owner are brought up to date.
fn is_same_file(directory: BorrowedFd<'_>, entry: &Entry) -> io::Result<bool> {
    let (_, name) = entry.parent_and_name();
    let Some(stat) = look(directory, name)? else { return Ok(false) };
    let same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && u64::try_from(stat.st_size) == Ok(entry.size)
        && modified_of(&stat) == entry.modified;
    if !same || has_metadata(&stat, entry) {
        return Ok(same);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    set_metadata(&File::from(fs::openat(directory, name, flags, Mode::empty())?), entry)?;
    Ok(true)
}

/// A new, empty file in place of whatever was there.
fn create(root: BorrowedFd<'_>, entry: &Entry) -> io::Result<File> {
    let (directory, name) = place(root, entry)?;
    remove(directory.as_fd(), name.as_bytes())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(fs::openat(&directory, name, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Owner, mode, attributes and then the times, which say that the file is complete.
fn set_metadata(file: &File, entry: &Entry) -> io::Result<()> {
    fs::fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in &entry.xattrs {
        match fs::fsetxattr(file, name, value, fs::XattrFlags::empty()) {
            // Neither every filesystem nor every tier has them.
            Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(fs::futimens(file, &times(entry.modified))?)
}

fn make_directory(parent: BorrowedFd<'_>, entry: &Entry) -> io::Result<Level> {
    let (_, name) = entry.parent_and_name();
    let found = look(parent, name)?;
    let is_there =
        found.as_ref().is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    if !is_there {
        if found.is_some() {
            fs::unlinkat(parent, name, AtFlags::empty())?;
        }
        fs::mkdirat(parent, name, Mode::RWXU)?;
    }
    let fd = fs::openat(parent, name, DIRECTORY_FLAGS, Mode::empty())?;
    if !found.filter(|_| is_there).is_some_and(|stat| has_metadata(&stat, entry)) {
        fs::fchown(&fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        fs::fchmod(&fd, Mode::from_raw_mode(entry.mode))?;
    }
    let remaining = if is_there { names(&fd)? } else { BTreeSet::new() };
    Ok(Level { path: entry.path.clone(), fd, remaining, last: String::new() })
}

fn make_symlink(directory: BorrowedFd<'_>, entry: &Entry, target: &str) -> io::Result<()> {
    let (_, name) = entry.parent_and_name();
    let is_same = fs::readlinkat(directory, name, Vec::new())
        .is_ok_and(|old| old.as_bytes() == target.as_bytes())
        && look(directory, name)?.is_some_and(|stat| modified_of(&stat) == entry.modified);
    if is_same {
        return Ok(());
    }
    remove(directory, name.as_bytes())?;
    fs::symlinkat(target, directory, name)?;
    finish_special(directory, name, entry)
}

fn make_pipe(directory: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
    let (_, name) = entry.parent_and_name();
    remove(directory, name.as_bytes())?;
    fs::mknodat(directory, name, FileType::Fifo, Mode::from_raw_mode(entry.mode), 0)?;
    finish_special(directory, name, entry)
}

/// Owner and times of what cannot be opened.
fn finish_special(directory: BorrowedFd<'_>, name: &str, entry: &Entry) -> io::Result<()> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    fs::chownat(directory, name, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)), nofollow)?;
    Ok(fs::utimensat(directory, name, &times(entry.modified), nofollow)?)
}

fn make_link(root: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
    let EntryKind::HardLink(target) = &entry.kind else { return Ok(()) };
    let source = open(root, target, OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = fs::fstat(&source)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other(format!("`{target}` is no file to link to")));
    }
    let (directory, name) = place(root, entry)?;
    if look(directory.as_fd(), name)?
        .is_some_and(|old| (old.st_dev, old.st_ino) == (stat.st_dev, stat.st_ino))
    {
        return Ok(());
    }
    remove(directory.as_fd(), name.as_bytes())?;
    let parent = target.rsplit_once('/').map_or(".", |(parent, _)| parent);
    let target_name = target.rsplit_once('/').map_or(target.as_str(), |(_, name)| name);
    let target_directory = open(root, parent, DIRECTORY_FLAGS)?;
    Ok(fs::linkat(&target_directory, target_name, &directory, name, AtFlags::empty())?)
}

/// Removes whatever has the name, with all that is in it; follows nothing.
fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let inner = fs::openat(directory, name, DIRECTORY_FLAGS, Mode::empty())?;
    for name in names(&inner)? {
        remove(inner.as_fd(), &name)?;
    }
    Ok(fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}
