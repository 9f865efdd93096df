//! Archives of `docker save` and OCI layouts, whole and hostile, against a store on disk.
//!
//! They unpack device nodes and foreign owners, so they need root; without it they fail.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archives;

use std::sync::Arc;

use std::os::unix::fs::MetadataExt;

use archives::{Layer, docker_archive, docker_archive_of, gzip, store, tree, zstd};
use dory_store::{Store, StoreError};
use dory_types::{Digest, with_causes};

/// Loads `archive`.
fn load(store: &Arc<Store>, archive: &[u8]) -> Result<Vec<dory_store::LoadedImage>, StoreError> {
    store.load(archive, &mut |_| {})
}

#[test]
fn privileged_load_resolve_and_chain() {
    let (directory, store) = store();
    let lower = Layer::new().directory("etc", 0o755).file("etc/lower", b"1").file("shadowed", b"low");
    let upper = Layer::new().file("etc/upper", b"2").whiteout("shadowed");
    let archive = docker_archive(&["web:1", "web:2"], &[lower.tar(), upper.tar()]);
    let mut seen = Vec::new();
    let loaded =
        store.load(archive.as_slice(), &mut |progress| seen.push(progress.member.to_owned())).unwrap();
    assert_eq!(loaded.len(), 1);
    let names: Vec<_> = loaded[0].references.iter().map(|name| name.familiar()).collect();
    assert_eq!(names, ["web:1", "web:2"]);
    assert!(!seen.is_empty());
    assert_eq!(store.resolve("web:2").unwrap(), loaded[0].id);
    let (chain, config) = store.layer_chain(&loaded[0].id).unwrap();
    assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(std::fs::read(chain[0].join("etc/upper")).unwrap(), b"2");
    assert_eq!(std::fs::read(chain[1].join("etc/lower")).unwrap(), b"1");
    let whiteout = std::fs::symlink_metadata(chain[0].join("shadowed")).unwrap();
    assert_eq!((whiteout.mode() & libc_s_ifmt(), whiteout.rdev()), (0o020_000, 0));
    store.wait_until_removed();
    let left = tree(&directory.path().join("data"));
    assert!(!left.iter().any(|name| name.starts_with("tmp/") || name.starts_with("trash/")), "{left:?}");
}

/// The bits of a mode that are the kind of file.
fn libc_s_ifmt() -> u32 {
    0o170_000
}

#[test]
fn privileged_every_compression_gives_the_same_layer() {
    let (_directory, store) = store();
    let tar = Layer::new().file("a", &[7; 100_000]).tar();
    let plain = load(&store, &docker_archive(&["plain:1"], std::slice::from_ref(&tar))).unwrap();
    for (name, layer) in [("gzip:1", gzip(&tar)), ("zstd:1", zstd(&tar))] {
        let archive = docker_archive_of(&[name], &[(tar.clone(), layer)]);
        for archive in [archive.clone(), gzip(&archive), zstd(&archive)] {
            assert_eq!(load(&store, &archive).unwrap()[0].id, plain[0].id);
        }
    }
    assert_eq!(store.image("plain:1").unwrap().size, 100_000);
    assert_eq!(store.images().unwrap().len(), 1);
}

#[test]
fn privileged_wrong_digests_leave_nothing() {
    let (directory, store) = store();
    let before = tree(&directory.path().join("data"));
    let tar = Layer::new().file("a", b"1").tar();
    let other = Layer::new().file("a", b"2").tar();
    let error = load(&store, &docker_archive_of(&["a:1"], &[(tar, other)])).unwrap_err();
    assert!(error.to_string().starts_with("invalid diffID for layer 0: expected \"sha256:"), "{error}");
    store.wait_until_removed();
    assert_eq!(tree(&directory.path().join("data")), before);
}

#[test]
fn privileged_every_truncation_leaves_nothing() {
    let (directory, store) = store();
    let before = tree(&directory.path().join("data"));
    let tar = Layer::new().directory("d", 0o755).file("d/a", &[1; 3000]).tar();
    let archive = docker_archive(&["a:1"], &[tar]);
    // The last kilobyte is the end marker, which is not needed.
    for length in (0..archive.len() - 1024).step_by(509) {
        assert!(load(&store, &archive[..length]).is_err(), "{length} of {}", archive.len());
    }
    store.wait_until_removed();
    assert_eq!(tree(&directory.path().join("data")), before);
    load(&store, &archive).unwrap();
}

#[test]
fn privileged_a_second_store_is_refused_and_names_the_first() {
    let (directory, store) = store();
    let Err(error) = Store::open(&directory.path().join("data"), "second") else {
        panic!("the lock is held")
    };
    let message = error.to_string();
    assert!(message.contains(&format!("pid {}, test", std::process::id())), "{message}");
    drop(store);
    Store::open(&directory.path().join("data"), "second").unwrap();
}

