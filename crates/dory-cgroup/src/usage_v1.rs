//! Counters of v1 trees.

use crate::control_file::{read, read_keyed, read_limit, read_number};
use crate::controller::Controller;
use crate::error::CgroupError;
use crate::group::{Place, subtree};
use crate::resources::DeviceNumber;
use crate::usage::{BlockIo, BlockIoUsage, CpuUsage, MemoryUsage, PidsUsage, Usage};

/// v1 writes "no limit" as the largest number of whole pages; anything near it is none.
const UNLIMITED: u64 = 1 << 62;

/// Nanoseconds of one tick in `cpuacct.stat` (`USER_HZ` is 100 in every Linux ABI in use).
const TICK: u64 = 10_000_000;

pub(crate) fn collect(place: &Place) -> Usage {
    let has = |controller| place.controllers.contains(&controller);
    Usage {
        cpu: (has(Controller::Cpu) || has(Controller::CpuAcct)).then(|| cpu(place)),
        memory: has(Controller::Memory).then(|| memory(place).ok()).flatten(),
        pids: has(Controller::Pids).then(|| pids(place).ok()).flatten(),
        block_io: has(Controller::BlkIo).then(|| block_io(place)),
    }
}

/// Time is in the cpuacct tree and throttling in the cpu tree, often but not always the same one.
fn cpu(place: &Place) -> CpuUsage {
    let group = place.limits_directory();
    let mut usage = CpuUsage::default();
    if place.controllers.contains(&Controller::CpuAcct) {
        usage.total = read_number(&group, "cpuacct.usage").unwrap_or(0);
        let modes = read_keyed(&group, "cpuacct.stat").unwrap_or_default();
        usage.user = modes.get("user").copied().unwrap_or(0) * TICK;
        usage.system = modes.get("system").copied().unwrap_or(0) * TICK;
        let per_cpu = read(&group, "cpuacct.usage_percpu").unwrap_or_default();
        usage.per_cpu = per_cpu.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
    }
    if place.controllers.contains(&Controller::Cpu) {
        let throttling = read_keyed(&group, "cpu.stat").unwrap_or_default();
        let value = |key: &str| throttling.get(key).copied().unwrap_or(0);
        usage.periods = value("nr_periods");
        usage.throttled_periods = value("nr_throttled");
        usage.throttled_time = value("throttled_time");
    }
    usage
}

fn memory(place: &Place) -> Result<MemoryUsage, CgroupError> {
    let group = place.limits_directory();
    Ok(MemoryUsage {
        usage: read_number(&group, "memory.usage_in_bytes")?,
        max_usage: read_number(&group, "memory.max_usage_in_bytes").ok(),
        limit: read_limit(&group, "memory.limit_in_bytes")?.filter(|&limit| limit < UNLIMITED),
        failures: read_number(&group, "memory.failcnt").unwrap_or(0),
        stats: read_keyed(&group, "memory.stat")?,
    })
}

fn pids(place: &Place) -> Result<PidsUsage, CgroupError> {
    let group = place.limits_directory();
    Ok(PidsUsage { current: read_number(&group, "pids.current")?, limit: read_limit(&group, "pids.max")? })
}

fn block_io(place: &Place) -> BlockIoUsage {
    let group = place.limits_directory();
    // With the BFQ scheduler its counters are the ones that move, else those of throttling.
    let first = |files: [&str; 2]| {
        let parsed = files.map(|file| parse_block_io(&read(&group, file).unwrap_or_default()));
        parsed.into_iter().find(|counters| !counters.is_empty()).unwrap_or_default()
    };
    BlockIoUsage {
        bytes: first(["blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"]),
        operations: first(["blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"]),
    }
}

/// Lines such as `8:0 Read 4096`; the line with the sum has no device.
fn parse_block_io(text: &str) -> Vec<BlockIo> {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let device = DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? };
        Some(BlockIo {
            device,
            operation: words.next()?.to_ascii_lowercase(),
            value: words.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(parse).collect()
}

/// v1 counts a kill at the victim's own group only.
pub(crate) fn oom_kills(place: &Place) -> u64 {
    let groups = subtree(&place.limits_directory()).unwrap_or_default();
    let kills = |group: &std::path::PathBuf| {
        read_keyed(group, "memory.oom_control").ok().and_then(|values| values.get("oom_kill").copied())
    };
    groups.iter().filter_map(kills).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_block_io() {
        let counters = parse_block_io("254:0 Read 4096\n254:0 Write 0\nTotal 4096\n");
        assert_eq!(counters.len(), 2);
        assert_eq!(
            counters[0],
            BlockIo {
                device: DeviceNumber { major: 254, minor: 0 },
                operation: "read".to_owned(),
                value: 4096
            }
        );
    }
}
