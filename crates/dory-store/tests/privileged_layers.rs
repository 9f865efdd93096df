//! Layers on their own: taken in as they come, written again as they came, and let go.
//!
//! They unpack foreign owners, so they need root; without it they fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archives;

use std::io::Read;
use std::path::Path;
use std::process::Command;

use archives::{Layer, config, gzip, store, tree, zstd};
use dory_store::{Distribution, ExpectedLayer, NewImage, RemoveOptions, Store, UnpackLimits};
use dory_types::{Digest, ImageReference, with_causes};
use tar::EntryType;

/// How many layers the store has on its disk.
fn layers(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("data/layers")).unwrap().count()
}

/// Expects just these bytes.
fn exactly(blob: &[u8], tar: &[u8]) -> ExpectedLayer {
    ExpectedLayer {
        blob: Some((Digest::of(blob), blob.len() as u64)),
        diff_id: Some(Digest::of(tar)),
        ..ExpectedLayer::default()
    }
}

#[test]
fn privileged_archives_are_written_again_byte_for_byte() {
    let (_directory, store) = store();
    let gnu = |script: &str| {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new("sh").args(["-ec", script]).current_dir(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let sparse = "truncate -s 5M s; echo one | dd of=s bs=1 seek=1000000 conv=notrunc status=none; \
                  echo two | dd of=s bs=1 seek=3000000 conv=notrunc status=none; ";
    let long = "d=$(printf 'x%.0s' $(seq 120)); mkdir -p $d/$d/$d; echo content > $d/$d/$d/$d; ln -s $d/$d/$d/$d l; ";
    let mut trailing = Layer::new().file("a", b"x").tar();
    trailing.extend(b"what follows the end belongs to the digest");
    let cases = [
        ("nothing", Vec::new()),
        ("only the end", Layer::new().tar()),
        ("no end", Layer::new().file("a", &[7; 512]).tar()[..1024].to_vec()),
        ("something behind the end", trailing),
        ("gnu", gnu(&format!("{long} tar --format=gnu -cf - *"))),
        ("pax", gnu(&format!("{long} tar --format=posix -cf - *"))),
        ("ustar", gnu("mkdir d; seq 100000 > d/f; ln d/f g; mkfifo p; tar --format=ustar -cf - d g p")),
        ("old gnu sparse", gnu(&format!("{sparse} tar --format=gnu -S -cf - s"))),
        ("pax sparse 0.0", gnu(&format!("{sparse} tar --format=posix --sparse-version=0.0 -S -cf - s"))),
        ("pax sparse 0.1", gnu(&format!("{sparse} tar --format=posix --sparse-version=0.1 -S -cf - s"))),
        ("pax sparse 1.0", gnu(&format!("{sparse} tar --format=posix --sparse-version=1.0 -S -cf - s"))),
        ("whiteouts with content", Layer::new().file("d/.wh.x", b"why").file(".wh..wh.plnk", b"x").tar()),
        ("names twice", Layer::new().file("d/a", b"1").file("d/a", b"22").file("./d/a", b"333").tar()),
        ("a tree replaced", Layer::new().file("d/a", b"1").file("d/e/b", b"2").file("d", b"file").tar()),
        ("through a link", Layer::new().directory("d", 0o755).symlink("l", "d").file("l/f", b"x").tar()),
        (
            "a file, then a directory",
            Layer::new().file("d", b"file").directory("d", 0o755).file("d/f", b"x").tar(),
        ),
    ];
    for (name, tar) in cases {
        for blob in [tar.clone(), gzip(&tar), zstd(&tar)] {
            let layer = store.ingest_layer(blob.as_slice(), &exactly(&blob, &tar)).expect(name);
            let mut written = Vec::new();
            store
                .export_layer(&layer, &mut written)
                .unwrap_or_else(|error| panic!("{name}: {}", with_causes(&error)));
            assert!(written == tar, "{name}: {} bytes instead of {}", written.len(), tar.len());
            assert_eq!(store.layer(&layer.diff_id()).unwrap().archive_size, tar.len() as u64, "{name}");
        }
    }
}

#[test]
fn privileged_changed_layers_are_found_out() {
    let (directory, store) = store();
    let tar = Layer::new().file("a", b"before").tar();
    let layer = store.ingest_layer(tar.as_slice(), &ExpectedLayer::default()).unwrap();
    let file = directory.path().join("data/layers").join(layer.diff_id().hex()).join("fs/a");
    std::fs::write(&file, "behind").unwrap();
    let error = store.export_layer(&layer, &mut std::io::sink()).unwrap_err();
    assert!(with_causes(&error).contains("have changed"), "{}", with_causes(&error));
    std::fs::write(&file, "b").unwrap();
    let error = store.export_layer(&layer, &mut std::io::sink()).unwrap_err();
    assert!(with_causes(&error).contains("cannot read `a` of the layer"), "{}", with_causes(&error));
}

#[test]
fn privileged_what_is_not_verified_leaves_nothing() {
    let (directory, store) = store();
    let tar = Layer::new().file("a", &[1; 100_000]).tar();
    let blob = gzip(&tar);
    let right = exactly(&blob, &tar);
    let other = Digest::of(b"other");
    let length = blob.len() as u64;
    let limits = |archive_size, entries| Some(UnpackLimits { archive_size, entries });
    let cases = [
        ("digest", ExpectedLayer { blob: Some((other, length)), ..right }, "and should be"),
        ("diff-id", ExpectedLayer { diff_id: Some(other), ..right }, "diff-id is"),
        (
            "more than announced",
            ExpectedLayer { blob: Some((Digest::of(&blob), 10)), ..right },
            "were announced",
        ),
        (
            "less than announced",
            ExpectedLayer { blob: Some((Digest::of(&blob), length + 1)), ..right },
            "and should be",
        ),
        ("a bomb", ExpectedLayer { limits: limits(50_000, 10), ..right }, "unpacks to more than the limit"),
        ("many entries", ExpectedLayer { limits: limits(1 << 20, 0), ..right }, "more than 0 entries"),
    ];
    for (name, expected, message) in cases {
        let error = store.ingest_layer(blob.as_slice(), &expected).unwrap_err();
        assert!(with_causes(&error).contains(message), "{name}: {}", with_causes(&error));
        assert_eq!(layers(directory.path()), 0, "{name}");
    }
    struct Breaks<'a>(&'a [u8]);
    impl Read for Breaks<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(std::io::Error::other("the connection broke")),
                length => Ok(length),
            }
        }
    }
    let error = store.ingest_layer(Breaks(&blob[..blob.len() / 2]), &right).unwrap_err();
    assert!(with_causes(&error).contains("the connection broke"), "{}", with_causes(&error));
    store.wait_until_removed();
    let left = tree(&directory.path().join("data"));
    assert!(!left.iter().any(|name| name.starts_with("tmp/") || name.starts_with("layers/")), "{left:?}");
}

