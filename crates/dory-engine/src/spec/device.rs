//! Device nodes, and the rules of the device cgroup that go with them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use dory_cgroup::{Access, DeviceRule};
use dory_runtime::spec::{DeviceKind, DeviceNode};

use crate::EngineError;
use crate::config::{DeviceMapping, HostConfig};

/// What every container gets: name and minor number of major 1, and `tty` of major 5.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// What a confined privileged container gets beside them, where the engine has it. Both are open to every user of an
/// ordinary host, because what they give lives in the caller's own namespaces: a FUSE mount needs a mount namespace of
/// one's own and trusts nobody outside, a tun device is made in the caller's network namespace only. A nested engine's
/// rootless tools (fuse-overlayfs, slirp4netns) need them.
const HARMLESS: [&str; 2] = ["/dev/fuse", "/dev/net/tun"];

/// Nodes and rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    pub(crate) nodes: Vec<DeviceNode>,
    pub(crate) rules: Vec<DeviceRule>,
}

impl Devices {
    /// The devices of an ordinary container: the default ones and those asked for.
    pub(crate) fn ordinary(host: &HostConfig) -> Result<Self, EngineError> {
        let mut devices = Self { nodes: default_nodes(), rules: DeviceRule::docker_defaults() };
        devices.add_mapped(host)?;
        Ok(devices)
    }

    /// Those of a confined privileged one: the harmless ones too.
    pub(crate) fn confined(host: &HostConfig) -> Result<Self, EngineError> {
        let mut devices = Self::ordinary(&HostConfig::default())?;
        for path in HARMLESS.map(Path::new) {
            if let Some(node) = node_at(path, path) {
                devices.push(node, Access::ALL);
            }
        }
        devices.add_mapped(host)?;
        Ok(devices)
    }

    /// Every device of the host, as `--privileged` has it with `privileged = "host"`.
    pub(crate) fn all_of_host() -> Self {
        let mut nodes = Vec::new();
        collect(Path::new("/dev"), Path::new("/dev"), 0, &mut nodes);
        for node in default_nodes() {
            if !nodes.iter().any(|known| known.path == node.path) {
                nodes.push(node);
            }
        }
        Self { nodes, rules: DeviceRule::everything() }
    }

    fn add_mapped(&mut self, host: &HostConfig) -> Result<(), EngineError> {
        for mapping in &host.devices {
            self.add(mapping)?;
        }
        for rule in &host.device_cgroup_rules {
            self.rules.push(parse_rule(rule)?);
        }
        Ok(())
    }

    fn add(&mut self, mapping: &DeviceMapping) -> Result<(), EngineError> {
        let path = Path::new(&mapping.path_on_host);
        let access = match mapping.cgroup_permissions.as_str() {
            "" => Access::ALL,
            letters => Access::parse(letters)
                .ok_or_else(|| EngineError::invalid(format!("invalid device mode: {letters}")))?,
        };
        let inside =
            if mapping.path_in_container.is_empty() { path } else { Path::new(&mapping.path_in_container) };
        if let Some(node) = node_at(path, inside) {
            self.push(node, access);
            return Ok(());
        }
        let mut nodes = Vec::new();
        // A directory stands for the devices in it (`--device /dev/snd`).
        if path.is_dir() {
            collect(path, inside, 0, &mut nodes);
        }
        if nodes.is_empty() {
            let path = &mapping.path_on_host;
            return Err(EngineError::internal(format!(
                "error gathering device information while adding custom device \"{path}\": no such file or directory"
            )));
        }
        nodes.into_iter().for_each(|node| self.push(node, access));
        Ok(())
    }

    fn push(&mut self, node: DeviceNode, access: Access) {
        let kind = match node.kind {
            DeviceKind::Character => dory_cgroup::DeviceKind::Char,
            DeviceKind::Block => dory_cgroup::DeviceKind::Block,
        };
        self.rules.push(DeviceRule::allow(kind, Some(node.major), Some(node.minor), access));
        self.nodes.retain(|known| known.path != node.path);
        self.nodes.push(node);
    }
}

fn default_nodes() -> Vec<DeviceNode> {
    let node = |(name, major, minor): (&str, u32, u32)| DeviceNode {
        path: format!("/dev/{name}"),
        host_path: PathBuf::from(format!("/dev/{name}")),
        kind: DeviceKind::Character,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    DEFAULT.into_iter().map(node).collect()
}

/// The device at `path`; `None` where there is none.
fn node_at(path: &Path, inside: &Path) -> Option<DeviceNode> {
    let metadata = fs::metadata(path).ok()?;
    let kind = if metadata.file_type().is_char_device() {
        DeviceKind::Character
    } else if metadata.file_type().is_block_device() {
        DeviceKind::Block
    } else {
        return None;
    };
    Some(DeviceNode {
        path: inside.to_str()?.to_owned(),
        host_path: path.to_owned(),
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// The devices in `directory`, as runc gathers them: no symbolic links, nothing of the container's own making.
fn collect(directory: &Path, inside: &Path, depth: usize, nodes: &mut Vec<DeviceNode>) {
    const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if depth == 0 && OWN.iter().any(|own| name == *own) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        let (path, inside) = (entry.path(), inside.join(&name));
        if kind.is_dir() && depth < 8 {
            collect(&path, &inside, depth + 1, nodes);
        } else if kind.is_char_device() || kind.is_block_device() {
            nodes.extend(node_at(&path, &inside));
        }
    }
}

/// Reads `c 13:* rwm`.
pub(crate) fn parse_rule(text: &str) -> Result<DeviceRule, EngineError> {
    let invalid = || EngineError::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, letters] = words.as_slice() else { return Err(invalid()) };
    let kind = match *kind {
        "a" => dory_cgroup::DeviceKind::All,
        "b" => dory_cgroup::DeviceKind::Block,
        "c" => dory_cgroup::DeviceKind::Char,
        _ => return Err(invalid()),
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        number => number.parse().map(Some).map_err(|_| invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let access = Access::parse(letters).ok_or_else(invalid)?;
    Ok(DeviceRule::allow(kind, number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_devices() {
        let mapping = DeviceMapping {
            path_on_host: "/dev/zero".into(),
            path_in_container: "/dev/nought".into(),
            cgroup_permissions: "r".into(),
        };
        let host = HostConfig { devices: vec![mapping].into(), ..HostConfig::default() };
        let devices = Devices::ordinary(&host).unwrap();
        let node = devices.nodes.last().unwrap();
        assert_eq!((&*node.path, node.major, node.minor), ("/dev/nought", 1, 5));
        assert_eq!(devices.rules.last().unwrap().access, Access::parse("r").unwrap());
        let missing = DeviceMapping { path_on_host: "/dev/nonexistent".into(), ..DeviceMapping::default() };
        let host = HostConfig { devices: vec![missing].into(), ..HostConfig::default() };
        assert!(Devices::ordinary(&host).unwrap_err().message().contains("/dev/nonexistent"));
    }

    #[test]
    fn reads_rules() {
        let rule = parse_rule("c 13:* rw").unwrap();
        assert_eq!((rule.major, rule.minor, rule.access.mknod), (Some(13), None, false));
        for wrong in ["", "c 13:*", "x 1:1 r", "c 1 r", "c 1:1 q"] {
            assert!(parse_rule(wrong).is_err(), "{wrong}");
        }
    }
}
