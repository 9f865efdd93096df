//! A store above another one: nothing is copied, nothing that is in use goes away.
//!
//! They unpack foreign owners, so they need root; without it they fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archives;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use archives::{Layer, docker_archive, names, remove, require_root, tree};
use dory_store::{LowerOptions, Owner, Store};
use dory_types::{ContainerId, Digest};

/// An owner's store with two images over a common layer.
struct Family {
    directory: tempfile::TempDir,
    parent: Arc<Store>,
}

impl Family {
    fn new() -> Self {
        require_root();
        let directory = tempfile::tempdir().unwrap();
        let parent = Store::open(&directory.path().join("parent"), "parent").unwrap();
        let family = Self { directory, parent };
        family.load("common:1", &[common()]);
        family.load("own:1", &[common(), Layer::new().file("own", b"own").tar()]);
        family
    }

    fn load(&self, name: &str, layers: &[Vec<u8>]) {
        self.parent.load(docker_archive(&[name], layers).as_slice(), &mut |_| {}).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn child(&self) -> Arc<Store> {
        let lower = LowerOptions { path: self.path("parent"), lease: None };
        Store::open_above(&self.path("child"), "child", &[lower]).unwrap()
    }

    fn remove(&self, name: &str) {
        remove(&self.parent, name);
    }

    /// True where the parent has the layer on its disk.
    fn has(&self, layer: &[u8]) -> bool {
        self.path("parent/layers").join(Digest::of(layer).hex()).join("fs").is_dir()
    }
}

fn common() -> Vec<u8> {
    Layer::new().file("common", &[7; 100_000]).tar()
}

fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 32])
}

const ROOT: Owner = Owner { uid: 0, gid: 0 };

fn disk(path: &Path) -> u64 {
    let output = std::process::Command::new("du").arg("-sb").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn privileged_images_are_used_in_place() {
    let family = Family::new();
    let child = family.child();
    assert_eq!(names(&child), ["common:1", "own:1"]);
    let image = child.resolve("own:1").unwrap();
    let snapshot = child.create_snapshot(&container(1), Some(&image), ROOT).unwrap();
    let parents = family.path("parent").canonicalize().unwrap();
    assert!(snapshot.layers.iter().all(|layer| layer.starts_with(&parents)), "{:?}", snapshot.layers);
    assert_eq!(std::fs::read(snapshot.layers[0].join("own")).unwrap(), b"own");
    assert!(disk(&family.path("child")) < 100_000);

    // Its own image over the parent's layer, and written out again as a whole.
    let more = Layer::new().file("more", b"more").tar();
    child.load(docker_archive(&["child:1"], &[common(), more]).as_slice(), &mut |_| {}).unwrap();
    assert!(disk(&family.path("child")) < 100_000, "the common layer is not unpacked again");
    let mut archive = Vec::new();
    child.save(&["child:1".to_owned()], &mut archive).unwrap();
    assert!(archive.len() > 100_000);

    // What the parent gets later is seen, and its newer image takes the older one's name over.
    let newer = Layer::new().file("new", b"2").tar();
    family.load("own:1", &[common(), newer.clone()]);
    let image = child.resolve("own:1").unwrap();
    let (layers, _) = child.layer_chain(&image).unwrap();
    assert_eq!(std::fs::read(layers[0].join("new")).unwrap(), b"2");
    assert!(child.lease_layer(&Digest::of(&newer)).is_some(), "nothing to download");
    assert_eq!(names(&family.parent), ["common:1", "own:1"], "the child's names are its own");
}

#[test]
fn privileged_what_the_child_uses_stays() {
    let family = Family::new();
    let child = family.child();
    let own = Layer::new().file("own", b"own").tar();
    let image = child.resolve("own:1").unwrap();
    child.create_snapshot(&container(1), Some(&image), ROOT).unwrap();
    family.remove("own:1");
    family.remove("common:1");
    assert!(family.has(&own) && family.has(&common()), "the child's container needs them");
    drop(child);

    // The parent restarts, and so does the child.
    let Family { directory, parent } = family;
    drop(parent);
    let parent = Store::open(&directory.path().join("parent"), "again").unwrap();
    let family = Family { directory, parent };
    assert!(family.has(&own));
    let child = family.child();
    let snapshot = child.snapshot(&container(1)).unwrap();
    assert_eq!(std::fs::read(snapshot.layers[0].join("own")).unwrap(), b"own");

    // With the container its lease goes; the parent finds out with its next removal.
    child.remove_snapshot(&container(1)).unwrap();
    drop(child);
    family.load("another:1", &[Layer::new().tar()]);
    family.remove("another:1");
    assert!(!family.has(&own));
    let child = family.child();
    assert_eq!(names(&child), Vec::<String>::new());
}

#[test]
fn privileged_names_and_removals_are_the_childs_own() {
    let family = Family::new();
    let child = family.child();
    remove(&child, "common:1");
    child.tag("own:1", "mine:1".parse().unwrap()).unwrap();
    assert_eq!(names(&child), ["mine:1", "own:1"]);
    drop(child);
    let child = family.child();
    assert_eq!(names(&child), ["mine:1", "own:1"], "a removed image is not adopted again");
    // By its name the image is the child's own: the parent has to keep it.
    family.remove("own:1");
    assert!(family.has(&common()));
    assert!(child.resolve("mine:1").is_ok());
    drop(child);
    // Without the parent's store its images are gone, and nothing breaks.
    let child = Store::open(&family.path("child"), "alone").unwrap();
    assert!(child.images().unwrap().iter().all(|image| child.layer_chain(&image.id).is_err()));
}

#[test]
fn privileged_only_what_is_shared_is_seen() {
    let family = Family::new();
    let share = family.parent.share_with(&container(9)).unwrap();
    family.parent.create_snapshot(&container(9), None, ROOT).unwrap();
    // What the engine mounts for the container.
    for (source, place) in [(&share.layers, "layers"), (&share.content, "content")] {
        let place = share.root.join(place);
        std::fs::remove_dir(&place).unwrap();
        std::os::unix::fs::symlink(source, place).unwrap();
    }
    let lower = LowerOptions { path: share.root.clone(), lease: Some(share.lease.clone()) };
    let child = Store::open_above(&family.path("child"), "child", &[lower]).unwrap();
    let image = child.resolve("own:1").unwrap();
    child.create_snapshot(&container(1), Some(&image), ROOT).unwrap();
    let own = Layer::new().file("own", b"own").tar();
    family.remove("own:1");
    assert!(family.has(&own));
    family.load("later:1", &[common()]);
    assert!(child.resolve("later:1").is_ok(), "the copy of the index is kept up to date");

    // Whatever a child writes instead of a lease, the parent goes on; with the container the lease ends.
    std::fs::write(share.lease.join("lease.json"), "nonsense").unwrap();
    family.parent.remove_snapshot(&container(9)).unwrap();
    assert!(!family.has(&own));
    assert!(!tree(&family.path("parent/children")).iter().any(|name| name.contains("lease")));
}
