//! `ContainerConfig`: what belongs to the image's author or the process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::json::{GoSlice, StrSlice};
use super::network::PortBinding;
use super::{RestartPolicy, is_zero};

/// Docker's `{}` values in `ExposedPorts` and `Volumes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Empty {}

/// Container port (`80/tcp`) to host bindings; `null` stands for "none".
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// API 1.51, `ContainerConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// Host name; empty means the short id.
    pub hostname: String,
    /// Domain name.
    pub domainname: String,
    /// `name`, `uid`, `name:group`, `uid:gid`; empty means root.
    pub user: String,
    /// The client wanted standard input attached.
    pub attach_stdin: bool,
    /// The client wanted standard output attached.
    pub attach_stdout: bool,
    /// The client wanted standard error attached.
    pub attach_stderr: bool,
    /// Ports that the image or `--expose` names, as `80/tcp`.
    #[serde(skip_serializing_if = "is_zero")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// A pseudo terminal.
    pub tty: bool,
    /// Keep standard input open.
    pub open_stdin: bool,
    /// Close it after the first attached client has gone.
    pub stdin_once: bool,
    /// `NAME=value`, or `NAME` alone to remove one of the image's.
    pub env: GoSlice<String>,
    /// The command, or the arguments of the entry point.
    pub cmd: StrSlice,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Windows only.
    #[serde(skip_serializing_if = "is_zero")]
    pub args_escaped: bool,
    /// The image as the client named it.
    pub image: String,
    /// Paths that become anonymous volumes.
    pub volumes: Option<BTreeMap<String, Empty>>,
    /// Working directory.
    pub working_dir: String,
    /// Entry point.
    pub entrypoint: StrSlice,
    /// Disables the network.
    #[serde(skip_serializing_if = "is_zero")]
    pub network_disabled: bool,
    /// Replaced by the endpoint's since API 1.44.
    #[serde(skip_serializing_if = "is_zero")]
    pub mac_address: String,
    /// Build triggers, from the image.
    pub on_build: GoSlice<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Signal that `stop` sends; empty means the image's or SIGTERM.
    #[serde(skip_serializing_if = "is_zero")]
    pub stop_signal: String,
    /// Seconds before `stop` kills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The shell of shell-form commands, from the image.
    #[serde(skip_serializing_if = "is_zero")]
    pub shell: StrSlice,
}

/// API 1.51, `HealthConfig`. Times are nanoseconds; zero inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `[]` inherits, `["NONE"]` disables, `["CMD", ...]` and `["CMD-SHELL", ...]` run.
    #[serde(skip_serializing_if = "is_zero")]
    pub test: GoSlice<String>,
    /// Time between checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time before a check counts as hung.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Failures before the container counts as unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Time in which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks during the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
}

/// The body of `POST /containers/{id}/update`: the limits, and the restart policy. A zero leaves a limit as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateConfig {
    /// Relative CPU weight.
    pub cpu_shares: i64,
    /// Memory limit, bytes.
    pub memory: i64,
    /// CPU limit in billionths of a CPU.
    pub nano_cpus: i64,
    /// Block I/O weight.
    pub blkio_weight: u16,
    /// CFS period, microseconds.
    pub cpu_period: i64,
    /// CFS quota, microseconds.
    pub cpu_quota: i64,
    /// Refused: no kernel with cgroup v2 has it.
    pub cpu_realtime_period: i64,
    /// Refused, as the period.
    pub cpu_realtime_runtime: i64,
    /// CPUs.
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
    /// Soft memory limit, bytes.
    pub memory_reservation: i64,
    /// Memory and swap, bytes; -1 is unlimited.
    pub memory_swap: i64,
    /// Tasks; -1 and 0 are unlimited.
    pub pids_limit: Option<i64>,
    /// Restart policy.
    pub restart_policy: RestartPolicy,
}
