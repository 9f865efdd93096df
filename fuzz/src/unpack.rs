use std::fs;
use std::path::Path;

use dory_store::{IdMap, Ownership, Tree, UnpackOptions};

/// The body of `PUT /containers/{id}/archive` behind a byte of options: whatever it says, nothing outside of the container's
/// root is touched, and what it made can be packed again.
pub fn unpack(input: &[u8]) {
    let Some((&options, archive)) = input.split_first() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("to/old")).expect("directories can be made");
    fs::write(root.join("to/file"), "old").expect("a file can be written");
    fs::write(directory.path().join("outside"), "whole").expect("a file can be written");
    for (target, link) in [("../..", "to/up"), ("/to", "to/absolute"), ("../../outside", "to/outside")] {
        std::os::unix::fs::symlink(target, root.join(link)).expect("a link can be made");
    }
    let tree = Tree::new(fs::File::open(&root).expect("it can be opened").into(), IdMap::default());
    let options = UnpackOptions {
        keep_kinds: options & 1 != 0,
        owner: if options & 2 == 0 { Ownership::Unpacker } else { Ownership::Given(7, 8) },
        rename: (options & 4 != 0).then(|| (b"a".to_vec(), b"b/c".to_vec())),
    };
    let _ = tree.unpack("/to", archive, options).is_ok();
    assert_eq!(names(directory.path()), ["outside", "root"]);
    assert_eq!(fs::read(directory.path().join("outside")).expect("it is there"), b"whole");
    tree.find("/").and_then(|found| found.pack(Limited(64 << 20))).unwrap_or_else(|error| {
        assert!(matches!(error, dory_store::FileError::Write(_)), "cannot pack: {error:?}");
    });
}

/// Takes so many bytes; files may be as sparse as they like.
struct Limited(usize);

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::WriteZero)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it can be read");
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
