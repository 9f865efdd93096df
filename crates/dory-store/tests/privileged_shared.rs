//! Two engines with one store of images: what one does the other sees, and nothing that either uses goes away.
//!
//! They unpack foreign owners, so they need root; without it they fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archives;

use std::path::PathBuf;
use std::sync::Arc;

use archives::{Layer, docker_archive, names, remove, require_root};
use dory_store::{Owner, Store, StoreError};
use dory_types::{ContainerId, Digest};

const ROOT: Owner = Owner { uid: 0, gid: 0 };

struct House {
    directory: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        require_root();
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn open(&self, name: &str) -> Arc<Store> {
        Store::open_sharing(&self.path(name), name, &self.path("images")).unwrap()
    }

    /// True where the layer is on the disk.
    fn has(&self, layer: &[u8]) -> bool {
        self.path("images/layers").join(Digest::of(layer).hex()).join("fs").is_dir()
    }
}

fn layer(name: &str) -> Vec<u8> {
    Layer::new().file(name, name.as_bytes()).tar()
}

fn load(store: &Arc<Store>, name: &str, layers: &[Vec<u8>]) {
    store.load(docker_archive(&[name], layers).as_slice(), &mut |_| {}).unwrap();
}

fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 32])
}

#[test]
fn privileged_what_one_does_the_other_sees() {
    let house = House::new();
    let (one, other) = (house.open("one"), house.open("other"));
    load(&one, "a:1", &[layer("common"), layer("a")]);
    load(&other, "b:1", &[layer("common"), layer("b")]);
    assert_eq!(
        (names(&one), names(&other)),
        (vec!["a:1".into(), "b:1".into()], vec!["a:1".into(), "b:1".into()])
    );
    assert_eq!(other.resolve("a:1").unwrap(), one.resolve("a:1").unwrap());
    assert!(other.lease_layer(&Digest::of(&layer("a"))).is_some());
    // An archive of what the other one made.
    let mut archive = Vec::new();
    other.save(&["a:1".to_owned()], &mut archive).unwrap();
    assert!(archive.windows(3).any(|bytes| bytes == b"a:1"));
    remove(&other, "a:1");
    assert_eq!(names(&one), ["b:1"]);
    assert!(!house.has(&layer("a")) && house.has(&layer("common")));
    // Both die, and one of them comes back.
    drop((one, other));
    assert_eq!(names(&house.open("other")), ["b:1"]);
}

#[test]
fn privileged_what_either_uses_stays() {
    let house = House::new();
    let (one, other) = (house.open("one"), house.open("other"));
    load(&one, "a:1", &[layer("a")]);
    let image = other.resolve("a:1").unwrap();
    let snapshot = other.create_snapshot(&container(1), Some(&image), ROOT).unwrap();
    remove(&one, "a:1");
    assert!(other.images().unwrap().is_empty());
    assert_eq!(std::fs::read(snapshot.layers[0].join("a")).unwrap(), b"a");
    // Also while its engine does not run, and when all others have started anew.
    drop((one, other));
    let one = house.open("one");
    load(&one, "c:1", &[layer("c")]);
    remove(&one, "c:1");
    assert!(house.has(&layer("a")) && !house.has(&layer("c")));
    let other = house.open("other");
    assert_eq!(other.snapshot(&container(1)).unwrap().layers, snapshot.layers);
    other.remove_snapshot(&container(1)).unwrap();
    assert!(!house.has(&layer("a")));

    // A layer on its way belongs to nobody's image yet.
    let lease = one.ingest_layer(layer("d").as_slice(), &Default::default()).unwrap();
    load(&other, "e:1", &[layer("e")]);
    remove(&other, "e:1");
    assert!(house.has(&layer("d")) && !house.has(&layer("e")));
    drop(lease);
    assert!(!house.has(&layer("d")));
}

#[test]
fn privileged_a_lease_that_cannot_be_read_keeps_everything() {
    let house = House::new();
    let (one, other) = (house.open("one"), house.open("other"));
    load(&other, "a:1", &[layer("a")]);
    drop(other);
    let leases: Vec<_> = std::fs::read_dir(house.path("images/children"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(leases.len(), 2);
    let torn: Vec<_> =
        leases.iter().filter(|lease| std::fs::write(lease.join("lease.json"), b"{").is_ok()).collect();
    assert_eq!(torn.len(), 2);
    remove(&one, "a:1");
    assert!(names(&one).is_empty() && house.has(&layer("a")));
    // Its owner writes it anew when it starts.
    let other = house.open("other");
    load(&other, "b:1", &[layer("b")]);
    load(&one, "c:1", &[layer("c")]);
    remove(&one, "c:1");
    assert!(!house.has(&layer("a")), "nobody uses it");
    assert!(house.has(&layer("b")));
}

#[test]
fn privileged_they_do_it_all_at_once() {
    let house = House::new();
    let common = layer("common");
    std::thread::scope(|scope| {
        for engine in ["one", "two", "three"] {
            let store = house.open(engine);
            let common = &common;
            scope.spawn(move || {
                for round in 0..20 {
                    let name = format!("{engine}:{round}");
                    load(&store, &name, &[common.clone(), layer(&name)]);
                    let image = store.resolve(&name).unwrap();
                    let id = container(round);
                    let snapshot = store.create_snapshot(&id, Some(&image), ROOT).unwrap();
                    assert!(snapshot.layers.iter().all(|layer| layer.is_dir()), "{:?}", snapshot.layers);
                    if round % 2 == 0 {
                        remove(&store, &name);
                        store.remove_snapshot(&id).unwrap();
                    }
                }
            });
        }
    });
    let store = house.open("one");
    assert_eq!(store.images().unwrap().len(), 30);
    for image in store.images().unwrap() {
        assert!(store.layer_chain(&image.id).unwrap().0.iter().all(|layer| layer.is_dir()));
    }
    let layers = std::fs::read_dir(house.path("images/layers")).unwrap().count();
    assert_eq!(layers, 31);
}

#[test]
fn privileged_whoever_has_a_store_alone_shares_it_with_nobody() {
    let house = House::new();
    let alone = Store::open(&house.path("images"), "alone").unwrap();
    let refused = Store::open_sharing(&house.path("one"), "one", &house.path("images")).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    drop(alone);
    let shared = house.open("one");
    let refused = Store::open(&house.path("images"), "alone").unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    drop(shared);
}
