//! Tests of unpacking.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::*;
use crate::files::header::{Member, write_end, write_member, write_padding};

/// One entry: name, kind, target of a link, content.
type Line<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

fn archive(lines: &[Line<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, kind, link, content) in lines {
        let member = Member {
            name: name.as_bytes(),
            kind: *kind,
            link: link.as_bytes(),
            mode: 0o751,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            size: content.len() as u64,
            modified: 1_000_000,
            device: (0, 0),
            xattrs: &[],
        };
        write_member(&mut archive, &member).unwrap();
        archive.write_all(content).unwrap();
        write_padding(&mut archive, content.len() as u64).unwrap();
    }
    write_end(&mut archive).unwrap();
    archive
}

fn unpack(root: &Path, to: &str, lines: &[Line<'_>], keep_kinds: bool) -> Result<(), FileError> {
    let tree = Tree::new(File::open(root).unwrap().into(), IdMap::default());
    let options = UnpackOptions { keep_kinds, ..UnpackOptions::default() };
    tree.unpack(to, archive(lines).as_slice(), options)
}

#[test]
fn makes_files_of_all_kinds() {
    let path = tempfile::tempdir().unwrap();
    std::fs::create_dir(path.path().join("to")).unwrap();
    let lines: &[Line<'_>] = &[
        ("./", EntryType::Directory, "", b""),
        ("d/", EntryType::Directory, "", b""),
        ("d/f", EntryType::Regular, "", b"content"),
        ("implied/deep/f", EntryType::Regular, "", b"x"),
        ("d/h", EntryType::Link, "d/f", b""),
        ("d/l", EntryType::Symlink, "../../../etc", b""),
        ("d/p", EntryType::Fifo, "", b""),
    ];
    for _ in 0..2 {
        unpack(path.path(), "/to", lines, true).unwrap();
    }
    let to = path.path().join("to");
    let file = std::fs::metadata(to.join("d/f")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.mtime(), file.nlink()), (0o751, 1_000_000, 2));
    assert_eq!(std::fs::metadata(to.join("d")).unwrap().mtime(), 1_000_000);
    assert_eq!(std::fs::read_link(to.join("d/l")).unwrap(), Path::new("../../../etc"));
    assert_eq!(std::fs::read_to_string(to.join("implied/deep/f")).unwrap(), "x");
}

#[test]
fn stays_beneath_the_root() {
    let path = tempfile::tempdir().unwrap();
    let root = path.path().join("root");
    std::fs::create_dir_all(root.join("to")).unwrap();
    std::fs::write(path.path().join("victim"), "whole").unwrap();
    symlink("../..", root.join("to/up")).unwrap();
    symlink(path.path(), root.join("to/absolute")).unwrap();
    symlink("../../victim", root.join("to/link")).unwrap();
    let file = |name| [(name, EntryType::Regular, "", b"hit".as_slice())];
    unpack(&root, "/to", &file("up/victim"), true).unwrap();
    unpack(&root, "/to", &file("absolute/victim"), true).unwrap_err();
    unpack(&root, "/to", &file("link"), true).unwrap();
    unpack(&root, "/to", &file("/abs"), true).unwrap();
    assert!(matches!(unpack(&root, "/to", &file("../../victim"), true), Err(FileError::ClimbsOut { .. })));
    let link = [("h", EntryType::Link, "../../victim", b"".as_slice())];
    assert!(matches!(unpack(&root, "/to", &link, true), Err(FileError::ClimbsOut { .. })));
    assert_eq!(std::fs::read_to_string(path.path().join("victim")).unwrap(), "whole");
    assert_eq!(std::fs::read_to_string(root.join("victim")).unwrap(), "hit");
    assert!(root.join("to/abs").is_file() && root.join("to/link").is_file());
}

#[test]
fn keeps_kinds_where_asked() {
    let path = tempfile::tempdir().unwrap();
    let directory = |name| [(name, EntryType::Directory, "", b"".as_slice())];
    let file = |name| [(name, EntryType::Regular, "", b"".as_slice())];
    unpack(path.path(), "/", &directory("d/sub"), true).unwrap();
    unpack(path.path(), "/", &file("f"), true).unwrap();
    let refused = unpack(path.path(), "/", &file("d"), true);
    assert!(matches!(refused, Err(FileError::OverwritesDirectory { .. })), "{refused:?}");
    let refused = unpack(path.path(), "/", &directory("f"), true);
    assert!(matches!(refused, Err(FileError::OverwritesFile { .. })), "{refused:?}");
    unpack(path.path(), "/", &file("d"), false).unwrap();
    unpack(path.path(), "/", &directory("f"), false).unwrap();
    assert!(path.path().join("d").is_file() && path.path().join("f").is_dir());
    assert!(matches!(unpack(path.path(), "/d", &file("x"), false), Err(FileError::NotADirectory)));
    assert!(matches!(unpack(path.path(), "/no", &file("x"), false), Err(FileError::NotFound { .. })));
}

#[test]
fn zeros_become_holes_and_stay_zeros() {
    let path = tempfile::tempdir().unwrap();
    let mut content = vec![0; 1 << 20];
    content[5000] = 1;
    content[700_000..700_100].fill(2);
    for length in [content.len(), content.len() - 3, 4096, 1, 0] {
        let lines = [("f", EntryType::Regular, "", &content[..length])];
        unpack(path.path(), "/", &lines, true).unwrap();
        assert!(std::fs::read(path.path().join("f")).unwrap() == content[..length], "{length}");
    }
    unpack(path.path(), "/", &[("f", EntryType::Regular, "", &content)], true).unwrap();
    assert!(std::fs::metadata(path.path().join("f")).unwrap().blocks() <= 64);
}

#[test]
fn a_cut_archive_is_an_error() {
    let path = tempfile::tempdir().unwrap();
    let whole = archive(&[("f", EntryType::Regular, "", &[7; 5000])]);
    let tree = Tree::new(File::open(path.path()).unwrap().into(), IdMap::default());
    let refused = tree.unpack("/", &whole[..3000], UnpackOptions::default());
    assert!(matches!(refused, Err(FileError::Tar(TarError::Read(_)))), "{refused:?}");
    let refused = tree.unpack("/", b"this is no archive".repeat(40).as_slice(), UnpackOptions::default());
    assert!(matches!(refused, Err(FileError::Tar(_))), "{refused:?}");
}
