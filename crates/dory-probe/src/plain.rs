//! Attempts without namespaces, in the scratch directory. The later ones cannot be taken back and end the process's
//! usefulness: they stand in this order for a reason.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::chown;

use dory_sys::probe::{load_open_filter, load_open_filter_with_listener, seize};
use dory_sys::process::{CloneOptions, clone_process};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};
use rustix::thread::{set_no_new_privs, set_thread_res_uid};

use crate::attempt::Feature;
use crate::trial::{Reporter, Try, end};

/// The user that attempts turn to: any but the engine's own, and within every range that is mapped for containers.
const OTHER_USER: u32 = 33;

/// Only looked at by people. Closing the first one can take the kernel more than 10 ms.
const DEVICES: [Try; 2] =
    [Try::new(Feature::Tun, 0, || open("/dev/net/tun")), Try::new(Feature::Fuse, 0, || open("/dev/fuse"))];

const TRIES: [Try; 10] = [
    Try::new(Feature::DeviceNode, 0, device_node),
    Try::new(Feature::Whiteout, 0, whiteout),
    Try::new(Feature::Chown, 0, || chown("file", Some(OTHER_USER), Some(OTHER_USER))),
    Try::new(Feature::TrustedXattr, 0, || {
        Ok(setxattr("upper", "trusted.dory.probe", b"y", XattrFlags::empty())?)
    }),
    Try::new(Feature::Ptrace, 0, ptrace),
    Try::new(Feature::Chroot, 0, || Ok(rustix::process::chroot(".")?)),
    Try::new(Feature::SeccompPlain, 0, load_open_filter),
    Try::new(Feature::SeccompConfined, 0, || {
        set_no_new_privs(true).map_err(Into::into).and_then(|()| load_open_filter())
    }),
    Try::new(Feature::SeccompNotify, 0, || load_open_filter_with_listener().map(drop)),
    Try::new(Feature::SetUser, 0, set_user),
];

/// Makes every attempt, with `devices` those on devices too, as the trial's own process.
pub(crate) fn run(reporter: &mut Reporter, devices: bool) {
    for attempt in DEVICES.iter().filter(|_| devices).chain(&TRIES) {
        reporter.run(attempt);
    }
}

fn open(path: &str) -> io::Result<()> {
    File::options().read(true).write(true).open(path).map(drop)
}

/// A node that can be made but not opened (device control groups, user namespaces) is of no use.
fn device_node() -> io::Result<()> {
    mknodat(CWD, "null", FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(1, 3))?;
    File::options().write(true).open("null")?.write_all(b"x")
}

fn whiteout() -> io::Result<()> {
    mknodat(CWD, "whiteout", FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?;
    fs::remove_file("whiteout")
}

fn ptrace() -> io::Result<()> {
    let child = clone_process(CloneOptions::default(), || {
        loop {
            std::thread::park();
        }
    })?;
    let seized = seize(child.pid);
    end(&child);
    seized
}

fn set_user() -> io::Result<()> {
    let user = rustix::process::Uid::from_raw(OTHER_USER);
    Ok(set_thread_res_uid(user, user, user)?)
}
