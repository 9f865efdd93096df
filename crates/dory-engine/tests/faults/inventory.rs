//! What of an engine's is on the machine: everything that could leak.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// One line for each thing.
pub type Inventory = BTreeSet<String>;

/// Everything that is there. The controller is alone with its engines in network, pid and mount namespaces.
pub fn take(directory: &Path, cgroup_parent: &str) -> Inventory {
    let mut inventory = Inventory::new();
    processes(&mut inventory);
    mounts(&mut inventory);
    network(&mut inventory);
    let mut groups = Vec::new();
    find_directories(Path::new("/sys/fs/cgroup"), &mut groups, 6);
    inventory.extend(
        groups.into_iter().filter(|path| path.contains(cgroup_parent)).map(|path| format!("cgroup {path}")),
    );
    for (part, depth) in [
        ("run", 4),
        ("data/containers", 2),
        ("data/volumes", 1),
        ("data/tmp", 1),
        ("data/trash", 1),
        ("data", 1),
    ] {
        files(&directory.join(part), depth, &mut inventory);
    }
    inventory
}

/// What is in one and not in the other.
pub fn difference(before: &Inventory, after: &Inventory) -> Vec<String> {
    let gone = before.difference(after).map(|line| format!("- {line}"));
    gone.chain(after.difference(before).map(|line| format!("+ {line}"))).collect()
}

fn processes(inventory: &mut Inventory) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // What has ended and was not waited for yet has no arguments; unlike a living process, it holds nothing.
        if pid != std::process::id() && !words.is_empty() {
            let words = String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ");
            inventory.insert(format!("process {pid} {words}"));
        }
    }
}

fn mounts(inventory: &mut Inventory) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in table.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        inventory.insert(format!("mount {} on {}", words[3], words[4]));
    }
}

fn network(inventory: &mut Inventory) {
    for arguments in [["-o", "link"], ["-o", "address"], ["-4", "route"]] {
        let output = Command::new("ip").args(arguments).output().expect("iproute2");
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            // Not the counters and life times.
            let words: Vec<&str> = line.split_whitespace().take(4).collect();
            let named = words.join(" ");
            inventory.insert(format!("{} {}", arguments[1], named.split('<').next().unwrap_or_default()));
        }
    }
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nftables");
    for (number, line) in String::from_utf8(output.stdout).unwrap().lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() {
            inventory.insert(format!("nft {number}: {}", line.split(" packets ").next().unwrap_or_default()));
        }
    }
}

fn find_directories(directory: &Path, found: &mut Vec<String>, depth: usize) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.push(entry.path().display().to_string());
        if depth > 0 {
            find_directories(&entry.path(), found, depth - 1);
        }
    }
}

fn files(directory: &Path, depth: usize, inventory: &mut Inventory) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        inventory.insert(format!("file {}", entry.path().display()));
        if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), depth - 1, inventory);
        }
    }
}
