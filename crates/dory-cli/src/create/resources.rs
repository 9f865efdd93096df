//! Limits and devices.

use anyhow::{Result, bail};
use dory_types::ULIMIT_NAMES;
use serde_json::{Value, json};

use super::mounts::device_rates;
use super::{Object, bytes, bytes_or_unlimited};
use crate::flags::{Arguments, parse_int};

/// Sets the resources of `HostConfig`.
pub(super) fn set(arguments: &Arguments, host: &mut Object) -> Result<()> {
    host.set_some("Memory", bytes(arguments, "memory")?);
    host.set_some("MemoryReservation", bytes(arguments, "memory-reservation")?);
    host.set_some("MemorySwap", bytes_or_unlimited(arguments, "memory-swap")?);
    host.set_some("KernelMemory", bytes(arguments, "kernel-memory")?);
    host.set_some("ShmSize", bytes(arguments, "shm-size")?);
    host.set_some("NanoCpus", arguments.parsed("cpus", parse_cpus)?);
    for (field, flag) in [
        ("MemorySwappiness", "memory-swappiness"),
        ("CpuShares", "cpu-shares"),
        ("CpuPeriod", "cpu-period"),
        ("CpuQuota", "cpu-quota"),
        ("CpuRealtimePeriod", "cpu-rt-period"),
        ("CpuRealtimeRuntime", "cpu-rt-runtime"),
        ("PidsLimit", "pids-limit"),
        ("BlkioWeight", "blkio-weight"),
    ] {
        host.set_some(field, arguments.parsed(flag, parse_int)?);
    }
    host.set_some("CpusetCpus", arguments.value("cpuset-cpus"));
    host.set_some("CpusetMems", arguments.value("cpuset-mems"));
    host.set_some("OomKillDisable", arguments.on("oom-kill-disable").then_some(true));
    Ok(())
}

/// Sets what concerns devices, of `create` only.
pub(super) fn set_devices(arguments: &Arguments, host: &mut Object) -> Result<()> {
    // As `Dns`: Docker sends these two even when they are empty.
    host.set("BlkioWeightDevice", device_rates(arguments, "blkio-weight-device", "Weight")?);
    host.set_list("BlkioDeviceReadBps", &device_rates(arguments, "device-read-bps", "Rate")?);
    host.set_list("BlkioDeviceWriteBps", &device_rates(arguments, "device-write-bps", "Rate")?);
    host.set_list("BlkioDeviceReadIOps", &device_rates(arguments, "device-read-iops", "Rate")?);
    host.set_list("BlkioDeviceWriteIOps", &device_rates(arguments, "device-write-iops", "Rate")?);
    host.set_list("Ulimits", &arguments.parsed_list("ulimit", parse_ulimit)?);
    let devices: Result<Vec<_>> =
        arguments.list("device").iter().map(|device| parse_device(device)).collect();
    host.set("Devices", devices?);
    host.set_list("DeviceCgroupRules", arguments.list("device-cgroup-rule"));
    host.set_list("DeviceRequests", &arguments.parsed_list("gpus", parse_gpus)?);
    Ok(())
}

/// Billionths of a CPU from a decimal number, exactly: a float would turn 0.3 into 299999999.
fn parse_cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let digits = format!("{whole}{fraction:0<9}");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    digits.parse().map_err(|_| wrong())
}

fn parse_ulimit(text: &str) -> Result<Value, String> {
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !ULIMIT_NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (parse_int(soft)?, parse_int(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(json!({ "Name": name, "Soft": soft, "Hard": hard }))
}

/// `HOST[:CONTAINER[:PERMISSIONS]]`, or `HOST:PERMISSIONS`.
fn parse_device(text: &str) -> Result<Value> {
    let is_mode = |text: &str| !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter));
    let parts: Vec<_> = text.split(':').collect();
    let (host, container, permissions) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if is_mode(mode) => (*host, *container, *mode),
        [_, _, mode] => bail!("bad mode specified: {mode}"),
        _ => bail!("invalid device specification: {text}"),
    };
    if host.is_empty() {
        bail!("invalid device specification: {text}");
    }
    Ok(json!({ "PathOnHost": host, "PathInContainer": container, "CgroupPermissions": permissions }))
}

fn parse_gpus(text: &str) -> Result<Value, String> {
    let count = if text == "all" { -1 } else { parse_int(text)? };
    Ok(json!({ "Driver": "", "Count": count, "Capabilities": [["gpu"]] }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use serde_json::json;

    #[test]
    fn reads_limits() {
        let body = parse(&[
            "-m",
            "64m",
            "--memory-swap",
            "-1",
            "--cpus",
            "0.3",
            "--pids-limit",
            "-1",
            "--ulimit",
            "nofile=10:20",
            "--ulimit",
            "core=-1",
            "--device",
            "/dev/null:/dev/x:r",
            "--device",
            "/dev/zero:rw",
            "--shm-size",
            "1g",
            "--device-read-bps",
            "/dev/sda:1mb",
            "x",
        ])
        .unwrap();
        let host = &body["HostConfig"];
        for (field, expected) in [
            ("Memory", json!(64 << 20)),
            ("MemorySwap", json!(-1)),
            ("NanoCpus", json!(300_000_000)),
            ("PidsLimit", json!(-1)),
            ("ShmSize", json!(1 << 30)),
            ("BlkioDeviceReadBps", json!([{"Path": "/dev/sda", "Rate": 1 << 20}])),
            (
                "Ulimits",
                json!([{"Name": "nofile", "Soft": 10, "Hard": 20}, {"Name": "core", "Soft": -1, "Hard": -1}]),
            ),
            (
                "Devices",
                json!([
                    {"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"},
                    {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/zero", "CgroupPermissions": "rw"}
                ]),
            ),
        ] {
            assert_eq!(host[field], expected, "{field}");
        }
    }

    #[test]
    fn refuses_broken_limits() {
        for (flag, value, reason) in [
            ("--cpus", "x", "failed to parse x as a rational number"),
            ("--ulimit", "nope=1", "invalid ulimit type: nope"),
            ("--ulimit", "core=2:1", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
            ("--pids-limit", "x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ] {
            let message = format!("invalid argument \"{value}\" for \"{flag}\" flag: {reason}");
            assert_eq!(parse(&[flag, value, "x"]).unwrap_err(), message);
        }
        assert_eq!(parse(&["--device", "/dev/a:/b:q", "x"]).unwrap_err(), "bad mode specified: q");
    }
}
