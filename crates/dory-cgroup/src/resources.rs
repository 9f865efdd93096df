//! Limits as the API names them, and the conversions that v2 needs.

use serde::{Deserialize, Serialize};

use crate::device::DeviceRule;

/// Limits of a container; `None` is a limit that nobody asked for. Names and units follow Docker's `HostConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes of memory; -1 lifts the limit.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; -1 lifts the limit. The engine fills in Docker's default of twice the memory.
    pub memory_swap: Option<i64>,
    /// Bytes that reclaim spares as long as it can.
    pub memory_reservation: Option<u64>,
    /// 0 to 100; v1 only.
    pub memory_swappiness: Option<u64>,
    /// Stop instead of kill when memory runs out; v1 only.
    pub oom_kill_disable: Option<bool>,
    /// Relative weight of processor time, 2 to 262,144; 1024 is neutral.
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time per period; -1 lifts the limit.
    pub cpu_quota: Option<i64>,
    /// Length of the period in microseconds; 100,000 unless given.
    pub cpu_period: Option<u64>,
    /// Processors in billionths (`--cpus`); stands for a quota.
    pub nano_cpus: Option<i64>,
    /// Processors that may be used, such as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used.
    pub cpuset_mems: Option<String>,
    /// Number of tasks; 0 and below lift the limit.
    pub pids_limit: Option<i64>,
    /// Relative weight of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// The same for single devices.
    pub blkio_weight_device: Vec<DeviceWeight>,
    /// Bytes read per second.
    pub blkio_device_read_bps: Vec<DeviceRate>,
    /// Bytes written per second.
    pub blkio_device_write_bps: Vec<DeviceRate>,
    /// Read operations per second.
    pub blkio_device_read_iops: Vec<DeviceRate>,
    /// Write operations per second.
    pub blkio_device_write_iops: Vec<DeviceRate>,
    /// Devices that may be used, later rules over earlier ones, everything else denied; `None` leaves access alone.
    /// Taken at creation only.
    pub devices: Option<Vec<DeviceRule>>,
}

/// Number of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.major, self.minor)
    }
}

/// I/O weight of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceWeight {
    /// The device.
    pub device: DeviceNumber,
    /// 10 to 1000.
    pub weight: u16,
}

/// Limit of a block device, per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    /// The device.
    pub device: DeviceNumber,
    /// Bytes or operations per second; 0 lifts the limit.
    pub rate: u64,
}

/// Microseconds; the kernel's default (`cpu.cfs_period_us`).
const DEFAULT_PERIOD: u64 = 100_000;

impl Resources {
    /// Quota and period in microseconds, where either was asked for; a quota of -1 is none.
    pub(crate) fn quota_and_period(&self) -> Option<(i64, u64)> {
        let period = self.cpu_period.filter(|&period| period > 0);
        if let Some(nano_cpus) = self.nano_cpus.filter(|&nano_cpus| nano_cpus > 0) {
            let period = period.unwrap_or(DEFAULT_PERIOD);
            let quota = i128::from(nano_cpus) * i128::from(period) / 1_000_000_000;
            return Some((i64::try_from(quota).unwrap_or(i64::MAX), period));
        }
        let quota = self.cpu_quota.filter(|&quota| quota != 0);
        (quota.is_some() || period.is_some()).then(|| (quota.unwrap_or(-1), period.unwrap_or(DEFAULT_PERIOD)))
    }
}

/// v2's `cpu.weight` for v1's shares: 2, 1024 and 262,144 become 1, 100 and 10,000. The curve between them is the one
/// that runc has since 1.3.2 and crun since 1.23.
pub(crate) fn cpu_weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    let logarithm = f64::log2(shares as f64);
    let exponent = (logarithm * logarithm + 125.0 * logarithm) / 612.0 - 7.0 / 34.0;
    // The curve's ends are exact in real numbers only.
    (f64::powf(10.0, exponent).ceil() as u64).clamp(1, 10_000)
}

/// v2's `io.weight` (1 to 10,000) for v1's `blkio.weight` (10 to 1000), as runc converts it.
pub(crate) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

/// v2's `memory.swap.max` for v1's sum of memory and swap; `None` is a sum below the memory, or without a memory limit.
pub(crate) fn swap_limit(memory: Option<i64>, memory_swap: i64) -> Option<String> {
    match (memory, memory_swap) {
        (_, -1) => Some("max".to_owned()),
        (Some(memory), sum) if memory > 0 && sum >= memory => Some((sum - memory).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_weights() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        assert_eq!([io_weight(10), io_weight(500), io_weight(1000)], [1, 4950, 10_000]);
    }

    #[test]
    fn converts_swap() {
        for (memory, sum, expected) in [
            (Some(64), 128, Some("64")),
            (Some(64), 64, Some("0")),
            (Some(64), 32, None),
            (None, 32, None),
            (Some(-1), -1, Some("max")),
            (None, -1, Some("max")),
        ] {
            assert_eq!(swap_limit(memory, sum).as_deref(), expected, "{memory:?} {sum}");
        }
    }

    #[test]
    fn quota_comes_from_either_form() {
        let resources = |nano_cpus, cpu_quota, cpu_period| {
            Resources { nano_cpus, cpu_quota, cpu_period, ..Resources::default() }.quota_and_period()
        };
        assert_eq!(resources(Some(1_500_000_000), None, None), Some((150_000, 100_000)));
        assert_eq!(resources(None, Some(50_000), None), Some((50_000, 100_000)));
        assert_eq!(resources(None, Some(0), Some(20_000)), Some((-1, 20_000)));
        assert_eq!(resources(Some(0), Some(0), Some(0)), None);
    }
}
