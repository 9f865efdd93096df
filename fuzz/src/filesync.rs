use std::fs;
use std::os::fd::AsFd;

/// The packets of a client that sends its build context: whatever it says, nothing outside of the directory is touched.
pub fn filesync(input: &[u8]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("a/old")).expect("directories can be made");
    fs::write(root.join("a/file"), "old").expect("a file can be written");
    fs::write(directory.path().join("outside"), "whole").expect("a file can be written");
    for (target, link) in [("..", "up"), ("/", "a/absolute"), ("../../outside", "a/outside")] {
        std::os::unix::fs::symlink(target, root.join(link)).expect("a link can be made");
    }
    let opened = fs::File::open(&root).expect("it can be opened");
    dory_buildkit::fuzzing::receive_packets(opened.as_fd(), input);
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .expect("it can be read")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["outside", "root"]);
    assert_eq!(fs::read(directory.path().join("outside")).expect("it is there"), b"whole");
}
