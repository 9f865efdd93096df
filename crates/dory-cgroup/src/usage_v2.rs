//! Counters of the v2 tree.

use crate::control_file::{read, read_keyed, read_limit, read_number};
use crate::controller::Controller;
use crate::error::CgroupError;
use crate::group::Place;
use crate::resources::DeviceNumber;
use crate::usage::{BlockIo, BlockIoUsage, CpuUsage, MemoryUsage, PidsUsage, Usage};

pub(crate) fn collect(place: &Place) -> Usage {
    let has = |controller| place.controllers.contains(&controller);
    Usage {
        // Every v2 group accounts for time, with or without the controller.
        cpu: cpu(place).ok(),
        memory: has(Controller::Memory).then(|| memory(place).ok()).flatten(),
        pids: has(Controller::Pids).then(|| pids(place).ok()).flatten(),
        block_io: has(Controller::BlkIo).then(|| block_io(place).ok()).flatten(),
    }
}

fn cpu(place: &Place) -> Result<CpuUsage, CgroupError> {
    let values = read_keyed(&place.limits_directory(), "cpu.stat")?;
    let value = |key: &str| values.get(key).copied().unwrap_or(0);
    Ok(CpuUsage {
        total: value("usage_usec") * 1000,
        user: value("user_usec") * 1000,
        system: value("system_usec") * 1000,
        per_cpu: Vec::new(),
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: value("throttled_usec") * 1000,
    })
}

fn memory(place: &Place) -> Result<MemoryUsage, CgroupError> {
    let group = place.limits_directory();
    let events = read_keyed(&group, "memory.events").unwrap_or_default();
    Ok(MemoryUsage {
        usage: read_number(&group, "memory.current")?,
        max_usage: read_number(&group, "memory.peak").ok(),
        limit: read_limit(&group, "memory.max")?,
        failures: events.get("max").copied().unwrap_or(0),
        stats: read_keyed(&group, "memory.stat")?,
    })
}

fn pids(place: &Place) -> Result<PidsUsage, CgroupError> {
    let group = place.limits_directory();
    Ok(PidsUsage { current: read_number(&group, "pids.current")?, limit: read_limit(&group, "pids.max")? })
}

fn block_io(place: &Place) -> Result<BlockIoUsage, CgroupError> {
    Ok(parse_io_stat(&read(&place.limits_directory(), "io.stat")?))
}

/// Lines such as `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn parse_io_stat(text: &str) -> BlockIoUsage {
    let mut usage = BlockIoUsage::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let numbers = words.next().and_then(|word| word.split_once(':'));
        let Some((Ok(major), Ok(minor))) = numbers.map(|(major, minor)| (major.parse(), minor.parse()))
        else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut usage.bytes, "read"),
                "wbytes" => (&mut usage.bytes, "write"),
                "dbytes" => (&mut usage.bytes, "discard"),
                "rios" => (&mut usage.operations, "read"),
                "wios" => (&mut usage.operations, "write"),
                "dios" => (&mut usage.operations, "discard"),
                _ => continue,
            };
            let Ok(value) = value.parse() else { continue };
            list.push(BlockIo {
                device: DeviceNumber { major, minor },
                operation: operation.to_owned(),
                value,
            });
        }
    }
    usage
}

/// v2 counts kills beneath a group too.
pub(crate) fn oom_kills(place: &Place) -> u64 {
    let events = read_keyed(&place.limits_directory(), "memory.events").unwrap_or_default();
    events.get("oom_kill").copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_io_stat() {
        let usage =
            parse_io_stat("8:0 rbytes=4096 wbytes=1 rios=2 wios=3 dbytes=0 dios=0 cost.usage=9\nbroken\n");
        assert_eq!((usage.bytes.len(), usage.operations.len()), (3, 3));
        assert_eq!((usage.bytes[0].operation.as_str(), usage.bytes[0].value), ("read", 4096));
        assert_eq!((usage.operations[1].operation.as_str(), usage.operations[1].value), ("write", 3));
    }
}
