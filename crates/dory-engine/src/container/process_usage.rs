//! What a container's processes use, added up: for numbers that no control group counts.

use std::collections::BTreeMap;
use std::fs;

use dory_cgroup::{CpuUsage, MemoryUsage, PidsUsage, Usage};

use super::stats::TICK_NANOSECONDS;

/// What one process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ProcessUsage {
    /// Ticks, with those of children that it has waited for.
    user: u64,
    system: u64,
    threads: u64,
    /// Bytes that belong to no file.
    memory: u64,
}

/// Puts sums over the processes `pids` in the place of what `usage` lacks. Processor time of a process that its parent
/// never waits for is gone with it; block devices are known of control groups only.
pub(super) fn complete(usage: &mut Usage, pids: impl FnOnce() -> Vec<i32>) {
    if usage.cpu.is_some() && usage.memory.is_some() && usage.pids.is_some() {
        return;
    }
    let all: Vec<ProcessUsage> = pids().into_iter().filter_map(ProcessUsage::read).collect();
    let sum = |of: fn(&ProcessUsage) -> u64| all.iter().map(of).sum::<u64>();
    usage.cpu.get_or_insert_with(|| {
        let user = sum(|process| process.user).saturating_mul(TICK_NANOSECONDS);
        let system = sum(|process| process.system).saturating_mul(TICK_NANOSECONDS);
        CpuUsage { total: user + system, user, system, ..CpuUsage::default() }
    });
    usage.memory.get_or_insert_with(|| {
        let memory = sum(|process| process.memory);
        let stats = BTreeMap::from([("rss".to_owned(), memory)]);
        MemoryUsage { usage: memory, stats, ..MemoryUsage::default() }
    });
    usage.pids.get_or_insert_with(|| PidsUsage { current: sum(|process| process.threads), limit: None });
}

impl ProcessUsage {
    /// `None` where it is gone.
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::parse(&stat, &status)
    }

    /// From proc_pid_stat(5) and proc_pid_status(5).
    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name is in parentheses and may hold anything, parentheses too.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let kibibytes = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0)
        };
        Some(Self {
            user: number(11)? + number(13)?,
            system: number(12)? + number(14)?,
            threads: number(17)?,
            memory: (kibibytes("RssAnon:") + kibibytes("RssShmem:")) << 10,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_prints() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 5 0 100 1000 200 18446744073709551615";
        let status =
            "Name:\ta\nVmRSS:\t     900 kB\nRssAnon:\t     300 kB\nRssFile:\t 500 kB\nRssShmem:\t 100 kB\n";
        let expected = ProcessUsage { user: 40, system: 60, threads: 5, memory: 400 << 10 };
        assert_eq!(ProcessUsage::parse(stat, status), Some(expected));
        // A kernel thread, or one that has just ended.
        assert_eq!(ProcessUsage::parse(stat, "Name:\ta\n").unwrap().memory, 0);
        assert_eq!(ProcessUsage::parse("7 (a", status), None);
    }

    #[test]
    fn fills_in_what_is_missing_only() {
        let own = std::process::id() as i32;
        let counted = PidsUsage { current: 99, limit: Some(100) };
        let mut usage = Usage { pids: Some(counted.clone()), ..Usage::default() };
        complete(&mut usage, || vec![own, i32::MAX]);
        assert_eq!(usage.pids, Some(counted));
        assert!(usage.memory.is_some_and(|memory| memory.usage > 100_000));
        let mut whole = Usage { cpu: Some(CpuUsage::default()), ..usage_of(own) };
        complete(&mut whole, || panic!("nobody needs them"));
        assert_eq!(whole.cpu, Some(CpuUsage::default()));
    }

    fn usage_of(pid: i32) -> Usage {
        let mut usage = Usage::default();
        complete(&mut usage, || vec![pid]);
        usage
    }
}
