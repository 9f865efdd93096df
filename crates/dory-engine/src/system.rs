//! What the engine says of itself and of its host.

use serde::Serialize;

use crate::container::ContainerSummary;
use crate::image::ImageSummary;
use crate::volume::VolumeDetails;

/// The engine's facts behind `/info`; counts are at the time of the call.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SystemInfo {
    /// Stable id of the data-root.
    #[serde(rename = "ID")]
    pub id: String,
    /// Containers.
    pub containers: usize,
    /// Of these, running.
    pub containers_running: usize,
    /// Of these, paused.
    pub containers_paused: usize,
    /// Of these, not running.
    pub containers_stopped: usize,
    /// Images.
    pub images: usize,
    /// Storage driver.
    pub driver: String,
    /// Its facts.
    pub driver_status: Vec<[String; 2]>,
    /// Where state lies.
    pub docker_root_dir: String,
    /// The limits that this host's cgroups can enforce.
    pub memory_limit: bool,
    /// Swap.
    pub swap_limit: bool,
    /// CFS period.
    pub cpu_cfs_period: bool,
    /// CFS quota.
    pub cpu_cfs_quota: bool,
    /// Shares.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// Cpusets.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// Pids.
    pub pids_limit: bool,
    /// OOM killer can be disabled.
    pub oom_kill_disable: bool,
    /// IPv4 is forwarded.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// Default log driver.
    pub logging_driver: String,
    /// `none` or `cgroupfs`.
    pub cgroup_driver: String,
    /// `1` or `2`; empty for none.
    pub cgroup_version: String,
    /// Subscribers of events.
    pub n_events_listener: usize,
    /// Kernel's release.
    pub kernel_version: String,
    /// Distribution, from os-release.
    pub operating_system: String,
    /// Its version.
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// `x86_64`...
    pub architecture: String,
    /// CPUs.
    #[serde(rename = "NCPU")]
    pub ncpu: usize,
    /// Bytes of memory.
    pub mem_total: u64,
    /// Host name.
    pub name: String,
    /// Labels of the engine.
    pub labels: Vec<String>,
    /// Product's version.
    pub server_version: String,
    /// `name=seccomp,profile=builtin`...
    pub security_options: Vec<String>,
    /// What is missing.
    pub warnings: Vec<String>,
    /// The tier's name and what it cannot give, in words.
    pub tier: String,
    /// Every facility that the probe knows, with its result.
    pub facilities: Vec<[String; 2]>,
}

/// The engine's facts behind `/version`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VersionInfo {
    /// Product's version.
    pub version: String,
    /// Commit that it was built from.
    pub git_commit: String,
    /// Kernel's release.
    pub kernel_version: String,
    /// `linux`.
    pub os: String,
    /// Go's name of the architecture: `amd64`...
    pub arch: String,
}

/// API 1.51, the answer of `GET /system/df`.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DiskUsage {
    /// Bytes of all layers, each counted once.
    pub layers_size: i64,
    /// Images, with shared sizes and counts.
    pub images: Option<Vec<ImageSummary>>,
    /// Containers, with sizes.
    pub containers: Option<Vec<ContainerSummary>>,
    /// Volumes, with usage.
    pub volumes: Option<Vec<VolumeDetails>>,
}
