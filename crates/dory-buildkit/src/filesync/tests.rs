//! Sender and receiver against each other, and a receiver against senders that lie.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use tempfile::{TempDir, tempdir};

use super::*;

/// One end of two channels.
struct Pipe {
    to: mpsc::Sender<Packet>,
    from: mpsc::Receiver<Packet>,
}

impl Conversation for Pipe {
    fn next(&mut self) -> io::Result<Option<Packet>> {
        Ok(self.from.recv().ok())
    }

    fn send(&mut self, packet: Packet) -> io::Result<()> {
        self.to.send(packet).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn root(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn transfer(from: &Path, to: &Path) -> Result<Received, ReceiveError> {
    let ((to_receiver, from_sender), (to_sender, from_receiver)) = (mpsc::channel(), mpsc::channel());
    let (from, to) = (root(from), root(to));
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let mut pipe = Pipe { to: to_receiver, from: from_receiver };
            send(from.as_fd(), &mut pipe, &mut |_| {})
        });
        let mut pipe = Pipe { to: to_sender, from: from_sender };
        let received = receive(to.as_fd(), &mut pipe, &mut |_| {});
        drop(pipe);
        let _ = sending.join();
        received
    })
}

/// Every file as text: path, type and mode, size, time, content or target.
fn listing(root: &Path) -> Vec<String> {
    fn walk(root: &Path, path: &Path, lines: &mut Vec<String>) {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for entry in entries {
            let metadata = entry.symlink_metadata().unwrap();
            let content = if metadata.is_symlink() {
                fs::read_link(&entry).unwrap().to_string_lossy().into_owned()
            } else if metadata.is_file() {
                String::from_utf8_lossy(&fs::read(&entry).unwrap()).into_owned()
            } else {
                String::new()
            };
            let name = entry.strip_prefix(root).unwrap().display().to_string();
            let links = if metadata.is_file() { metadata.nlink() } else { 0 };
            lines.push(format!(
                "{name} {:o} {links} {}.{} {content}",
                metadata.mode(),
                metadata.mtime(),
                metadata.mtime_nsec()
            ));
            if metadata.is_dir() {
                walk(root, &entry, lines);
            }
        }
    }
    let mut lines = Vec::new();
    walk(root, root, &mut lines);
    lines
}

