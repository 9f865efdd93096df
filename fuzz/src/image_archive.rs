use std::cell::OnceCell;
use std::sync::Arc;

use dory_store::{RemoveOptions, Store};

/// An image archive as `docker load` reads it: docker's form, or an OCI layout with its index.
///
/// What is refused leaves no image behind, and what is accepted can be saved again.
pub fn image_archive(input: &[u8]) {
    thread_local! {
        // One store for a process's whole life: it is emptied after each use.
        static STORE: OnceCell<(tempfile::TempDir, Arc<Store>)> = const { OnceCell::new() };
    }
    STORE.with(|store| {
        let (_, store) = store.get_or_init(|| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let store = Store::open(&directory.path().join("data"), "fuzzer").expect("a store");
            (directory, store)
        });
        let Ok(loaded) = store.load(input, &mut |_| {}) else {
            assert!(
                store.images().expect("images can be listed").is_empty(),
                "a refused archive left an image"
            );
            return;
        };
        for image in &loaded {
            let saved = store.save(&[image.id.to_string()], &mut std::io::sink());
            assert!(saved.is_ok(), "what was loaded cannot be saved: {saved:?}");
        }
        for image in loaded {
            let options = RemoveOptions { force: true, no_prune: false };
            // An image that the archive has twice is gone already.
            let _ = store.remove_image(image.id.as_str(), options, &|_| Vec::new());
        }
    });
}
