//! The small pid 1 of `--init`: forwards signals to one child, reaps everything else, exits with the child's status.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

/// The role's `argv[0]`, under the name that Docker's own has.
pub const NAME: &str = "/sbin/docker-init";

/// Runs `arguments` (after an optional `--`) and returns its exit code, 128 + n for signal n.
pub fn main(arguments: &[String]) -> i32 {
    let arguments = arguments.strip_prefix(&["--".to_owned()]).unwrap_or(arguments);
    let Some((program, rest)) = arguments.split_first() else {
        eprintln!("docker-init: no command given");
        return 1;
    };
    dory_sys::process::block_signals();
    let mut command = Command::new(program);
    command.args(rest);
    dory_sys::process::reset_signals_in_child(&mut command);
    let child = match command.process_group(0).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("docker-init: cannot run `{program}`: {error}");
            return if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        }
    };
    let Some(child) = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default()) else { return 1 };
    give_terminal(child);
    loop {
        match dory_sys::process::wait_signal() {
            Ok(SIGCHLD) => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            // The program may be gone this very moment; the SIGCHLD follows.
            Ok(signal) => drop(dory_sys::process::kill(child, signal)),
            Err(_) => {}
        }
    }
}

/// `SIGCHLD` on every architecture that we build for.
const SIGCHLD: i32 = 17;

/// With a terminal the child's group becomes the foreground one, so that job control reaches it and not us.
fn give_terminal(child: Pid) {
    // No terminal: nothing to give.
    let _no_terminal = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), child);
}

/// Collects whatever has ended; the exit code if `child` is among it.
fn reap(child: Pid) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            code = Some(exit_code(status));
        }
    }
    code
}

fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or_default())
}
