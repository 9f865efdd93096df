//! Which v1 control files hold which limit (kernel Documentation/admin-guide/cgroup-v1).

use crate::controller::Controller;
use crate::limits::{Setting, SettingsOf};
use crate::resources::{DeviceRate, Resources};

/// In the order of [`crate::limits_v2::TABLE`].
pub(crate) const TABLE: [SettingsOf; 5] = [
    (Controller::Memory, memory),
    (Controller::Cpu, cpu),
    (Controller::CpuSet, cpuset),
    (Controller::Pids, pids),
    (Controller::BlkIo, block_io),
];

fn memory(resources: &Resources) -> Vec<Setting> {
    let one = |what, file, value: Option<String>| value.map(|value| Setting::write(what, file, value));
    [
        one("memory", &["memory.limit_in_bytes"], resources.memory.map(|bytes| bytes.to_string())),
        one(
            "memory_swap",
            &["memory.memsw.limit_in_bytes"],
            resources.memory_swap.map(|bytes| bytes.to_string()),
        ),
        one(
            "memory_reservation",
            &["memory.soft_limit_in_bytes"],
            resources.memory_reservation.map(|bytes| bytes.to_string()),
        ),
        one(
            "memory_swappiness",
            &["memory.swappiness"],
            resources.memory_swappiness.map(|value| value.to_string()),
        ),
        one(
            "oom_kill_disable",
            &["memory.oom_control"],
            resources.oom_kill_disable.map(|disable| u8::from(disable).to_string()),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn cpu(resources: &Resources) -> Vec<Setting> {
    let shares = resources.cpu_shares.filter(|&shares| shares != 0);
    let mut settings: Vec<Setting> = shares
        .map(|shares| Setting::write("cpu_shares", &["cpu.shares"], shares.to_string()))
        .into_iter()
        .collect();
    if let Some((quota, period)) = resources.quota_and_period() {
        let what = quota_name(resources);
        settings.push(Setting::write(what, &["cpu.cfs_period_us"], period.to_string()));
        settings.push(Setting::write(what, &["cpu.cfs_quota_us"], quota.to_string()));
    }
    settings
}

/// The field by which a quota was asked for.
pub(crate) fn quota_name(resources: &Resources) -> &'static str {
    if resources.nano_cpus.is_some_and(|nano_cpus| nano_cpus > 0) {
        "nano_cpus"
    } else if resources.cpu_quota.is_some_and(|quota| quota != 0) {
        "cpu_quota"
    } else {
        "cpu_period"
    }
}

/// The same files on both versions.
pub(crate) fn cpuset(resources: &Resources) -> Vec<Setting> {
    let listed = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    let cpus =
        listed(&resources.cpuset_cpus).map(|list| Setting::write("cpuset_cpus", &["cpuset.cpus"], list));
    let mems =
        listed(&resources.cpuset_mems).map(|list| Setting::write("cpuset_mems", &["cpuset.mems"], list));
    cpus.into_iter().chain(mems).collect()
}

/// The same file on both versions.
pub(crate) fn pids(resources: &Resources) -> Vec<Setting> {
    let value = |limit: i64| if limit > 0 { limit.to_string() } else { "max".to_owned() };
    resources
        .pids_limit
        .map(|limit| Setting::write("pids_limit", &["pids.max"], value(limit)))
        .into_iter()
        .collect()
}

fn block_io(resources: &Resources) -> Vec<Setting> {
    let weight = resources.blkio_weight.filter(|&weight| weight != 0);
    let weight = weight.map(|weight| {
        Setting::write("blkio_weight", &["blkio.weight", "blkio.bfq.weight"], weight.to_string())
    });
    let of_devices = resources.blkio_weight_device.iter().map(|entry| {
        let files = &["blkio.weight_device", "blkio.bfq.weight_device"];
        Setting::write("blkio_weight_device", files, format!("{} {}", entry.device, entry.weight))
    });
    weight
        .into_iter()
        .chain(of_devices)
        .chain(rates(
            "blkio_device_read_bps",
            &["blkio.throttle.read_bps_device"],
            &resources.blkio_device_read_bps,
        ))
        .chain(rates(
            "blkio_device_write_bps",
            &["blkio.throttle.write_bps_device"],
            &resources.blkio_device_write_bps,
        ))
        .chain(rates(
            "blkio_device_read_iops",
            &["blkio.throttle.read_iops_device"],
            &resources.blkio_device_read_iops,
        ))
        .chain(rates(
            "blkio_device_write_iops",
            &["blkio.throttle.write_iops_device"],
            &resources.blkio_device_write_iops,
        ))
        .collect()
}

fn rates(
    what: &'static str,
    files: &'static [&'static str],
    rates: &[DeviceRate],
) -> impl Iterator<Item = Setting> + use<> {
    let lines: Vec<String> = rates.iter().map(|entry| format!("{} {}", entry.device, entry.rate)).collect();
    lines.into_iter().map(move |line| Setting::write(what, files, line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::DeviceNumber;

    fn all(resources: &Resources) -> Vec<Setting> {
        TABLE.iter().flat_map(|(_, settings)| settings(resources)).collect()
    }

    #[test]
    fn nothing_asked_for_writes_nothing() {
        assert_eq!(all(&Resources::default()), []);
    }

    #[test]
    fn maps_limits_to_files() {
        let resources = Resources {
            memory: Some(67_108_864),
            memory_swap: Some(-1),
            nano_cpus: Some(500_000_000),
            cpu_shares: Some(512),
            cpuset_cpus: Some("0-1".to_owned()),
            cpuset_mems: Some(String::new()),
            pids_limit: Some(-1),
            blkio_device_write_bps: vec![DeviceRate {
                device: DeviceNumber { major: 8, minor: 0 },
                rate: 1024,
            }],
            ..Resources::default()
        };
        let expected: [(&str, &'static [&'static str], &str); 8] = [
            ("memory", &["memory.limit_in_bytes"], "67108864"),
            ("memory_swap", &["memory.memsw.limit_in_bytes"], "-1"),
            ("cpu_shares", &["cpu.shares"], "512"),
            ("nano_cpus", &["cpu.cfs_period_us"], "100000"),
            ("nano_cpus", &["cpu.cfs_quota_us"], "50000"),
            ("cpuset_cpus", &["cpuset.cpus"], "0-1"),
            ("pids_limit", &["pids.max"], "max"),
            ("blkio_device_write_bps", &["blkio.throttle.write_bps_device"], "8:0 1024"),
        ];
        assert_eq!(
            all(&resources),
            expected.map(|(what, files, value)| Setting::write(what, files, value.to_owned()))
        );
    }
}