#[test]
fn privileged_layers_are_written_by_a_function() {
    let (directory, store) = store();
    let tar = Layer::new().file("a", &[1; 300_000]).file("b", b"2").tar();
    let layer = store.ingest_written(|sink| sink.write_all(&tar)).unwrap();
    assert_eq!(layer.diff_id(), Digest::of(&tar));
    drop(layer);
    // Its first half is an archive too: only the writer's word tells them apart.
    let half = Layer::new().file("a", &[1; 300_000]).tar();
    let written = store.ingest_written(|sink| {
        sink.write_all(&half)?;
        Err(std::io::Error::other("the container's files went away"))
    });
    assert!(with_causes(&written.unwrap_err()).ends_with("the container's files went away"));
    let refused = Layer::new().file("../a", &[1; 3_000_000]).tar();
    let error = store.ingest_written(|sink| sink.write_all(&refused)).unwrap_err();
    assert!(with_causes(&error).contains("climbs out"), "{}", with_causes(&error));
    assert_eq!(layers(directory.path()), 0);
}

#[test]
fn privileged_layers_stay_as_long_as_somebody_needs_them() {
    let (directory, store) = store();
    let (one, two) = (Layer::new().file("a", b"1").tar(), Layer::new().file("a", b"2").tar());
    let ingest = |tar: &[u8]| store.ingest_layer(tar, &ExpectedLayer::default()).unwrap();
    let first = ingest(&one);
    let again = store.lease_layer(&Digest::of(&one)).unwrap();
    drop(first);
    assert_eq!(layers(directory.path()), 1);
    drop(again.clone());
    drop(again);
    assert_eq!(layers(directory.path()), 0, "the last lease is gone");

    // An interrupted pull is tried again; a restart lets nobody wait for it.
    ingest(&one).leave_for_retry();
    assert!(store.lease_layer(&Digest::of(&one)).is_some());
    assert_eq!(layers(directory.path()), 1);

    let name: ImageReference = "example.org/a:1".parse().unwrap();
    let configuration = config(&[Digest::of(&one), Digest::of(&two)]);
    let image = |layers| NewImage {
        config: &configuration,
        layers,
        references: std::slice::from_ref(&name),
        parent: None,
    };
    let error = store.add_image(image(vec![ingest(&one)])).unwrap_err();
    assert!(
        with_causes(&error).contains("the layers are not those of the configuration"),
        "{}",
        with_causes(&error)
    );
    let id = store.add_image(image(vec![ingest(&one), ingest(&two)])).unwrap().id;
    let leases = store.lease_layers(&id).unwrap();
    store.remove_image("example.org/a:1", RemoveOptions::default(), &|_| Vec::new()).unwrap();
    assert_eq!(layers(directory.path()), 2, "somebody writes them out");
    drop(leases);
    drop(store);
    drop(Store::open(&directory.path().join("data"), "next").unwrap());
    assert_eq!(layers(directory.path()), 0);
}

#[test]
fn privileged_remembers_where_registries_have_a_layer() {
    let (directory, store) = store();
    let tar = Layer::new().entry(EntryType::Directory, "d", "", b"", |_| {}).tar();
    let layer = store.ingest_layer(tar.as_slice(), &ExpectedLayer::default()).unwrap();
    let known = |repository: &str, blob: &[u8]| Distribution {
        blob: Digest::of(blob),
        size: 3,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
        repository: repository.parse().unwrap(),
    };
    let (one, two) = (known("localhost:5000/a/b", b"one"), known("busybox", b"two"));
    let gone = (Digest::of(b"gone"), one.clone());
    store
        .remember_distributions([(layer.diff_id(), one.clone()), (layer.diff_id(), two.clone()), gone])
        .unwrap();
    store.remember_distributions([(layer.diff_id(), one.clone())]).unwrap();
    assert_eq!(store.distributions(&layer.diff_id()), [one.clone(), two.clone()]);
    assert_eq!(store.layer_of_blob(&two.blob), Some(layer.diff_id()));
    let configuration = config(&[layer.diff_id()]);
    let diff_id = layer.diff_id();
    let image = NewImage { config: &configuration, layers: vec![layer], references: &[], parent: None };
    store.add_image(image).unwrap();
    drop(store);
    let store = Store::open(&directory.path().join("data"), "next").unwrap();
    assert_eq!(store.distributions(&diff_id), [one.clone(), two.clone()]);
    store.forget_distribution(&one.blob, &one.repository).unwrap();
    assert_eq!(store.distributions(&diff_id), [two]);
}
