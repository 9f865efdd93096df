//! Kernel parameters of the container's namespaces.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};

use rustix::fs::OFlags;

use crate::error::StartFailure;

use super::root::Root;

/// Set for every container with a network namespace of its own; nobody asked for them by name, so surroundings that
/// refuse them (a read-only `/proc/sys`, ids that are not mapped) are no reason to fail.
const DEFAULTS: [&str; 2] = ["net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"];

/// Writes each parameter through the container's own `/proc/sys`.
pub fn write_all(root: Root<'_>, sysctls: &BTreeMap<String, String>) -> Result<(), StartFailure> {
    for (name, value) in sysctls {
        match write(root, name, value) {
            Err(_) if DEFAULTS.contains(&name.as_str()) => {}
            other => other.map_err(|error| {
                StartFailure::refused(format!("cannot set the sysctl `{name}` to `{value}`"), error)
            })?,
        }
    }
    Ok(())
}

fn write(root: Root<'_>, name: &str, value: &str) -> io::Result<()> {
    // sysctl(8): dots separate, and a slash stands for a dot within a name (`net.ipv4.conf.eth0/1.…`).
    let path: String = name
        .chars()
        .map(|letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    let file = root.open(&format!("/proc/sys/{path}"), OFlags::WRONLY)?;
    File::from(file).write_all(value.as_bytes())
}