fn project() -> TempDir {
    let folder = tempdir().unwrap();
    let path = folder.path();
    for directory in ["a", "a/inner", "a-b", "empty"] {
        fs::create_dir(path.join(directory)).unwrap();
    }
    for (file, content) in
        [("a/one", "1"), ("a/inner/two", "22"), ("a-b/three", "333"), ("a.txt", ""), ("z", "last")]
    {
        fs::write(path.join(file), content).unwrap();
    }
    fs::write(path.join("large"), "x".repeat(100_000)).unwrap();
    fs::set_permissions(path.join("z"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(path.join("a/one"), path.join("z-link")).unwrap();
    symlink("../outside", path.join("a/link")).unwrap();
    folder
}

#[test]
fn a_tree_arrives_and_costs_its_stats_when_nothing_changed() {
    let (source, target) = (project(), tempdir().unwrap());
    let first = transfer(source.path(), target.path()).unwrap();
    assert_eq!(listing(source.path()), listing(target.path()));
    assert_eq!((first.entries, first.files), (12, 6));
    let second = transfer(source.path(), target.path()).unwrap();
    assert_eq!((second.entries, second.files), (12, 0));
    assert!(second.bytes < 2_000);
}

#[test]
fn changes_arrive_whatever_they_are() {
    let (source, target) = (project(), tempdir().unwrap());
    transfer(source.path(), target.path()).unwrap();
    let path = source.path();
    // A file for a directory, a directory for a file, a link for a file, other content, other mode, other time; and gone.
    fs::remove_dir_all(path.join("a")).unwrap();
    fs::write(path.join("a"), "file now").unwrap();
    fs::remove_file(path.join("z")).unwrap();
    fs::create_dir_all(path.join("z/deep")).unwrap();
    fs::write(path.join("z/deep/file"), "deep").unwrap();
    fs::remove_file(path.join("a.txt")).unwrap();
    symlink("z", path.join("a.txt")).unwrap();
    fs::set_permissions(path.join("a-b"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(path.join("a-b/three"), fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().write(true).open(path.join("large")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(7, 5)).unwrap();
    fs::remove_dir(path.join("empty")).unwrap();
    let received = transfer(path, target.path()).unwrap();
    assert_eq!(listing(path), listing(target.path()));
    assert_eq!(
        received.files, 3,
        "a, z/deep/file and large; z-link has lost its other name, and is the same"
    );
}

#[test]
fn an_incomplete_file_is_asked_for_again() {
    let (source, target) = (project(), tempdir().unwrap());
    transfer(source.path(), target.path()).unwrap();
    fs::write(target.path().join("large"), "y".repeat(100_000)).unwrap();
    assert_eq!(transfer(source.path(), target.path()).unwrap().files, 1);
    assert_eq!(listing(source.path()), listing(target.path()));
}

fn stat(path: &str, mode: u32, size: i64) -> Packet {
    let stat = Stat { path: path.to_owned(), mode, size, ..Stat::default() };
    Packet { r#type: PacketType::PacketStat as i32, stat: Some(stat), ..Packet::default() }
}

fn link(path: &str, target: &str) -> Packet {
    let mut packet = stat(path, 0o644, 0);
    packet.stat.as_mut().unwrap().linkname = target.to_owned();
    packet
}

fn end() -> Packet {
    Packet { r#type: PacketType::PacketStat as i32, ..Packet::default() }
}

fn data(id: u32, data: &str) -> Packet {
    Packet { r#type: PacketType::PacketData as i32, id, data: data.as_bytes().to_vec(), ..Packet::default() }
}

#[test]
fn senders_that_lie_get_nowhere() {
    const DIRECTORY: u32 = 1 << 31 | 0o755;
    const SYMLINK: u32 = 1 << 27 | 0o777;
    let through_link = {
        let mut link = stat("l", SYMLINK, 0);
        link.stat.as_mut().unwrap().linkname = "/".to_owned();
        vec![link, stat("l/etc", DIRECTORY, 0)]
    };
    let cases: Vec<(&str, Vec<Packet>)> = vec![
        ("`../x` is no path that a context can have", vec![stat("../x", 0o644, 0)]),
        ("`l/etc` comes out of order", through_link),
        ("`a` comes out of order", vec![stat("b", 0o644, 0), stat("a", 0o644, 0)]),
        ("`a` comes out of order", vec![stat("a", 0o644, 0), stat("a", DIRECTORY, 0)]),
        ("`a/b` comes out of order", vec![stat("a/b", 0o644, 0)]),
        ("`a` is longer than was told", vec![stat("a", 0o644, 1), data(0, "xx")]),
        ("content came for the file 1, which was not asked for", vec![stat("a", 0o644, 1), data(1, "x")]),
        (
            "content came for the file 0, which was not asked for",
            vec![stat("a", 0o644, 0), data(0, ""), data(0, "x")],
        ),
        ("cannot write `b`", vec![link("b", "no-such"), end()]),
        ("a packet of type 3 was not expected", vec![Packet { r#type: 3, ..Packet::default() }]),
        ("a packet of type 0 was not expected", vec![stat("a", 0o644, 1), end(), stat("b", 0o644, 0)]),
        ("the transfer was interrupted", vec![stat("a", 0o644, 1), end()]),
        ("error from sender: no", vec![Packet { r#type: 4, data: b"no".to_vec(), ..Packet::default() }]),
    ];
    for (expected, packets) in cases {
        let target = tempdir().unwrap();
        let error =
            receive(root(target.path()).as_fd(), &mut Script(packets.into()), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
