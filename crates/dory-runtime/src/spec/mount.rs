//! Mounts and device nodes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One mount in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container; missing directories (or the file, for a bind of a file) are made.
    pub destination: String,
    /// What is mounted.
    pub source: MountSource,
    /// Flags of the mount.
    pub flags: MountFlags,
    /// Propagation; only binds have one that is not private.
    pub propagation: Propagation,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory or file of the engine's.
    Bind {
        /// The path, in the engine's mount namespace.
        path: PathBuf,
        /// What is bound below the path; empty for the path itself. Links in it lead nowhere outside of the path, whoever
        /// may change them meanwhile.
        #[serde(default)]
        subpath: String,
        /// Take the mounts below it along (`rbind`).
        recursive: bool,
        /// Shift ids by the container's user-namespace map, so that root inside is root on disk.
        /// Ignored where the map is the identity.
        id_mapped: bool,
    },
    /// A filesystem that init mounts inside the container's namespaces.
    Filesystem {
        /// Its type: `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`.
        kind: String,
        /// Its options, `name` or `name=value` (e.g. `size=65536k`, `mode=1777`), in tmpfs(5)'s words.
        options: Vec<String>,
    },
    /// The control-group filesystem as the container may see it: cgroup2, or one mount per v1 hierarchy.
    Cgroup,
}

/// Mount flags (mount_setattr(2), `MOUNT_ATTR_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    /// Read-only.
    pub readonly: bool,
    /// Read-only for the mounts below too (Docker's recursive read-only; kernel 5.12).
    pub recursive_readonly: bool,
    /// No set-user-id.
    pub nosuid: bool,
    /// No device nodes.
    pub nodev: bool,
    /// No execution.
    pub noexec: bool,
    /// No access times.
    pub noatime: bool,
}

/// Mount propagation (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// `private`.
    Private,
    /// `rprivate`, Docker's default.
    #[default]
    RecursivePrivate,
    /// `slave`.
    Slave,
    /// `rslave`.
    RecursiveSlave,
    /// `shared`: the source's own peer group.
    Shared,
    /// `rshared`.
    RecursiveShared,
}

/// A device node in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Absolute path in the container.
    pub path: String,
    /// The engine's node of the same device: bound where a node cannot be made (in a user namespace).
    pub host_path: PathBuf,
    /// Character or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
}

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// `c`.
    Character,
    /// `b`.
    Block,
}
