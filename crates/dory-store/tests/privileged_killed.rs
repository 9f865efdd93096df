//! A process that works on the store is killed at any instant; what it had acknowledged is there afterwards, and
//! nothing else is left.
//!
//! It unpacks foreign owners, so it needs root; without it it fails.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archives;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use archives::{Layer, docker_archive, tree};
use dory_store::{Owner, RemoveOptions, Store};
use dory_types::{ContainerId, VolumeName};

/// Where the child finds the data-root.
const DATA_ROOT: &str = "DORY_STORE_TEST_DATA_ROOT";
/// How often the child is killed.
const ROUNDS: u64 = 25;

/// An image of its own for each number, over a layer that all share.
fn archive(number: u64) -> Vec<u8> {
    let shared = Layer::new().file("shared", &[1; 20_000]).tar();
    let mut own = Layer::new();
    for file in 0..20 {
        own = own.file(&format!("d{file}/f"), number.to_string().as_bytes());
    }
    docker_archive(&[&format!("image:{number}")], &[shared, own.tar()])
}

/// The number of a line such as `loaded 7`.
fn numbers<'a>(lines: &'a [String], word: &'a str) -> impl Iterator<Item = u64> + 'a {
    lines.iter().filter_map(move |line| line.strip_prefix(word)?.trim().parse().ok())
}

#[test]
fn privileged_what_was_acknowledged_survives_a_kill() {
    archives::require_root();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut lines = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "child_that_is_killed"])
            .env(DATA_ROOT, &data)
            .env("DORY_STORE_TEST_START", (round * 1000).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(20 + round * 13));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.extend(reader.join().unwrap());
        check(&data, &lines);
    }
    assert!(numbers(&lines, "removed").count() > 0, "the child got far enough to mean something");
}

/// Opens the store as the next engine does and compares it with what was acknowledged.
fn check(data: &Path, lines: &[String]) {
    let store = Store::open(data, "next").unwrap();
    let removing: Vec<_> = numbers(lines, "removing").collect();
    for number in numbers(lines, "loaded").filter(|number| !removing.contains(number)) {
        let id = store.resolve(&format!("image:{number}")).unwrap();
        let (layers, _) = store.layer_chain(&id).unwrap();
        assert_eq!(std::fs::read_to_string(layers[0].join("d19/f")).unwrap(), number.to_string());
        assert_eq!(std::fs::read(layers[1].join("shared")).unwrap().len(), 20_000);
    }
    for number in numbers(lines, "removed") {
        assert!(store.resolve(&format!("image:{number}")).is_err(), "{number} is back");
    }
    for number in numbers(lines, "volume") {
        let name: VolumeName = format!("volume{number}").parse().unwrap();
        assert_eq!(store.volume(&name).unwrap().labels["number"], number.to_string());
    }
    let images = store.images().unwrap();
    let mut used: Vec<_> = images.iter().flat_map(|image| image.config.rootfs.diff_ids.clone()).collect();
    used.sort();
    used.dedup();
    let snapshots = store.snapshots().len();
    store.wait_until_removed();
    drop(store);
    let left = tree(data);
    let below = |directory: &str| left.iter().filter(|name| name.starts_with(directory)).count();
    assert_eq!((below("tmp/"), below("trash/"), below("content/sha256/")), (0, 0, images.len()));
    let layers =
        left.iter().filter(|name| name.starts_with("layers/") && name.matches('/').count() == 1).count();
    assert!(layers == used.len() || snapshots > 0, "{layers} layers, {} used", used.len());
}

#[test]
#[ignore = "run and killed by privileged_what_was_acknowledged_survives_a_kill"]
fn child_that_is_killed() {
    let data = std::env::var(DATA_ROOT).unwrap();
    let start: u64 = std::env::var("DORY_STORE_TEST_START").unwrap().parse().unwrap();
    let store = Store::open(data.as_ref(), "child").unwrap();
    let mut output = std::io::stdout();
    let mut say = |word: &str, number: u64| {
        // One write, so that no kill can cut the line.
        output.write_all(format!("\n{word} {number}\n").as_bytes()).unwrap();
        output.flush().unwrap();
    };
    for number in start.. {
        store.load(archive(number).as_slice(), &mut |_| {}).unwrap();
        say("loaded", number);
        let labels = BTreeMap::from([("number".to_owned(), number.to_string())]);
        let name = format!("volume{number}").parse().unwrap();
        store.create_volume(Some(name), labels, BTreeMap::new()).unwrap();
        say("volume", number);
        let image = store.resolve(&format!("image:{number}")).unwrap();
        let container = ContainerId::from_bytes([number as u8; 32]);
        let owner = Owner { uid: 1000, gid: 1000 };
        if store.snapshot(&container).is_none() {
            store.create_snapshot(&container, Some(&image), owner).unwrap();
        }
        store.remove_snapshot(&container).unwrap();
        if number % 2 == 1 {
            say("removing", number);
            let options = RemoveOptions::default();
            store.remove_image(&format!("image:{number}"), options, &|_| Vec::new()).unwrap();
            say("removed", number);
        }
    }
}
