//! `HostConfig`: what belongs to the host and the operator.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::container::PortMap;
use super::is_zero;
use super::json::{GoSlice, StrSlice};
use super::mount::MountSpec;

/// API 1.51, `HostConfig`, with `Resources` in place (Go embeds it).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `source:target[:options]`.
    pub binds: GoSlice<String>,
    /// Where the client wrote the id.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// Log driver.
    pub log_config: LogConfig,
    /// `default`, `bridge`, `host`, `none`, `container:<name|id>` or a network's name.
    pub network_mode: String,
    /// Published ports.
    pub port_bindings: PortMap,
    /// Restart policy.
    pub restart_policy: RestartPolicy,
    /// `--rm`.
    pub auto_remove: bool,
    /// Driver of volumes made for this container.
    pub volume_driver: String,
    /// `<container>[:ro|:rw]`.
    pub volumes_from: GoSlice<String>,
    /// First size of the terminal, as height and width.
    pub console_size: [u16; 2],
    /// Free-form facts for the runtime.
    #[serde(skip_serializing_if = "is_zero")]
    pub annotations: BTreeMap<String, String>,
    /// Capabilities to add.
    pub cap_add: StrSlice,
    /// Capabilities to drop.
    pub cap_drop: StrSlice,
    /// `private`, `host` or empty for the default.
    pub cgroupns_mode: String,
    /// DNS servers.
    pub dns: GoSlice<String>,
    /// DNS options.
    pub dns_options: GoSlice<String>,
    /// DNS search domains.
    pub dns_search: GoSlice<String>,
    /// `name:address` lines of `/etc/hosts`.
    pub extra_hosts: GoSlice<String>,
    /// Additional groups.
    pub group_add: GoSlice<String>,
    /// `none`, `private`, `shareable`, `host`, `container:…`; empty means private.
    pub ipc_mode: String,
    /// Obsolete.
    pub cgroup: String,
    /// Legacy links.
    pub links: GoSlice<String>,
    /// `oom_score_adj`.
    pub oom_score_adj: i32,
    /// `host`, `container:…` or empty.
    pub pid_mode: String,
    /// `--privileged`.
    pub privileged: bool,
    /// `-P`.
    pub publish_all_ports: bool,
    /// `--read-only`.
    pub readonly_rootfs: bool,
    /// `seccomp=…`, `apparmor=…`, `no-new-privileges`, `systempaths=unconfined`, `label=…`.
    pub security_opt: GoSlice<String>,
    /// Options of the storage driver.
    #[serde(skip_serializing_if = "is_zero")]
    pub storage_opt: BTreeMap<String, String>,
    /// Path to mount options.
    #[serde(skip_serializing_if = "is_zero")]
    pub tmpfs: BTreeMap<String, String>,
    /// `host` or empty.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// `host` or empty.
    pub userns_mode: String,
    /// Bytes of `/dev/shm`; 0 means 64 MiB.
    pub shm_size: i64,
    /// Kernel parameters.
    #[serde(skip_serializing_if = "is_zero")]
    pub sysctls: BTreeMap<String, String>,
    /// Runtime; empty means the default.
    pub runtime: String,
    /// Windows only.
    pub isolation: String,
    /// Relative CPU weight; 0 is the default of 1024.
    pub cpu_shares: i64,
    /// Memory limit, bytes; 0 is unlimited.
    pub memory: i64,
    /// CPU limit in billionths of a CPU.
    pub nano_cpus: i64,
    /// Parent of the container's cgroup.
    pub cgroup_parent: String,
    /// Block I/O weight, 10 to 1000.
    pub blkio_weight: u16,
    /// The same by device.
    pub blkio_weight_device: GoSlice<WeightDevice>,
    /// Bytes a second.
    pub blkio_device_read_bps: GoSlice<ThrottleDevice>,
    /// Bytes a second.
    pub blkio_device_write_bps: GoSlice<ThrottleDevice>,
    /// Operations a second.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: GoSlice<ThrottleDevice>,
    /// Operations a second.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: GoSlice<ThrottleDevice>,
    /// CFS period, microseconds.
    pub cpu_period: i64,
    /// CFS quota, microseconds.
    pub cpu_quota: i64,
    /// Real-time period, microseconds.
    pub cpu_realtime_period: i64,
    /// Real-time run time, microseconds.
    pub cpu_realtime_runtime: i64,
    /// CPUs, e.g. `0-2,4`.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
    /// Devices of the host.
    pub devices: GoSlice<DeviceMapping>,
    /// Rules of the device cgroup, e.g. `c 13:* rwm`.
    pub device_cgroup_rules: GoSlice<String>,
    /// GPUs and the like.
    pub device_requests: GoSlice<DeviceRequest>,
    /// Bytes of kernel memory; obsolete, gone since API 1.42.
    #[serde(skip_serializing_if = "is_zero")]
    pub kernel_memory: i64,
    /// Bytes of the kernel's TCP buffers; obsolete.
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_zero")]
    pub kernel_memory_tcp: i64,
    /// Soft memory limit, bytes.
    pub memory_reservation: i64,
    /// Memory and swap, bytes; -1 is unlimited, 0 twice the memory.
    pub memory_swap: i64,
    /// 0 to 100; -1 and absent are the default.
    pub memory_swappiness: Option<i64>,
    /// No OOM killer.
    pub oom_kill_disable: Option<bool>,
    /// Tasks; absent, 0 and -1 are unlimited.
    pub pids_limit: Option<i64>,
    /// Resource limits of the processes.
    pub ulimits: GoSlice<Ulimit>,
    /// Windows only.
    pub cpu_count: i64,
    /// Windows only.
    pub cpu_percent: i64,
    /// Windows only.
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    /// Windows only.
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,
    /// `--mount`.
    #[serde(skip_serializing_if = "is_zero")]
    pub mounts: Vec<MountSpec>,
    /// Hidden paths; absent means the default ones.
    pub masked_paths: GoSlice<String>,
    /// Read-only paths; absent means the default ones.
    pub readonly_paths: GoSlice<String>,
    /// Run a reaper as pid 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

/// API 1.51, `HostConfig.LogConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// `json-file`, `local`, `none`; empty means the engine's default.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Options of the driver.
    pub config: BTreeMap<String, String>,
}

/// API 1.51, `RestartPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `no`, `always`, `unless-stopped`, `on-failure`; empty means `no`.
    pub name: String,
    /// For `on-failure`; 0 is unlimited.
    pub maximum_retry_count: i64,
}

/// API 1.51, `DeviceMapping`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceMapping {
    /// Path on the host; a directory stands for the devices in it.
    pub path_on_host: String,
    /// Path in the container.
    pub path_in_container: String,
    /// `rwm` or fewer of these.
    pub cgroup_permissions: String,
}

/// API 1.51, `DeviceRequest`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceRequest {
    /// Driver.
    pub driver: String,
    /// How many; -1 is all.
    pub count: i64,
    /// Or by id.
    #[serde(rename = "DeviceIDs")]
    pub device_ids: GoSlice<String>,
    /// An OR of ANDs of capabilities.
    pub capabilities: GoSlice<Vec<String>>,
    /// Options.
    pub options: BTreeMap<String, String>,
}

/// API 1.51, `Resources.BlkioWeightDevice`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WeightDevice {
    /// Device.
    pub path: String,
    /// Weight.
    pub weight: u16,
}

/// API 1.51, `ThrottleDevice`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ThrottleDevice {
    /// Device.
    pub path: String,
    /// Rate.
    pub rate: u64,
}

/// API 1.51, `Resources.Ulimits`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, lower case.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}