#[test]
fn privileged_reopening_keeps_images_and_drops_leftovers() {
    let (directory, store) = store();
    let loaded = load(&store, &docker_archive(&["a:1"], &[Layer::new().file("a", b"1").tar()])).unwrap();
    drop(store);
    let data = directory.path().join("data");
    std::fs::create_dir_all(data.join("tmp/half/fs")).unwrap();
    std::fs::create_dir_all(data.join("layers").join("0".repeat(64)).join("fs")).unwrap();
    std::fs::write(data.join("content/sha256").join("1".repeat(64)), b"orphan").unwrap();
    let store = Store::open(&data, "again").unwrap();
    store.wait_until_removed();
    assert_eq!(store.resolve("a:1").unwrap(), loaded[0].id);
    let left = tree(&data);
    for gone in
        ["tmp/half", &format!("layers/{}", "0".repeat(64)), &format!("content/sha256/{}", "1".repeat(64))]
    {
        assert!(!left.iter().any(|name| name == gone), "{gone}");
    }
    assert_eq!(std::fs::read(store.layer_chain(&loaded[0].id).unwrap().0[0].join("a")).unwrap(), b"1");
}

#[test]
fn privileged_oci_layouts_with_compressed_layers() {
    let (directory, store) = store();
    let tar = Layer::new().file("a", b"1").tar();
    let archive = archives::oci_archive("docker.io/library/oci:1", &[(tar.clone(), gzip(&tar))]);
    let loaded = load(&store, &archive).unwrap();
    assert_eq!(store.resolve("oci:1").unwrap(), loaded[0].id);
    // The second time the blob is known, and nothing is unpacked.
    assert_eq!(load(&store, &archive).unwrap()[0].id, loaded[0].id);
    let before = tree(&directory.path().join("data"));
    let other = Layer::new().file("a", b"2").tar();
    let lying = archives::oci_archive("oci:2", &[(other, gzip(&tar))]);
    assert!(load(&store, &lying).unwrap_err().to_string().starts_with("invalid diffID"));
    store.wait_until_removed();
    assert_eq!(tree(&directory.path().join("data")), before);
}

#[test]
fn privileged_a_hundred_thousand_layers_are_refused() {
    let (directory, store) = store();
    let before = tree(&directory.path().join("data"));
    // All of them the same, so that the archive is small.
    let layer = Layer::new().file("a", b"1").tar();
    let config = archives::config(&vec![Digest::of(&layer); 100_000]);
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["many:1"], "Layers": vec!["layer.tar"; 100_000]}]);
    let archive = Layer::new()
        .file("layer.tar", &layer)
        .file("config.json", &config)
        .file("manifest.json", manifest.to_string().as_bytes())
        .tar();
    let error = with_causes(&load(&store, &archive).unwrap_err());
    assert!(error.contains("100000 layers"), "{error}");
    store.wait_until_removed();
    assert_eq!(tree(&directory.path().join("data")), before);
}

#[test]
fn privileged_a_missing_layer_is_named_and_loaded_again() {
    let (directory, store) = store();
    let archive = docker_archive(&["a:1"], &[Layer::new().file("a", b"1").tar()]);
    let id = load(&store, &archive).unwrap().remove(0).id;
    drop(store);
    let data = directory.path().join("data");
    std::fs::remove_dir_all(data.join("layers")).unwrap();
    let store = Store::open(&data, "again").unwrap();
    let error = store.layer_chain(&id).unwrap_err().to_string();
    assert!(error.ends_with("is missing: load or pull the image again"), "{error}");
    assert_eq!(load(&store, &archive).unwrap()[0].id, id);
    assert!(store.layer_chain(&id).unwrap().0[0].join("a").exists());
}

#[test]
fn privileged_loads_and_removals_side_by_side() {
    let (directory, store) = store();
    let archives: Vec<_> = (0..4)
        .map(|number| {
            let shared = Layer::new().file("shared", &[1; 5000]).tar();
            let own = Layer::new().file("own", &[number]).tar();
            docker_archive(&[&format!("image:{number}")], &[shared, own])
        })
        .collect();
    std::thread::scope(|scope| {
        for (number, archive) in archives.iter().enumerate() {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..10 {
                    let id = load(store, archive).unwrap().remove(0).id;
                    for layer in store.layer_chain(&id).unwrap().0 {
                        assert!(layer.exists());
                    }
                    let options = dory_store::RemoveOptions::default();
                    store.remove_image(&format!("image:{number}"), options, &|_| Vec::new()).unwrap();
                }
            });
        }
    });
    store.wait_until_removed();
    assert!(tree(&directory.path().join("data/layers")).is_empty());
}

#[test]
fn privileged_no_other_user_reaches_the_files() {
    let (directory, store) = store();
    let data = directory.path().join("data");
    drop(store);
    // An operator's own directory may be open to all.
    for open in [data.clone(), data.join("layers")] {
        std::fs::set_permissions(open, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let _store = Store::open(&data, "again").unwrap();
    for name in ["content", "layers", "containers", "volumes", "tmp", "trash"] {
        assert_eq!(data.join(name).metadata().unwrap().mode() & 0o777, 0o700, "{name}");
    }
    assert_eq!(data.join("lock").metadata().unwrap().mode() & 0o777, 0o600);
}
