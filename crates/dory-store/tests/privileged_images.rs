//! Images, volumes and snapshots over their lives.
//!
//! They unpack layers and give files to other owners, so they need root; without it they fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archives;

use std::sync::Arc;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use archives::{Layer, docker_archive, store, tree};
use dory_store::{
    ImagePlatform, ImageUser, ImportOptions, Owner, RemoveOptions, Removed, Store, StoreErrorKind, copy_up,
};
use dory_types::{ContainerId, ImageId, VolumeName, with_causes};

fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 32])
}

/// Loads an image of two layers, whose lower one is the same for all.
fn load(store: &Arc<Store>, tag: &str) -> ImageId {
    let lower = Layer::new().file("lower", b"shared").tar();
    let upper = Layer::new().file("upper", tag.as_bytes()).tar();
    store.load(docker_archive(&[tag], &[lower, upper]).as_slice(), &mut |_| {}).unwrap().remove(0).id
}

/// How many directories `layers/` has.
fn layers(directory: &tempfile::TempDir) -> usize {
    std::fs::read_dir(directory.path().join("data/layers")).unwrap().count()
}

#[test]
fn privileged_layers_go_with_their_last_image() {
    let (directory, store) = store();
    let (first, second) = (load(&store, "a:1"), load(&store, "b:1"));
    assert_eq!((layers(&directory), store.images().unwrap().len()), (3, 2));
    let unused = |_: &ImageId| Vec::new();
    let removed = store.remove_image("a:1", RemoveOptions::default(), &unused).unwrap();
    assert!(
        matches!(&removed[..], [Removed::Untagged { .. }, Removed::Image(id), Removed::Layer(_)] if *id == first)
    );
    assert_eq!(layers(&directory), 2);
    let removed = store.remove_image(&second.as_str()[..12], RemoveOptions::default(), &unused).unwrap();
    assert_eq!(removed.len(), 4, "a name, an image and two layers: {removed:?}");
    store.wait_until_removed();
    assert_eq!(layers(&directory), 0);
    let error = store.remove_image("b:1", RemoveOptions::default(), &unused).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (StoreErrorKind::NotFound, "No such image: b:1".to_owned())
    );
    let left = tree(&directory.path().join("data"));
    assert!(!left.iter().any(|name| name.starts_with("content/sha256/")), "{left:?}");
}

#[test]
fn privileged_snapshots_keep_layers_of_images_that_were_forced_away() {
    let (directory, store) = store();
    let id = load(&store, "a:1");
    let owner = Owner { uid: 100_000, gid: 100_001 };
    let snapshot = store.create_snapshot(&container(1), Some(&id), owner).unwrap();
    assert_eq!(std::fs::read(snapshot.layers[0].join("upper")).unwrap(), b"a:1");
    for path in [&snapshot.upper, &snapshot.work] {
        let meta = path.metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (100_000, 100_001, 0o755));
    }
    assert!(store.create_snapshot(&container(1), Some(&id), owner).is_err(), "one snapshot a container");
    let stopped = |_: &ImageId| vec![ImageUser { container: container(1), running: false }];
    let error = store.remove_image("a:1", RemoveOptions::default(), &stopped).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    let force = RemoveOptions { force: true, no_prune: false };
    let removed = store.remove_image("a:1", force, &stopped).unwrap();
    assert_eq!(removed.len(), 2, "no layer is gone: {removed:?}");
    drop(store);
    let store = Store::open(&directory.path().join("data"), "again").unwrap();
    assert_eq!(store.snapshots(), [container(1)]);
    assert_eq!(store.snapshot(&container(1)).unwrap(), snapshot);
    assert_eq!(layers(&directory), 2);
    std::fs::create_dir_all(snapshot.upper.join("many/levels")).unwrap();
    store.remove_snapshot(&container(1)).unwrap();
    store.remove_snapshot(&container(1)).unwrap();
    assert!(!snapshot.directory.exists());
    store.wait_until_removed();
    assert_eq!((layers(&directory), tree(&directory.path().join("data/trash")).len()), (0, 0));
}

#[test]
fn privileged_a_layer_may_be_there_twice() {
    let (directory, store) = store();
    let (one, two) = (Layer::new().file("f", b"1").tar(), Layer::new().file("f", b"2").tar());
    let archive = docker_archive(&["a:1"], &[one.clone(), two, one]);
    let id = store.load(archive.as_slice(), &mut |_| {}).unwrap().remove(0).id;
    let (chain, config) = store.layer_chain(&id).unwrap();
    assert_eq!((chain.len(), config.rootfs.diff_ids.len(), layers(&directory)), (2, 3, 2));
    assert_eq!(std::fs::read(chain[0].join("f")).unwrap(), b"1");
}

#[test]
fn privileged_a_taken_tag_moves() {
    let (_directory, store) = store();
    let first = load(&store, "a:1");
    let second = load(&store, "b:1");
    assert_eq!(store.tag("b:1", "a:1".parse().unwrap()).unwrap(), (second.clone(), Some(first.clone())));
    assert_eq!(store.resolve("a:1").unwrap(), second);
    assert!(store.image(first.as_str()).unwrap().references.is_empty());
    let tags = store.image("a:1").unwrap().repo_tags();
    assert_eq!(tags, ["a:1", "b:1"]);
    let reloaded = store.load(
        docker_archive(&["a:1"], &[Layer::new().file("lower", b"shared").tar()]).as_slice(),
        &mut |_| {},
    );
    assert_eq!(reloaded.unwrap()[0].displaced, [("a:1".parse().unwrap(), second)]);
}

