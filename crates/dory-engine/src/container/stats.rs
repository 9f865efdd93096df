//! What a running container uses.

use std::collections::BTreeMap;
use std::fs;

use dory_cgroup::{BlockIo, Usage};
use dory_types::{ContainerId, Timestamp};
use serde::Serialize;

use super::record::Record;
use crate::engine::blocking;
use crate::{Engine, Result};

/// Nanoseconds of one tick of `/proc/stat`: the kernel shows a hundred a second on every architecture (`USER_HZ`).
pub(super) const TICK_NANOSECONDS: u64 = 10_000_000;

/// API 1.51, `ContainerStatsResponse`, without what compares it to the sample before.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ContainerStats {
    /// When this was read; zero for a container that does not run.
    pub read: Timestamp,
    /// Tasks.
    pub pids_stats: PidsStats,
    /// Block devices.
    pub blkio_stats: BlkioStats,
    /// Windows only.
    pub num_procs: u32,
    /// Windows only.
    pub storage_stats: BTreeMap<String, u64>,
    /// Processor time.
    pub cpu_stats: CpuStats,
    /// Memory.
    pub memory_stats: MemoryStats,
    /// Name, with a slash.
    pub name: String,
    /// Id; `None` never leaves the engine.
    pub id: Option<ContainerId>,
    /// Interfaces by name; absent where the container does not run or has no network of its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, NetworkStats>,
}

/// API 1.51, `ContainerPidsStats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PidsStats {
    /// Now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// The limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// API 1.51, `ContainerBlkioStats`; the unused ones are v1's and mostly gone from the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlkioStats {
    /// Bytes.
    pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
    /// Operations.
    pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
    /// Unused.
    pub io_queue_recursive: Option<Vec<BlkioEntry>>,
    /// Unused.
    pub io_service_time_recursive: Option<Vec<BlkioEntry>>,
    /// Unused.
    pub io_wait_time_recursive: Option<Vec<BlkioEntry>>,
    /// Unused.
    pub io_merged_recursive: Option<Vec<BlkioEntry>>,
    /// Unused.
    pub io_time_recursive: Option<Vec<BlkioEntry>>,
    /// Unused.
    pub sectors_recursive: Option<Vec<BlkioEntry>>,
}

/// API 1.51, `ContainerBlkioStatEntry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// Device.
    pub major: u32,
    /// Device.
    pub minor: u32,
    /// `read`, `write`...
    pub op: String,
    /// Bytes or operations.
    pub value: u64,
}

/// API 1.51, `ContainerCPUStats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuStats {
    /// Of the container.
    pub cpu_usage: CpuUsage,
    /// Of the machine, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_cpu_usage: Option<u64>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online_cpus: Option<u32>,
    /// Of a quota.
    pub throttling_data: ThrottlingData,
}

/// API 1.51, `ContainerCPUUsage`, nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// All of it.
    pub total_usage: u64,
    /// By processor; cgroup v1 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_usage: Vec<u64>,
    /// In the kernel.
    pub usage_in_kernelmode: u64,
    /// In user mode.
    pub usage_in_usermode: u64,
}

/// API 1.51, `ContainerThrottlingData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ThrottlingData {
    /// Periods that a quota was in force for.
    pub periods: u64,
    /// Those in which it ran out.
    pub throttled_periods: u64,
    /// Nanoseconds waited.
    pub throttled_time: u64,
}

/// API 1.51, `ContainerMemoryStats`, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// Now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<u64>,
    /// The most so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_usage: Option<u64>,
    /// `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stats: BTreeMap<String, u64>,
    /// How often the limit was hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failcnt: Option<u64>,
    /// The limit, or all memory of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// API 1.51, `ContainerNetworkStats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NetworkStats {
    /// Received.
    pub rx_bytes: u64,
    /// Received.
    pub rx_packets: u64,
    /// Received.
    pub rx_errors: u64,
    /// Received.
    pub rx_dropped: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Sent.
    pub tx_errors: u64,
    /// Sent.
    pub tx_dropped: u64,
}

impl Engine {
    /// What the container uses at this moment; zeros where it does not run.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn container_stats(&self, reference: &str) -> Result<ContainerStats> {
        let record = self.inner.registry.find(reference)?.record();
        blocking(move || Ok(collect(&record))).await
    }
}

