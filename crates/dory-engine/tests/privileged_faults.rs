//! Kills engine, shim and init at every fault point, and sees that the next engine finds a true state and nothing leaks.
//!
//! Needs root, Debian's busybox-static, iproute2 and nftables, and the feature `fault-points`:
//!
//! ```sh
//! cargo test -p dory-engine --features fault-points --test privileged_faults [-- [--every-arrival] PART-OF-A-POINT...]
//! ```
//!
//! ```text
//!  controller ── for every point of the sources, and every arrival at it ──┐
//!     │ drive     one container's life, from create to rm; a process dies  │
//!     │ inspect   a new engine: what is there, and is it true?             │
//!     │ inspect   another one: the same                                    │
//!     └ finish    a last one goes on with what it found, removes all; the inventory is as before ┘
//! ```
//!
//! No test harness, as in `privileged_engine`: each of these is this very binary again, and so are shim and init.

#![expect(
    clippy::unwrap_used,
    reason = "a test may end by panicking; without a harness clippy does not know it for one"
)]

#[path = "faults/controller.rs"]
mod controller;
#[path = "faults/drive.rs"]
mod drive;
#[allow(dead_code, reason = "the other test program uses more of it")]
mod fixture;
#[path = "faults/inventory.rs"]
mod inventory;

use std::path::Path;
use std::process::{Command, ExitCode};

/// Set in the process that runs in namespaces of its own.
const INNER: &str = "DORY_FAULTS_TEST_INNER";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |index: usize| arguments.get(index).map(String::as_str);
    if argument(0) == Some(dory_runtime::reaper::NAME) {
        return ExitCode::from(dory_runtime::reaper::main(&arguments[1..]) as u8);
    }
    if argument(1) == Some(dory_probe::PROBE_ROLE) {
        return dory_probe::run_child_role(arguments.into_iter().skip(2).map(Into::into));
    }
    match (argument(1), argument(2)) {
        (Some(dory_runtime::shim::ROLE), _) => return ExitCode::from(dory_runtime::shim::main() as u8),
        (Some(dory_runtime::stopped::ROLE), _) => return ExitCode::from(dory_runtime::stopped::main() as u8),
        (Some("--list"), _) => {
            println!("privileged_faults: test");
            return ExitCode::SUCCESS;
        }
        (Some(name), Some(directory)) => {
            if let Some(role) = drive::role(name) {
                role(Path::new(directory));
                return ExitCode::SUCCESS;
            }
        }
        _ => {}
    }
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    if std::env::var_os(INNER).is_none() {
        let status = Command::new("unshare")
            .args(["--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"])
            .arg(std::env::current_exe().expect("this binary's path"))
            .args(&arguments[1..])
            .env(INNER, "1")
            .status()
            .expect("unshare(1) of util-linux");
        return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let wanted: Vec<&String> =
        arguments.iter().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let every = arguments.iter().any(|argument| argument == "--every-arrival");
    let chosen =
        |point: &str| wanted.is_empty() || wanted.iter().any(|wanted| point.contains(wanted.as_str()));
    controller::run(&chosen, every)
}
