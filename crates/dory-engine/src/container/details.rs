//! What inspect, list and top say.

use std::collections::BTreeMap;
use std::sync::Arc;

use dory_types::{ContainerId, ExecId, Timestamp};
use serde::{Deserialize, Serialize};

use super::state::ContainerState;
use crate::config::{ContainerConfig, EndpointSettings, HostConfig, PortMap};

/// API 1.51, `MountPoint`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Name of the volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// Driver of the volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options as given, e.g. `z`.
    pub mode: String,
    /// Writable.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// `rprivate`...; empty for volumes.
    pub propagation: String,
}

/// API 1.51, `NetworkSettings`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// Always empty.
    pub bridge: String,
    /// Names the network namespace.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// A path to it.
    pub sandbox_key: String,
    /// Exposed and published ports.
    pub ports: PortMap,
    /// Endpoints by network name.
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// API 1.51, `ContainerInspectResponse`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerDetails {
    /// Id.
    pub id: ContainerId,
    /// When it was made.
    pub created: Timestamp,
    /// Program.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// State.
    pub state: ContainerState,
    /// The image's id, with `sha256:`.
    pub image: String,
    /// Host path of `/etc/resolv.conf`.
    pub resolv_conf_path: String,
    /// Host path of `/etc/hostname`.
    pub hostname_path: String,
    /// Host path of `/etc/hosts`.
    pub hosts_path: String,
    /// Host path of the log.
    pub log_path: String,
    /// Name, with a slash.
    pub name: String,
    /// Restarts by the policy.
    pub restart_count: u32,
    /// Storage driver.
    pub driver: String,
    /// `linux`.
    pub platform: String,
    /// SELinux.
    pub mount_label: String,
    /// SELinux.
    pub process_label: String,
    /// AppArmor.
    pub app_armor_profile: String,
    /// Running execs; `None` where there are none.
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<ExecId>>,
    /// What belongs to the host.
    pub host_config: Arc<HostConfig>,
    /// Where the layers lie.
    pub graph_driver: GraphDriver,
    /// Bytes of the writable layer, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes of all layers, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Mounts.
    pub mounts: Vec<MountPoint>,
    /// What belongs to the process.
    pub config: Arc<ContainerConfig>,
    /// Network. Not serialised: the API layer adds the fields that stood here before networks had names.
    #[serde(skip)]
    pub network_settings: NetworkSettings,
}

/// API 1.51, `DriverData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    /// `LowerDir`, `MergedDir`, `UpperDir`, `WorkDir`.
    pub data: BTreeMap<String, String>,
    /// `overlay2`.
    pub name: String,
}

/// API 1.51, `Port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortSummary {
    /// Address of the host, where published.
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Port in the container.
    pub private_port: u16,
    /// Port on the host, where published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// `tcp`, `udp`, `sctp`.
    #[serde(rename = "Type")]
    pub kind: String,
}

/// The part of the host's configuration that a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SummaryHostConfig {
    /// Network mode.
    pub network_mode: String,
    /// Annotations (since API 1.46).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The part of the network settings that a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SummaryNetworkSettings {
    /// Endpoints by network name.
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// API 1.51, `ContainerSummary`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerSummary {
    /// Id.
    pub id: ContainerId,
    /// Names, with a slash.
    pub names: Vec<String>,
    /// The image as it was named, or its id where the name means another one now.
    pub image: String,
    /// The image's id, with `sha256:`.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// Program and arguments as people type them.
    pub command: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Ports.
    pub ports: Vec<PortSummary>,
    /// Bytes of the writable layer, where asked for and not 0 (which inspect, unlike the list, says).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes of all layers, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `running`...
    pub state: String,
    /// `Up 2 seconds`...
    pub status: String,
    /// Network mode and annotations.
    pub host_config: SummaryHostConfig,
    /// Endpoints.
    pub network_settings: SummaryNetworkSettings,
    /// Mounts.
    pub mounts: Vec<MountPoint>,
}

/// API 1.51, `ContainerTopResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TopTable {
    /// Columns.
    pub titles: Vec<String>,
    /// Rows.
    pub processes: Vec<Vec<String>>,
}
