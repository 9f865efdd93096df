//! `/dev`: nodes and the links that programs expect.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use crate::error::StartFailure;
use crate::filesystem::{attach, clone_path};
use crate::spec::{DeviceKind, DeviceNode};

use super::root::Root;

/// Links of every Linux container (OCI runtime-spec, config-linux.md "Default Devices", and runc's practice).
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// Makes nodes and links. An image's own `/dev` without a tmpfs may hold them already.
pub fn make_devices(root: Root<'_>, devices: &[DeviceNode]) -> Result<(), StartFailure> {
    for device in devices {
        make_device(root, device).map_err(|error| {
            StartFailure::refused(format!("cannot make the device `{}`", device.path), error)
        })?;
    }
    let directory =
        root.ensure_directory("/dev").map_err(|error| StartFailure::refused("cannot open `/dev`", error))?;
    for (target, name) in LINKS {
        match rustix::fs::symlinkat(target, &directory, name) {
            // A read-only or foreign /dev (bound by its user) keeps what it has.
            Ok(()) | Err(Errno::EXIST | Errno::ROFS | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(StartFailure::refused(format!("cannot link `/dev/{name}`"), error)),
        }
    }
    Ok(())
}

fn make_device(root: Root<'_>, device: &DeviceNode) -> io::Result<()> {
    let (directory, name) = device.path.rsplit_once('/').unwrap_or(("", &device.path));
    let parent = root.ensure_directory(directory)?;
    let kind = match device.kind {
        DeviceKind::Character => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let number = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(device.mode), number) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        // In a user namespace nodes cannot be made: bind the engine's.
        Err(Errno::PERM) => return bind_device(root, device),
        Err(error) => return Err(error.into()),
    }
    // mknod obeys the umask; owner and mode are what was asked for.
    rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(device.mode), AtFlags::empty())?;
    let owner = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(&parent, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn bind_device(root: Root<'_>, device: &DeviceNode) -> io::Result<()> {
    let source = clone_path(&device.host_path, false)?;
    let place = root.ensure_file(&device.path)?;
    attach(source.as_fd(), place.as_fd())
}
