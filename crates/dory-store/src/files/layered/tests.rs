//! Merged trees against layers made here.

use super::*;
use crate::tar_stream::TarStream;
use std::os::unix::fs::{PermissionsExt, symlink};

/// Makes files: `path` ends with a slash for a directory, begins with `!` for a whiteout, with `=` for an opaque
/// directory.
fn make(root: &Path, paths: &[&str]) {
    for path in paths {
        let (mark, name) = match path.as_bytes()[0] {
            mark @ (b'!' | b'=') => (mark, &path[1..]),
            _ => (b' ', *path),
        };
        let file = root.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        match mark {
            b'!' => fs::mknodat(fs::CWD, &file, FileType::CharacterDevice, Mode::empty(), 0)
                .expect("this test needs root"),
            b'=' => {
                std::fs::create_dir_all(&file).unwrap();
                fs::setxattr(&file, OPAQUE[0], b"y", fs::XattrFlags::empty()).expect("this test needs root");
            }
            _ if name.ends_with('/') => std::fs::create_dir_all(&file).unwrap(),
            _ => std::fs::write(&file, root.as_os_str().as_encoded_bytes()).unwrap(),
        }
    }
}

fn layers() -> (tempfile::TempDir, LayeredFiles) {
    let path = tempfile::tempdir().unwrap();
    let root = |name: &str| path.path().join(name);
    make(
        &root("bottom"),
        &["dir/file", "dir/sub/y", "gone/g", "opq/a", "opq/b", "etc/passwd", "was/x", "same"],
    );
    make(&root("middle"), &["dir/middle", "!was", "late/f"]);
    make(
        &root("upper"),
        &["dir/new", "dir/sub/", "!gone", "=opq/", "opq/c", "etc/hosts", "proc/", "var/lib/a"],
    );
    std::fs::write(root("upper/etc/hosts"), "").unwrap();
    make(&root("upper"), &["!never", "!late"]);
    symlink("x", root("upper/was")).unwrap();
    std::fs::set_permissions(root("upper/dir/sub"), PermissionsExt::from_mode(0o700)).unwrap();
    let lower = [root("middle"), root("bottom")];
    let files = LayeredFiles::open(&root("upper"), &lower, IdMap::default()).unwrap();
    (path, files)
}

#[test]
fn privileged_changes_are_dockerds() {
    let (_keep, files) = layers();
    let changes = files.changes().unwrap();
    let letter = |kind| match kind {
        ChangeKind::Modified => 'C',
        ChangeKind::Added => 'A',
        ChangeKind::Deleted => 'D',
    };
    let lines: Vec<_> =
        changes.iter().map(|change| format!("{} {}", letter(change.kind), change.path)).collect();
    let expected = [
        "C /dir",
        "A /dir/new",
        "C /dir/sub",
        "C /opq",
        "A /opq/c",
        "D /opq/a",
        "D /opq/b",
        "A /var",
        "A /var/lib",
        "A /var/lib/a",
        "A /was",
        "D /gone",
        "D /late",
    ];
    assert_eq!(lines, expected);
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut stream = TarStream::new(archive);
    let mut names = Vec::new();
    while let Some(entry) = stream.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    names
}

#[test]
fn privileged_export_merges_the_layers() {
    let (_keep, files) = layers();
    let mut archive = Vec::new();
    files.export(&mut archive).unwrap();
    let expected = [
        "dir/",
        "dir/file",
        "dir/middle",
        "dir/new",
        "dir/sub/",
        "dir/sub/y",
        "etc/",
        "etc/hosts",
        "etc/passwd",
        "opq/",
        "opq/c",
        "proc/",
        "same",
        "var/",
        "var/lib/",
        "var/lib/a",
        "was",
    ];
    assert_eq!(names(&archive), expected);
}

#[test]
fn privileged_a_layer_of_the_changes_has_whiteouts() {
    let (_keep, files) = layers();
    let mut archive = Vec::new();
    assert!(files.pack_changes(&mut archive).unwrap());
    let expected = [
        "dir/",
        "dir/new",
        "dir/sub/",
        ".wh.gone",
        ".wh.late",
        "opq/",
        "opq/.wh..wh..opq",
        "opq/c",
        "var/",
        "var/lib/",
        "var/lib/a",
        "was",
    ];
    assert_eq!(names(&archive), expected);
}
