//! Sends a directory to a client: the other half of the packets.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};

use super::entry::{Entry, EntryKind};
use super::packet::Conversation;

/// Bytes of a file in one packet, as fsutil has them.
const PIECE: usize = 32 << 10;

/// A tree that could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection broke, or the build is cancelled.
    #[error("the transfer was interrupted")]
    Connection(#[source] io::Error),
    /// The receiver failed, in its own words.
    #[error("error from receiver: {0}")]
    Receiver(String),
    /// The receiver asked for what is no file, or for a file twice.
    #[error("the receiver asked for the file {0}, which it cannot have")]
    Request(u32),
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which one.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Sends everything in `root`; `progress` is told the bytes so far.
///
/// # Errors
/// [`SendError`].
pub fn send(
    root: BorrowedFd<'_>,
    conversation: &mut impl Conversation,
    progress: &mut dyn FnMut(u64),
) -> Result<(), SendError> {
    let mut sender = Sender { root, conversation, files: HashMap::new(), next: 0, first: HashMap::new() };
    sender.tell_directory(root, "")?;
    sender.send(Packet { r#type: PacketType::PacketStat as i32, ..Packet::default() })?;
    sender.answer(progress)
}

struct Sender<'a, C> {
    root: BorrowedFd<'a>,
    conversation: &'a mut C,
    /// Files whose content may be asked for, by their places among the stats.
    files: HashMap<u32, String>,
    next: u32,
    /// The first names of files that have several.
    first: HashMap<(u64, u64), String>,
}

impl<C: Conversation> Sender<'_, C> {
    fn send(&mut self, packet: Packet) -> Result<(), SendError> {
        self.conversation.send(packet).map_err(SendError::Connection)
    }

    /// Tells what is in a directory, in the order of names.
    fn tell_directory(&mut self, directory: BorrowedFd<'_>, path: &str) -> Result<(), SendError> {
        let failed = |path: &str| {
            let path = path.to_owned();
            move |error: rustix::io::Errno| SendError::Read { path, source: error.into() }
        };
        for name in names(directory).map_err(failed(path))? {
            // Paths are text in a packet; what is none cannot be told.
            let Ok(text) = name.to_str() else { continue };
            let path = if path.is_empty() { text.to_owned() } else { format!("{path}/{text}") };
            let stat = fs::statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(&path))?;
            let Some(entry) = self.entry(directory, text, path, &stat).map_err(failed(text))? else {
                continue;
            };
            let is_directory = entry.kind == EntryKind::Directory;
            self.tell(&entry)?;
            if is_directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner =
                    fs::openat(directory, &*name, flags, Mode::empty()).map_err(failed(&entry.path))?;
                self.tell_directory(inner.as_fd(), &entry.path)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, entry: &Entry) -> Result<(), SendError> {
        if matches!(entry.kind, EntryKind::File | EntryKind::HardLink(_)) {
            self.files.insert(self.next, entry.path.clone());
        }
        self.next += 1;
        self.send(Packet {
            r#type: PacketType::PacketStat as i32,
            stat: Some(entry.to_stat()),
            ..Packet::default()
        })
    }

    /// The file as it is told; nothing for devices and sockets.
    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &str,
        path: String,
        stat: &fs::Stat,
    ) -> rustix::io::Result<Option<Entry>> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => {
                let target = fs::readlinkat(directory, name, Vec::new())?;
                EntryKind::Symlink(target.to_string_lossy().into_owned())
            }
            FileType::Fifo => EntryKind::Pipe,
            FileType::RegularFile if stat.st_nlink > 1 => {
                match self.first.insert((stat.st_dev, stat.st_ino), path.clone()) {
                    Some(first) => {
                        self.first.insert((stat.st_dev, stat.st_ino), first.clone());
                        EntryKind::HardLink(first)
                    }
                    None => EntryKind::File,
                }
            }
            FileType::RegularFile => EntryKind::File,
            _ => return Ok(None),
        };
        Ok(Some(Entry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add_unsigned(stat.st_mtime_nsec),
            xattrs: Vec::new(),
        }))
    }

    /// Sends what is asked for, until the other side has all that it wants.
    fn answer(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), SendError> {
        let mut sent = 0;
        while let Some(packet) = self.conversation.next().map_err(SendError::Connection)? {
            match PacketType::try_from(packet.r#type) {
                Ok(PacketType::PacketReq) => self.send_file(packet.id, &mut sent, progress)?,
                Ok(PacketType::PacketFin) => {
                    return self.send(Packet { r#type: PacketType::PacketFin as i32, ..Packet::default() });
                }
                Ok(PacketType::PacketErr) => {
                    return Err(SendError::Receiver(String::from_utf8_lossy(&packet.data).into_owned()));
                }
                _ => return Err(SendError::Request(packet.id)),
            }
        }
        Err(SendError::Connection(io::ErrorKind::UnexpectedEof.into()))
    }

    fn send_file(&mut self, id: u32, sent: &mut u64, progress: &mut dyn FnMut(u64)) -> Result<(), SendError> {
        let path = self.files.remove(&id).ok_or(SendError::Request(id))?;
        let failed = |source| SendError::Read { path: path.clone(), source };
        let mut file = open(self.root, &path).map(File::from).map_err(failed)?;
        let mut buffer = vec![0; PIECE];
        loop {
            let length = file.read(&mut buffer).map_err(failed)?;
            let data = buffer[..length].to_vec();
            self.send(Packet { r#type: PacketType::PacketData as i32, id, data, ..Packet::default() })?;
            if length == 0 {
                return Ok(());
            }
            *sent += length as u64;
            progress(*sent);
        }
    }
}

fn names(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn open(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(fs::openat2(root, path, flags, Mode::empty(), resolve)?)
}
