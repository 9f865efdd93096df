//! What a container has used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::controller::Controller;
use crate::group::Place;
use crate::resources::DeviceNumber;
use crate::{usage_v1, usage_v2};

/// A snapshot; `None` where no tree accounts for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time.
    pub cpu: Option<CpuUsage>,
    /// Memory.
    pub memory: Option<MemoryUsage>,
    /// Tasks.
    pub pids: Option<PidsUsage>,
    /// Block devices.
    pub block_io: Option<BlockIoUsage>,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUsage {
    /// All of it.
    pub total: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// By processor; v1 only, else empty.
    pub per_cpu: Vec<u64>,
    /// Periods that a quota was in force for.
    pub periods: u64,
    /// Those of them in which the quota ran out.
    pub throttled_periods: u64,
    /// Time waited for the next period.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// Now.
    pub usage: u64,
    /// The most so far, where the kernel keeps it (v1, and v2 since 5.19).
    pub max_usage: Option<u64>,
    /// The limit; `None` is none.
    pub limit: Option<u64>,
    /// How often the limit was hit (v1's `memory.failcnt`; v2's `max` event).
    pub failures: u64,
    /// The kernel's `memory.stat`, under its names.
    pub stats: BTreeMap<String, u64>,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsUsage {
    /// Now.
    pub current: u64,
    /// The limit; `None` is none.
    pub limit: Option<u64>,
}

/// Block I/O since the group was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockIoUsage {
    /// Bytes by device and operation.
    pub bytes: Vec<BlockIo>,
    /// Operations by device and operation.
    pub operations: Vec<BlockIo>,
}

/// One counter of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockIo {
    /// The device.
    pub device: DeviceNumber,
    /// `read`, `write` and others as the kernel calls them, in lower case.
    pub operation: String,
    /// Bytes or operations.
    pub value: u64,
}

/// Reads every counter that the places have.
pub(crate) fn collect(places: &[Place]) -> Usage {
    let mut usage = Usage::default();
    for place in places {
        let of_place = if place.is_v2 { usage_v2::collect(place) } else { usage_v1::collect(place) };
        usage.memory = usage.memory.or(of_place.memory);
        usage.pids = usage.pids.or(of_place.pids);
        usage.block_io = usage.block_io.or(of_place.block_io);
        usage.cpu = match (usage.cpu.take(), of_place.cpu) {
            // On v1 one tree counts time and another one throttling; an empty v2 tree beside them counts time as well.
            (Some(cpu), Some(other)) => Some(merge(cpu, other)),
            (cpu, other) => cpu.or(other),
        };
    }
    usage
}

fn merge(cpu: CpuUsage, other: CpuUsage) -> CpuUsage {
    let (first, second) = if cpu.total > 0 { (cpu, other) } else { (other, cpu) };
    CpuUsage {
        periods: first.periods.max(second.periods),
        throttled_periods: first.throttled_periods.max(second.throttled_periods),
        throttled_time: first.throttled_time.max(second.throttled_time),
        per_cpu: if first.per_cpu.is_empty() { second.per_cpu } else { first.per_cpu },
        ..first
    }
}

/// Processes killed for want of memory, in the container's groups and beneath.
pub(crate) fn oom_kills(place: &Place) -> u64 {
    debug_assert!(
        place.controllers.contains(&Controller::Memory),
        "the caller picks the memory controller's place"
    );
    if place.is_v2 { usage_v2::oom_kills(place) } else { usage_v1::oom_kills(place) }
}