fn collect(record: &Record) -> ContainerStats {
    let identity = ContainerStats {
        name: record.name.with_slash(),
        id: Some(record.id.clone()),
        ..ContainerStats::default()
    };
    let Some(run) = record.present_run() else { return identity };
    let mut usage = run.group.usage();
    super::process_usage::complete(&mut usage, || super::top::pids(record).unwrap_or_default());
    let connected = run.endpoints.iter().any(|place| place.endpoint.is_some());
    let networks = match connected {
        true => fs::read_to_string(format!("/proc/{}/net/dev", record.state.pid)).unwrap_or_default(),
        false => String::new(),
    };
    ContainerStats {
        read: Timestamp::now(),
        cpu_stats: cpu_stats(&usage, &fs::read_to_string("/proc/stat").unwrap_or_default()),
        memory_stats: memory_stats(&usage),
        pids_stats: usage.pids.as_ref().map_or_else(PidsStats::default, |pids| PidsStats {
            current: Some(pids.current),
            limit: pids.limit,
        }),
        blkio_stats: blkio_stats(&usage),
        networks: network_stats(&networks),
        ..identity
    }
}

fn cpu_stats(usage: &Usage, proc_stat: &str) -> CpuStats {
    let (system, processors) = system_usage(proc_stat);
    let cpu = usage.cpu.clone().unwrap_or_default();
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: cpu.total,
            percpu_usage: cpu.per_cpu,
            usage_in_kernelmode: cpu.system,
            usage_in_usermode: cpu.user,
        },
        system_cpu_usage: Some(system),
        online_cpus: Some(processors),
        throttling_data: ThrottlingData {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_time,
        },
    }
}

/// Nanoseconds that all processors have spent in any way, and how many they are (proc_stat(5)).
fn system_usage(proc_stat: &str) -> (u64, u32) {
    let lines = || proc_stat.lines().filter(|line| line.starts_with("cpu"));
    let total = lines().next().unwrap_or_default();
    // The two times of guests are part of user time already.
    let ticks: u64 =
        total.split_whitespace().skip(1).take(8).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    (ticks.saturating_mul(TICK_NANOSECONDS), lines().skip(1).count() as u32)
}

fn memory_stats(usage: &Usage) -> MemoryStats {
    let Some(memory) = &usage.memory else { return MemoryStats::default() };
    let system = rustix::system::sysinfo();
    let total = system.totalram.saturating_mul(u64::from(system.mem_unit));
    MemoryStats {
        usage: Some(memory.usage),
        max_usage: memory.max_usage,
        stats: memory.stats.clone(),
        failcnt: Some(memory.failures).filter(|failures| *failures > 0),
        limit: Some(memory.limit.map_or(total, |limit| limit.min(total))),
    }
}

fn blkio_stats(usage: &Usage) -> BlkioStats {
    let entries = |counters: &[BlockIo]| {
        let entry = |counter: &BlockIo| BlkioEntry {
            major: counter.device.major,
            minor: counter.device.minor,
            op: counter.operation.clone(),
            value: counter.value,
        };
        Some(counters.iter().map(entry).collect())
    };
    let Some(block_io) = &usage.block_io else { return BlkioStats::default() };
    // Times of single processors are v1's; there the lists that the kernel fills no more are empty instead of missing.
    let of_v1 = usage.cpu.as_ref().is_some_and(|cpu| !cpu.per_cpu.is_empty());
    let unused = || of_v1.then(Vec::new);
    BlkioStats {
        io_service_bytes_recursive: entries(&block_io.bytes),
        io_serviced_recursive: entries(&block_io.operations),
        io_queue_recursive: unused(),
        io_service_time_recursive: unused(),
        io_wait_time_recursive: unused(),
        io_merged_recursive: unused(),
        io_time_recursive: unused(),
        sectors_recursive: unused(),
    }
}

/// Reads `/proc/<pid>/net/dev`: a name, a colon, eight numbers received and eight sent; without the loopback.
fn network_stats(net_dev: &str) -> BTreeMap<String, NetworkStats> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = numbers[..]
        else {
            return None;
        };
        let stats = NetworkStats {
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        };
        Some((name.trim().to_owned(), stats))
    };
    net_dev.lines().filter_map(interface).filter(|(name, _)| name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_prints() {
        let stat = "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        assert_eq!(system_usage(stat), (360 * TICK_NANOSECONDS, 2));
        let net = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                   eth0: 932 10 1 2 0 0 0 0 500 6 3 4 0 0 0 0\n";
        let networks = network_stats(net);
        assert_eq!(networks.len(), 1);
        let eth0 = &networks["eth0"];
        assert_eq!((eth0.rx_bytes, eth0.rx_dropped, eth0.tx_bytes, eth0.tx_dropped), (932, 2, 500, 4));
        assert!(network_stats("").is_empty());
    }

    #[test]
    fn prints_nothing_of_a_container_that_does_not_run() {
        let shown =
            serde_json::to_value(ContainerStats { name: "/web".to_owned(), ..Default::default() }).unwrap();
        assert_eq!(shown["pids_stats"], serde_json::json!({}));
        assert_eq!(shown["memory_stats"], serde_json::json!({}));
        assert_eq!(shown["blkio_stats"]["io_service_bytes_recursive"], serde_json::Value::Null);
        assert_eq!(shown["read"], "0001-01-01T00:00:00Z");
        assert!(shown.get("networks").is_none());
    }
}
