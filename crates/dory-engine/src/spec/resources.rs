//! `HostConfig`'s limits as the cgroup layer takes them.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use dory_cgroup::{DeviceNumber, DeviceRate, DeviceWeight, Resources};

use crate::EngineError;
use crate::config::{HostConfig, ThrottleDevice};

/// The kernel's bounds of `cpu.shares`; what lies outside it moves to the nearest one without a word, and runc complains.
const CPU_SHARES: std::ops::RangeInclusive<i64> = 2..=262_144;

/// What was asked for by name; zero values ask for nothing. Device rules are added by the caller.
pub(crate) fn resources(host: &HostConfig) -> Result<Resources, EngineError> {
    let positive = |value: i64| (value > 0).then_some(value as u64);
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let memory = (host.memory != 0).then_some(host.memory);
    Ok(Resources {
        memory,
        memory_swap: match (host.memory_swap, host.memory) {
            (0, memory) if memory > 0 => Some(memory.saturating_mul(2)),
            (0, _) => None,
            (swap, _) => Some(swap),
        },
        memory_reservation: positive(host.memory_reservation),
        memory_swappiness: host.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
        oom_kill_disable: host.oom_kill_disable.filter(|disable| *disable),
        cpu_shares: cpu_shares(host.cpu_shares)?,
        cpu_quota: (host.cpu_quota != 0).then_some(host.cpu_quota),
        cpu_period: positive(host.cpu_period),
        nano_cpus: (host.nano_cpus > 0).then_some(host.nano_cpus),
        cpuset_cpus: text(&host.cpuset_cpus),
        cpuset_mems: text(&host.cpuset_mems),
        pids_limit: host.pids_limit.filter(|limit| *limit != 0),
        blkio_weight: (host.blkio_weight != 0).then_some(host.blkio_weight),
        blkio_weight_device: host
            .blkio_weight_device
            .iter()
            .map(|entry| Ok(DeviceWeight { device: block_device(&entry.path)?, weight: entry.weight }))
            .collect::<Result<_, EngineError>>()?,
        blkio_device_read_bps: rates(&host.blkio_device_read_bps)?,
        blkio_device_write_bps: rates(&host.blkio_device_write_bps)?,
        blkio_device_read_iops: rates(&host.blkio_device_read_iops)?,
        blkio_device_write_iops: rates(&host.blkio_device_write_iops)?,
        devices: None,
    })
}

/// The texts are runc's, which dockerd passes on.
fn cpu_shares(shares: i64) -> Result<Option<u64>, EngineError> {
    let bounds = (CPU_SHARES.start(), CPU_SHARES.end());
    match shares {
        ..=0 => Ok(None),
        shares if shares < *bounds.0 => {
            Err(EngineError::internal(format!("the minimum allowed cpu-shares is {}", bounds.0)))
        }
        shares if shares > *bounds.1 => {
            Err(EngineError::internal(format!("the maximum allowed cpu-shares is {}", bounds.1)))
        }
        shares => Ok(Some(shares.unsigned_abs())),
    }
}

fn rates(devices: &[ThrottleDevice]) -> Result<Vec<DeviceRate>, EngineError> {
    devices
        .iter()
        .map(|entry| Ok(DeviceRate { device: block_device(&entry.path)?, rate: entry.rate }))
        .collect()
}

fn block_device(path: &str) -> Result<DeviceNumber, EngineError> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| EngineError::invalid(format!("no such device: \"{path}\"")).caused_by(error))?;
    if !metadata.file_type().is_block_device() {
        return Err(EngineError::invalid(format!("\"{path}\" is not a block device")));
    }
    Ok(DeviceNumber { major: rustix::fs::major(metadata.rdev()), minor: rustix::fs::minor(metadata.rdev()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_only_for_what_was_named() {
        assert_eq!(resources(&HostConfig::default()).unwrap(), Resources::default());
        let host = HostConfig {
            memory: 64 << 20,
            pids_limit: Some(20),
            nano_cpus: 500_000_000,
            ..HostConfig::default()
        };
        let expected = Resources {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            pids_limit: Some(20),
            nano_cpus: Some(500_000_000),
            ..Resources::default()
        };
        assert_eq!(resources(&host).unwrap(), expected);
        let unlimited = HostConfig { memory_swap: -1, pids_limit: Some(0), ..host };
        assert_eq!(resources(&unlimited).unwrap().memory_swap, Some(-1));
        assert_eq!(resources(&unlimited).unwrap().pids_limit, None);
    }

    #[test]
    fn refuses_what_is_no_block_device() {
        let limit = |path: &str| HostConfig {
            blkio_device_read_bps: vec![ThrottleDevice { path: path.to_owned(), rate: 1 }].into(),
            ..HostConfig::default()
        };
        assert!(resources(&limit("/nonexistent")).unwrap_err().message().contains("no such device"));
        assert!(resources(&limit("/dev/null")).unwrap_err().message().contains("not a block device"));
    }
}
