//! The controllers that the engine uses.

use serde::{Deserialize, Serialize};

/// A kernel resource controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    /// Shares and quota of processor time.
    Cpu,
    /// Accounting of processor time; v1 only, on v2 every group accounts.
    CpuAcct,
    /// Processors and memory nodes that may be used.
    CpuSet,
    /// Memory and swap.
    Memory,
    /// Access to devices; v1 only, on v2 a BPF program does it.
    Devices,
    /// Stopping processes; v1 only, on v2 every group can.
    Freezer,
    /// Block devices: `blkio` on v1, `io` on v2.
    BlkIo,
    /// Number of tasks.
    Pids,
}

impl Controller {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Cpu,
        Self::CpuAcct,
        Self::CpuSet,
        Self::Memory,
        Self::Devices,
        Self::Freezer,
        Self::BlkIo,
        Self::Pids,
    ];

    /// Name as a v1 mount option.
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuAcct => "cpuacct",
            Self::CpuSet => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::BlkIo => "blkio",
            Self::Pids => "pids",
        }
    }

    /// Name in `cgroup.controllers`, where v2 has such a controller.
    pub(crate) fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::BlkIo => Some("io"),
            Self::CpuAcct | Self::Devices | Self::Freezer => None,
            other => Some(other.v1_name()),
        }
    }

    /// Those listed in the text of a `cgroup.controllers` file.
    pub(crate) fn parse_v2(text: &str) -> Vec<Self> {
        let listed = |controller: &Self| {
            controller.v2_name().is_some_and(|name| text.split_ascii_whitespace().any(|word| word == name))
        };
        Self::ALL.into_iter().filter(listed).collect()
    }
}