#[test]
fn privileged_import_applies_changes() {
    let (directory, store) = store();
    let options = ImportOptions {
        reference: Some("imported:1".parse().unwrap()),
        changes: vec!["CMD [\"/run\"]".to_owned(), "ENV A=b".to_owned()],
        message: "Imported from -".to_owned(),
        platform: ImagePlatform::current(),
    };
    let tar = archives::gzip(&Layer::new().file("run", b"#!").tar());
    let id = store.import(tar.as_slice(), options.clone()).unwrap();
    let image = store.image("imported:1").unwrap();
    assert_eq!((&image.id, image.size), (&id, 2));
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["/run".to_owned()][..]));
    let history = store.history("imported:1").unwrap();
    assert_eq!((history.len(), history[0].size, history[0].comment.as_str()), (1, 2, "Imported from -"));
    assert_eq!((history[0].id.as_ref(), history[0].tags.clone()), (Some(&id), vec!["imported:1".to_owned()]));
    let before = tree(&directory.path().join("data"));
    let wrong = ImportOptions { changes: vec!["FROM x".to_owned()], ..options };
    let error = store.import(tar.as_slice(), wrong).unwrap_err();
    assert_eq!(
        (error.kind(), with_causes(&error)),
        (StoreErrorKind::InvalidParameter, "FROM is not a valid change command".to_owned())
    );
    store.wait_until_removed();
    assert_eq!(tree(&directory.path().join("data")), before);
}

#[test]
fn privileged_volumes() {
    let (directory, store) = store();
    let name: VolumeName = "data".parse().unwrap();
    let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let volume = store.create_volume(Some(name.clone()), labels.clone(), BTreeMap::new()).unwrap();
    assert_eq!(volume.mountpoint, directory.path().canonicalize().unwrap().join("data/volumes/data/_data"));
    std::fs::write(volume.mountpoint.join("file"), vec![1; 100_000]).unwrap();
    assert_eq!(store.create_volume(Some(name.clone()), BTreeMap::new(), BTreeMap::new()).unwrap(), volume);
    assert!((100_000..200_000).contains(&store.volume_size(&name).unwrap()));
    let anonymous = store.create_volume(None, BTreeMap::new(), BTreeMap::new()).unwrap();
    assert!(anonymous.is_anonymous() && anonymous.name.as_str().len() == 64);
    drop(store);
    let store = Store::open(&directory.path().join("data"), "again").unwrap();
    assert_eq!(store.volume(&name).unwrap(), volume);
    assert_eq!(store.volumes().len(), 2);
    let used = |volume: &VolumeName| if *volume == name { vec![container(1)] } else { Vec::new() };
    assert_eq!(store.unused_volumes(&used), [anonymous]);
    let error = store.remove_volume(&name, true, &used).unwrap_err();
    assert_eq!(error.to_string(), format!("remove data: volume is in use - [{}]", container(1)));
    store.remove_volume(&name, false, &|_| Vec::new()).unwrap();
    let error = store.remove_volume(&name, false, &|_| Vec::new()).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (StoreErrorKind::NotFound, "get data: no such volume")
    );
    store.remove_volume(&name, true, &|_| Vec::new()).unwrap();
    assert!(!volume.mountpoint.exists());
}

#[test]
fn privileged_a_new_volume_takes_over_what_the_image_has() {
    let (directory, store) = store();
    let tar = Layer::new()
        .entry(tar::EntryType::Directory, "data", "", b"", |header| {
            header.set_mode(0o1770);
            header.set_uid(5);
        })
        .file("data/a", b"1")
        .hard_link("data/b", "data/a")
        .directory("data/d", 0o2755)
        .symlink("data/d/out", "/etc")
        .pax(&[
            ("SCHILY.xattr.user.x", b"y"),
            (
                "SCHILY.xattr.security.capability",
                &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
        ])
        .entry(tar::EntryType::Regular, "data/d/f", "", b"2", |header| {
            header.set_uid(9);
            header.set_mode(0o4755);
        })
        .entry(tar::EntryType::Fifo, "data/p", "", b"", |_| {})
        .tar();
    let id = store.load(docker_archive(&["a:1"], &[tar]).as_slice(), &mut |_| {}).unwrap().remove(0).id;
    let from = store.layer_chain(&id).unwrap().0[0].join("data");
    let volume = store.create_volume(Some("vol".parse().unwrap()), BTreeMap::new(), BTreeMap::new()).unwrap();
    let copy = || {
        let source = std::fs::File::open(&from).unwrap();
        let destination = std::fs::File::open(&volume.mountpoint).unwrap();
        copy_up(source.as_fd(), destination.as_fd()).unwrap()
    };
    assert!(copy());
    let list = |path: &std::path::Path| {
        let script =
            "find . -printf '%p %m %U %G %T@ %l %y %n\\n' | sort; getfattr -dR -m- . 2>/dev/null; cat a d/f";
        std::process::Command::new("sh").args(["-c", script]).current_dir(path).output().unwrap().stdout
    };
    assert_eq!(String::from_utf8_lossy(&list(&volume.mountpoint)), String::from_utf8_lossy(&list(&from)));
    std::fs::remove_file(volume.mountpoint.join("a")).unwrap();
    assert!(!copy(), "a volume that has something is left alone");
    assert!(directory.path().exists() && !volume.mountpoint.join("a").exists());
}
