//! `CpusetCpus` and `CpusetMems`: whether the machine has what they name (moby `verifyCpuset`).

use std::collections::BTreeSet;
use std::fs;

use crate::config::HostConfig;
use crate::{EngineError, Result};

/// The highest number in a list; what is beyond is a mistake (moby refuses more than the kernel's `NR_CPUS` limit).
const HIGHEST: u32 = 8191;

/// Refuses lists that are none, and CPUs and memory nodes that are not there.
pub(super) fn check(host: &HostConfig) -> Result<()> {
    one("cpus", "CPUs", &host.cpuset_cpus, "/sys/devices/system/cpu/online")?;
    one("mems", "memory nodes", &host.cpuset_mems, "/sys/devices/system/node/online")
}

fn one(field: &str, things: &str, wanted: &str, online: &str) -> Result<()> {
    let Some(list) = parse(wanted) else {
        return Err(EngineError::invalid(format!(
            "Invalid value {wanted} for cpuset {field}: invalid format: {wanted}"
        )));
    };
    // Without /sys, or with a kernel without memory nodes, the kernel itself refuses at the start.
    let Ok(text) = fs::read_to_string(online) else { return Ok(()) };
    let available = text.trim();
    match parse(available) {
        Some(present) if !list.is_subset(&present) => Err(EngineError::invalid(format!(
            "Requested {things} are not available - requested {wanted}, available: {available}"
        ))),
        _ => Ok(()),
    }
}

/// `0-2,7` (cpuset(7), "List format"); nothing is the empty set.
fn parse(text: &str) -> Option<BTreeSet<u32>> {
    let mut numbers = BTreeSet::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > HIGHEST {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists() {
        let cases = [
            ("", Some(vec![])),
            ("0", Some(vec![0])),
            ("0-2,7", Some(vec![0, 1, 2, 7])),
            ("x", None),
            ("1-", None),
            ("2-1", None),
            ("1,,2", None),
            ("0-99999999", None),
        ];
        for (text, numbers) in cases {
            assert_eq!(parse(text), numbers.map(|numbers| numbers.into_iter().collect()), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_there() {
        let host = |cpus: &str| HostConfig { cpuset_cpus: cpus.to_owned(), ..HostConfig::default() };
        assert!(check(&host("0")).is_ok());
        let message = check(&host("8000")).unwrap_err().message().to_owned();
        assert!(message.starts_with("Requested CPUs are not available - requested 8000"), "{message}");
        assert!(check(&host("x")).unwrap_err().message().starts_with("Invalid value x for cpuset cpus"));
    }
}
