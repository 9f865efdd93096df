//! What one container is made of, in the OCI runtime specification's nouns.
//!
//! The types are our own and not the `oci-spec` crate's for three reasons: they carry what OCI has no place for (a chain
//! of layer directories, identity-mapped binds, a compiled seccomp filter, the log), every field in them is honoured
//! (OCI's are optional throughout, and an ignored option is a lie), and a shim parses them in microseconds.

mod mount;
mod namespace;
mod process;

use std::collections::BTreeMap;
use std::path::PathBuf;

use dory_types::ContainerId;
use serde::{Deserialize, Serialize};

pub use mount::{DeviceKind, DeviceNode, Mount, MountFlags, MountSource, Propagation};
pub use namespace::{IdMapping, Namespace, Namespaces, UserNamespace};
pub use process::{ConsoleSize, ExecSpec, Process, Rlimit, Stdio};

/// Everything that a shim needs to run one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The container's id.
    pub id: ContainerId,
    /// Host name within a UTS namespace of its own; empty leaves it alone.
    pub hostname: String,
    /// NIS domain name; empty leaves it alone.
    pub domainname: String,
    /// The root filesystem.
    pub rootfs: Rootfs,
    /// Which namespaces are made, joined or shared.
    pub namespaces: Namespaces,
    /// Mounts, made in this order (the engine sorts by depth of destination).
    pub mounts: Vec<Mount>,
    /// Device nodes below `/dev`, made after the mounts.
    pub devices: Vec<DeviceNode>,
    /// Paths hidden from the container (OCI `maskedPaths`).
    pub masked_paths: Vec<String>,
    /// Paths made read-only (OCI `readonlyPaths`).
    pub readonly_paths: Vec<String>,
    /// Kernel parameters, e.g. `net.ipv4.ip_unprivileged_port_start` -> `0`.
    pub sysctls: BTreeMap<String, String>,
    /// The container's own process.
    pub process: Process,
    /// Run the process below a small reaper as pid 1 (`--init`).
    pub init: bool,
    /// Standard streams.
    pub stdio: Stdio,
    /// The cgroup that the processes join; `None` where there is none to be had.
    pub cgroup: Option<dory_cgroup::Group>,
    /// How output is logged.
    pub log: dory_log::LogConfig,
    /// The container's directory in the data-root: log and `exit.json` are written there.
    pub directory: PathBuf,
    /// The container's directory in the exec-root: the shim binds [`crate::protocol::SOCKET_NAME`] there.
    pub runtime_directory: PathBuf,
    /// The shim listens on [`crate::protocol::GUARD_SOCKET`] in the runtime directory, for an engine to serve this container a
    /// part of its API there. A bind among `mounts` brings it into the container.
    #[serde(default)]
    pub guarded_socket: bool,
    /// The shim, and the container with it, die with the thread that starts it: for what must not outlive its engine.
    #[serde(default)]
    pub dies_with_parent: bool,
}

/// The root filesystem: an overlay over unpacked layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rootfs {
    /// Layer directories, topmost first (as overlay's `lowerdir` wants them).
    pub lower: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// Overlay's work directory, on the same filesystem as `upper`.
    pub work: PathBuf,
    /// Mount the root read-only (`--read-only`).
    pub readonly: bool,
}
