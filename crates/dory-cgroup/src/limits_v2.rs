//! Which v2 control files hold which limit (kernel Documentation/admin-guide/cgroup-v2).

use crate::controller::Controller;
use crate::limits::{Setting, SettingsOf};
use crate::limits_v1::{cpuset, pids, quota_name};
use crate::resources::{DeviceRate, Resources, cpu_weight, io_weight, swap_limit};

/// In the order of [`crate::limits_v1::TABLE`].
pub(crate) const TABLE: [SettingsOf; 5] = [
    (Controller::Memory, memory),
    (Controller::Cpu, cpu),
    (Controller::CpuSet, cpuset),
    (Controller::Pids, pids),
    (Controller::BlkIo, block_io),
];

fn memory(resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(bytes) = resources.memory {
        let value = if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
        settings.push(Setting::write("memory", &["memory.max"], value));
    }
    if let Some(sum) = resources.memory_swap.filter(|&sum| sum != 0) {
        settings.push(match swap_limit(resources.memory, sum) {
            Some(value) => Setting::write("memory_swap", &["memory.swap.max"], value),
            None => Setting::unsupported("memory_swap"),
        });
    }
    if let Some(bytes) = resources.memory_reservation {
        settings.push(Setting::write("memory_reservation", &["memory.low"], bytes.to_string()));
    }
    if resources.memory_swappiness.is_some() {
        settings.push(Setting::unsupported("memory_swappiness"));
    }
    if resources.oom_kill_disable == Some(true) {
        settings.push(Setting::unsupported("oom_kill_disable"));
    }
    settings
}

fn cpu(resources: &Resources) -> Vec<Setting> {
    let shares = resources.cpu_shares.filter(|&shares| shares != 0);
    let weight =
        shares.map(|shares| Setting::write("cpu_shares", &["cpu.weight"], cpu_weight(shares).to_string()));
    let quota = resources.quota_and_period().map(|(quota, period)| {
        let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
        Setting::write(quota_name(resources), &["cpu.max"], format!("{quota} {period}"))
    });
    weight.into_iter().chain(quota).collect()
}

fn block_io(resources: &Resources) -> Vec<Setting> {
    let weight = resources.blkio_weight.filter(|&weight| weight != 0);
    let weight =
        weight.map(|weight| Setting::write("blkio_weight", &["io.weight"], io_weight(weight).to_string()));
    let of_devices = resources.blkio_weight_device.iter().map(|entry| {
        let line = format!("{} {}", entry.device, io_weight(entry.weight));
        Setting::write("blkio_weight_device", &["io.weight"], line)
    });
    weight
        .into_iter()
        .chain(of_devices)
        .chain(rates("blkio_device_read_bps", "rbps", &resources.blkio_device_read_bps))
        .chain(rates("blkio_device_write_bps", "wbps", &resources.blkio_device_write_bps))
        .chain(rates("blkio_device_read_iops", "riops", &resources.blkio_device_read_iops))
        .chain(rates("blkio_device_write_iops", "wiops", &resources.blkio_device_write_iops))
        .collect()
}

fn rates(what: &'static str, key: &str, rates: &[DeviceRate]) -> Vec<Setting> {
    let line = |entry: &DeviceRate| match entry.rate {
        0 => format!("{} {key}=max", entry.device),
        rate => format!("{} {key}={rate}", entry.device),
    };
    rates.iter().map(|entry| Setting::write(what, &["io.max"], line(entry))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{DeviceNumber, DeviceWeight};

    #[test]
    fn tables_agree_on_the_order() {
        let controllers = TABLE.map(|(controller, _)| controller);
        assert_eq!(controllers, crate::limits_v1::TABLE.map(|(controller, _)| controller));
    }

    #[test]
    fn maps_limits_to_files() {
        let device = DeviceNumber { major: 8, minor: 16 };
        let resources = Resources {
            memory: Some(64),
            memory_swap: Some(128),
            memory_reservation: Some(32),
            memory_swappiness: Some(10),
            oom_kill_disable: Some(false),
            cpu_shares: Some(1024),
            cpu_period: Some(50_000),
            pids_limit: Some(20),
            blkio_weight: Some(1000),
            blkio_weight_device: vec![DeviceWeight { device, weight: 10 }],
            blkio_device_read_bps: vec![DeviceRate { device, rate: 0 }],
            blkio_device_write_iops: vec![DeviceRate { device, rate: 7 }],
            ..Resources::default()
        };
        let settings: Vec<Setting> = TABLE.iter().flat_map(|(_, settings)| settings(&resources)).collect();
        let write = |what, files, value: &str| Setting::write(what, files, value.to_owned());
        let expected = [
            write("memory", &["memory.max"], "64"),
            write("memory_swap", &["memory.swap.max"], "64"),
            write("memory_reservation", &["memory.low"], "32"),
            Setting::unsupported("memory_swappiness"),
            write("cpu_shares", &["cpu.weight"], "100"),
            write("cpu_period", &["cpu.max"], "max 50000"),
            write("pids_limit", &["pids.max"], "20"),
            write("blkio_weight", &["io.weight"], "10000"),
            write("blkio_weight_device", &["io.weight"], "8:16 1"),
            write("blkio_device_read_bps", &["io.max"], "8:16 rbps=max"),
            write("blkio_device_write_iops", &["io.max"], "8:16 wiops=7"),
        ];
        assert_eq!(settings, expected);
    }
}
