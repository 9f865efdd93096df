//! Real containers through the engine. Needs root and Debian's busybox-static.
//!
//! No test harness: the engine re-executes this very binary in the shim's role, before any thread exists. Everything
//! runs in a network namespace of its own, so that bridges and packet filters of the machine are not touched, and in a
//! pid namespace, so that no container outlives a test that panics.

#![expect(
    clippy::unwrap_used,
    reason = "a test may end by panicking; without a harness clippy does not know it for one"
)]

mod cases;
mod fixture;

use std::process::{Command, ExitCode};
use std::time::Instant;

/// Set in the process that runs in namespaces of its own.
const INNER: &str = "DORY_ENGINE_TEST_INNER";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.first().is_some_and(|name| name == dory_runtime::reaper::NAME) {
        return ExitCode::from(dory_runtime::reaper::main(&arguments[1..]) as u8);
    }
    match arguments.get(1).map(String::as_str) {
        Some(dory_runtime::shim::ROLE) => return ExitCode::from(dory_runtime::shim::main() as u8),
        Some(dory_runtime::stopped::ROLE) => return ExitCode::from(dory_runtime::stopped::main() as u8),
        Some(dory_runtime::recorder::ROLE) => return ExitCode::from(dory_runtime::recorder::main() as u8),
        _ => {}
    }
    if arguments.iter().any(|argument| argument == "--list") {
        cases::ALL.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    assert!(rustix::process::geteuid().is_root(), "these tests need root");
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
    run(arguments.iter().skip(1).find(|argument| !argument.starts_with('-')))
}

fn run(wanted: Option<&String>) -> ExitCode {
    let mut passed = 0;
    for (name, test) in cases::ALL {
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let begin = Instant::now();
        test();
        passed += 1;
        println!("test {name} ... ok ({} ms)", begin.elapsed().as_millis());
    }
    println!("\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    ExitCode::SUCCESS
}
