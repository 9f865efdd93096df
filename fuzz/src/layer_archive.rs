use std::cell::OnceCell;

/// A layer's archive, compressed or not.
///
/// What is unpacked stays beneath its directory, and can be written again as it came.
pub fn layer_archive(input: &[u8]) {
    thread_local! {
        // One directory for a process's whole life: it is emptied after each use.
        static DIRECTORY: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
    }
    DIRECTORY.with(|directory| {
        let directory = directory.get_or_init(|| tempfile::tempdir().expect("a temporary directory"));
        let staging = directory.path().join("staging");
        let _ = std::fs::create_dir(&staging);
        dory_store::fuzzing::layer(input, &staging);
        let names = std::fs::read_dir(directory.path()).expect("it can be read").count();
        assert_eq!(names, 1, "something was made beside the layer's own directory");
    });
}
