//! Facts of the engine's own surroundings that specs depend on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dory_runtime::spec::IdMapping;
use dory_seccomp::KernelVersion;

use super::capability;

/// The whole range of ids: what a process in the initial user namespace finds in its maps.
const FULL_RANGE: u32 = u32::MAX;

/// Read once, when the engine opens.
#[derive(Debug, Clone)]
pub(crate) struct HostFacts {
    pub(crate) kernel: KernelVersion,
    pub(crate) kernel_release: String,
    /// The engine's own maps, turned: every line as an identity over what the engine has.
    pub(crate) uid_mappings: Vec<IdMapping>,
    pub(crate) gid_mappings: Vec<IdMapping>,
    /// The engine's bounding set.
    pub(crate) capabilities: BTreeSet<String>,
    /// Everything that this kernel knows.
    pub(crate) all_capabilities: BTreeSet<String>,
    /// The engine's own `oom_score_adj`.
    pub(crate) oom_score_adj: i32,
    /// Open descriptors, soft and hard, of processes that name no limit; `None` inherits the engine's.
    pub(crate) descriptor_limit: Option<(u64, u64)>,
}

impl HostFacts {
    /// Reads them. What cannot be read counts as absent.
    pub(crate) fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let last: u32 = read("/proc/sys/kernel/cap_last_cap").trim().parse().unwrap_or(40);
        let all = u64::MAX >> (63 - last.min(63));
        Self {
            // A kernel whose release is no version has no rule of a profile that asks for one.
            kernel: release.parse().unwrap_or(KernelVersion { kernel: 0, major: 0 }),
            kernel_release: release,
            uid_mappings: identity(&read("/proc/self/uid_map")),
            gid_mappings: identity(&read("/proc/self/gid_map")),
            capabilities: capability::from_mask(bounding_set(&read("/proc/self/status")) & all),
            all_capabilities: capability::from_mask(all),
            descriptor_limit: None,
            oom_score_adj: read("/proc/self/oom_score_adj").trim().parse().unwrap_or(0),
        }
    }

    /// True where the engine itself runs in a user namespace with a part of the ids only: then there is nothing to
    /// give away, and confined containers share the engine's own ids.
    pub(crate) fn is_nested_in_user_namespace(&self) -> bool {
        let full =
            |maps: &[IdMapping]| matches!(maps, [map] if map.container_id == 0 && map.size == FULL_RANGE);
        !(full(&self.uid_mappings) && full(&self.gid_mappings))
    }
}

/// The lines of a `uid_map`, each mapped to itself.
fn identity(map: &str) -> Vec<IdMapping> {
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u32>().ok());
            let (inside, _, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
            Some(IdMapping { container_id: inside, host_id: inside, size })
        })
        .collect()
}

/// `CapBnd` of a status file.
fn bounding_set(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// The first id and the size of root's entry in /etc/subuid; `None` where there is none.
pub(crate) fn subordinate_range(path: &Path, user: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let names_user = matches!(fields.next()?, name if name == user || name == "0");
        let range = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        names_user.then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_maps_and_sets() {
        let maps = identity("         0    1000000      65536\n");
        assert_eq!(maps, [IdMapping { container_id: 0, host_id: 0, size: 65536 }]);
        assert_eq!(identity("0 0 4294967295\n")[0].size, u32::MAX);
        assert_eq!(bounding_set("Name:\tx\nCapBnd:\t00000000a80425fb\n"), 0xa804_25fb);
        assert!(!HostFacts::read().all_capabilities.is_empty());
    }

    #[test]
    fn finds_subordinate_ids() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "user:100000:65536\nroot:300000:1048576\n").unwrap();
        assert_eq!(subordinate_range(file.path(), "root"), Some((300_000, 1_048_576)));
        assert_eq!(subordinate_range(file.path(), "nobody"), None);
    }
}
