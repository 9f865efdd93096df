//! Lets a container with a user namespace of its own have a fresh `/proc` where the engine's own is masked.
//!
//! A new mount namespace in a new user namespace gets its parent's mounts locked, and the kernel refuses a fresh `/proc`
//! where locked mounts cover parts of every one that is visible (mnt_already_visible). An outer Docker masks its
//! containers' `/proc`; to an engine with CAP_SYS_ADMIN those masks are ordinary mounts. So the shim takes them off in a
//! mount namespace of its own, from which the container's is copied. The engine keeps its masks; what a container sees is
//! masked again unless it is privileged, and the tree that lay bare here is left behind by pivot_root.

use std::fs;
use std::io;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

/// Takes masks off `/proc` and `/sys`, in a mount namespace made for it; does nothing where there are none. Binds must
/// have been cloned before: they belong to the engine's namespace.
pub fn unmask() -> io::Result<()> {
    let masks = masks(&fs::read_to_string("/proc/self/mountinfo")?);
    if !masks.iter().any(|point| point.starts_with("/proc/")) {
        return Ok(());
    }
    dory_sys::process::unshare_mounts()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for mask in masks {
        // One that is locked stays, and the fresh /proc is refused as before.
        let _locked = unmount(mask.as_str(), UnmountFlags::DETACH);
    }
    Ok(())
}

/// Mount points that cover parts of `/proc` and `/sys`, deepest first. Mounts that belong there (cgroups, binfmt_misc,
/// tracing) lie on directories that are always empty, and hide nothing.
fn masks(mountinfo: &str) -> Vec<String> {
    let mut masks: Vec<String> = mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = before.split(' ').nth(4)?;
            let kind = after.split(' ').next()?;
            let covers =
                point.starts_with("/proc/") || point.starts_with("/sys/") && !point.starts_with("/sys/fs/");
            (covers && ["tmpfs", "devtmpfs", "proc", "sysfs"].contains(&kind)).then(|| point.to_owned())
        })
        .collect();
    masks.sort_by_key(|point| std::cmp::Reverse(point.len()));
    masks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_docker_covers_and_nothing_else() {
        let table = "\
            21 1 0:20 / /proc rw,nosuid - proc proc rw\n\
            22 21 0:20 /sys /proc/sys ro,nosuid - proc proc rw\n\
            23 21 0:30 / /proc/acpi ro - tmpfs tmpfs ro\n\
            24 21 0:5 /null /proc/kcore rw - devtmpfs devtmpfs rw\n\
            25 22 0:31 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n\
            26 1 0:21 / /sys ro - sysfs sysfs ro\n\
            27 26 0:32 / /sys/firmware ro - tmpfs tmpfs ro\n\
            28 26 0:33 / /sys/fs/cgroup ro - tmpfs cgroup ro\n\
            29 1 0:34 / /tmp rw - tmpfs tmpfs rw\n";
        assert_eq!(masks(table), ["/sys/firmware", "/proc/kcore", "/proc/acpi", "/proc/sys"]);
    }
}
