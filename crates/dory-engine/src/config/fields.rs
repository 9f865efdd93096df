//! Every field of a create's body, and what becomes of it: none is silently ignored.
//!
//! The tables are those of the API specification 1.51 (`ContainerConfig`, `HostConfig` with `Resources`,
//! `EndpointSettings`, `Mount`), and older fields that clients still send. A field that is added to a type must be added
//! here, with its fate, or the tests fail.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::*;
use crate::container::check;

/// What becomes of a field.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It does what it says.
    Honoured,
    /// It is kept and shown: on Linux, that is all that it is for.
    Kept,
    /// A create that has it is refused, and the message says so.
    Refused(&'static str),
    /// It is taken back with a warning, as dockerd does where a kernel lacks it.
    Discarded,
}
use Fate::{Discarded, Honoured, Kept, Refused};

type Table = Vec<(&'static str, Value, Fate)>;

fn container_fields() -> Table {
    vec![
        ("Hostname", json!("box"), Honoured),
        ("Domainname", json!("example.test"), Honoured),
        ("User", json!("nobody"), Honoured),
        // What the client did; the streams are attached by requests of their own.
        ("AttachStdin", json!(true), Kept),
        ("AttachStdout", json!(true), Kept),
        ("AttachStderr", json!(true), Kept),
        ("ExposedPorts", json!({"80/tcp": {}}), Honoured),
        ("Tty", json!(true), Honoured),
        ("OpenStdin", json!(true), Honoured),
        ("StdinOnce", json!(true), Honoured),
        ("Env", json!(["A=b"]), Honoured),
        ("Cmd", json!(["true"]), Honoured),
        ("Healthcheck", json!({"Test": ["CMD", "true"]}), Honoured),
        // Windows.
        ("ArgsEscaped", json!(true), Kept),
        ("Image", json!("busybox"), Honoured),
        ("Volumes", json!({"/data": {}}), Honoured),
        ("WorkingDir", json!("/tmp"), Honoured),
        ("Entrypoint", json!(["sh"]), Honoured),
        ("NetworkDisabled", json!(true), Honoured),
        ("MacAddress", json!("02:42:ac:11:00:99"), Honoured),
        // Of builders.
        ("OnBuild", json!(["RUN x"]), Kept),
        ("Labels", json!({"a": "b"}), Honoured),
        ("StopSignal", json!("SIGINT"), Honoured),
        ("StopTimeout", json!(3), Honoured),
        ("Shell", json!(["/bin/sh", "-c"]), Honoured),
    ]
}

fn host_fields() -> Table {
    let rate = json!([{"Path": "/dev/vda", "Rate": 1}]);
    vec![
        ("Binds", json!(["/a:/b"]), Honoured),
        ("ContainerIDFile", json!("/tmp/id"), Kept),
        ("LogConfig", json!({"Type": "json-file", "Config": {"max-size": "1m"}}), Honoured),
        ("NetworkMode", json!("none"), Honoured),
        ("PortBindings", json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}), Honoured),
        ("RestartPolicy", json!({"Name": "always", "MaximumRetryCount": 0}), Honoured),
        ("AutoRemove", json!(true), Honoured),
        // Refused where a volume would be made with it.
        ("VolumeDriver", json!("strange"), Honoured),
        ("VolumesFrom", json!(["other"]), Honoured),
        ("Mounts", json!([{"Type": "volume", "Target": "/x"}]), Honoured),
        ("ConsoleSize", json!([24, 80]), Honoured),
        // Facts for the runtime, which is built in.
        ("Annotations", json!({"a": "b"}), Kept),
        ("CapAdd", json!(["NET_ADMIN"]), Honoured),
        ("CapDrop", json!(["MKNOD"]), Honoured),
        ("CgroupnsMode", json!("host"), Honoured),
        ("Dns", json!(["192.0.2.1"]), Honoured),
        ("DnsOptions", json!(["ndots:1"]), Honoured),
        ("DnsSearch", json!(["example.test"]), Honoured),
        ("ExtraHosts", json!(["a:192.0.2.1"]), Honoured),
        ("GroupAdd", json!(["staff"]), Honoured),
        ("IpcMode", json!("private"), Honoured),
        ("Cgroup", json!("x"), Refused("cgroup mode: x")),
        ("Links", json!(["a:b"]), Honoured),
        ("OomScoreAdj", json!(1), Honoured),
        ("PidMode", json!("host"), Honoured),
        ("Privileged", json!(true), Honoured),
        ("PublishAllPorts", json!(true), Honoured),
        ("ReadonlyRootfs", json!(true), Honoured),
        ("SecurityOpt", json!(["no-new-privileges"]), Honoured),
        ("StorageOpt", json!({"size": "1G"}), Refused("--storage-opt")),
        ("Tmpfs", json!({"/run": ""}), Honoured),
        ("UTSMode", json!("host"), Honoured),
        ("UsernsMode", json!("host"), Honoured),
        ("ShmSize", json!(1), Honoured),
        ("Sysctls", json!({"net.core.somaxconn": "1"}), Honoured),
        ("Runtime", json!("strange"), Refused("runtime name: strange")),
        ("Isolation", json!("hyperv"), Refused("isolation")),
        ("MaskedPaths", json!(["/proc/x"]), Honoured),
        ("ReadonlyPaths", json!(["/proc/x"]), Honoured),
        ("CpuShares", json!(512), Honoured),
        ("Memory", json!(64 << 20), Honoured),
        ("CgroupParent", json!("/x"), Honoured),
        ("BlkioWeight", json!(300), Honoured),
        ("BlkioWeightDevice", json!([{"Path": "/dev/vda", "Weight": 10}]), Honoured),
        ("BlkioDeviceReadBps", rate.clone(), Honoured),
        ("BlkioDeviceWriteBps", rate.clone(), Honoured),
        ("BlkioDeviceReadIOps", rate.clone(), Honoured),
        ("BlkioDeviceWriteIOps", rate, Honoured),
        ("CpuPeriod", json!(50_000), Honoured),
        ("CpuQuota", json!(25_000), Honoured),
        ("CpuRealtimePeriod", json!(1), Refused("CpuRealtimePeriod")),
        ("CpuRealtimeRuntime", json!(1), Refused("CpuRealtimeRuntime")),
        ("CpusetCpus", json!("0"), Honoured),
        ("CpusetMems", json!("0"), Honoured),
        (
            "Devices",
            json!([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]),
            Honoured,
        ),
        ("DeviceCgroupRules", json!(["c 1:3 r"]), Honoured),
        (
            "DeviceRequests",
            json!([{"Driver": "", "Count": -1, "DeviceIDs": null, "Capabilities": [["gpu"]], "Options": {}}]),
            Refused("device driver"),
        ),
        ("KernelMemory", json!(1), Discarded),
        ("KernelMemoryTCP", json!(1), Discarded),
        ("MemoryReservation", json!(32 << 20), Honoured),
        ("MemorySwap", json!(-1), Honoured),
        ("MemorySwappiness", json!(20), Honoured),
        ("NanoCpus", json!(500_000_000), Honoured),
        ("OomKillDisable", json!(true), Honoured),
        ("Init", json!(true), Honoured),
        ("PidsLimit", json!(20), Honoured),
        ("Ulimits", json!([{"Name": "nofile", "Soft": 1, "Hard": 2}]), Honoured),
        ("CpuCount", json!(1), Refused("CpuCount")),
        ("CpuPercent", json!(1), Refused("CpuPercent")),
        ("IOMaximumIOps", json!(1), Refused("IOMaximumIOps")),
        ("IOMaximumBandwidth", json!(1), Refused("IOMaximumBandwidth")),
    ]
}

fn endpoint_fields() -> Table {
    vec![
        ("IPAMConfig", json!({"IPv4Address": "192.0.2.2"}), Honoured),
        ("Links", json!(["a:b"]), Honoured),
        ("MacAddress", json!("02:42:ac:11:00:99"), Honoured),
        ("Aliases", json!(["a"]), Honoured),
        ("DriverOpts", json!({"com.docker.network.endpoint.sysctls": ""}), Honoured),
        ("GwPriority", json!(1), Honoured),
        // Facts: clients send back what they were shown.
        ("NetworkID", json!("x"), Kept),
        ("EndpointID", json!("x"), Kept),
        ("Gateway", json!("192.0.2.1"), Kept),
        ("IPAddress", json!("192.0.2.2"), Kept),
        ("IPPrefixLen", json!(24), Kept),
        ("IPv6Gateway", json!("2001:db8::1"), Kept),
        ("GlobalIPv6Address", json!("2001:db8::2"), Kept),
        ("GlobalIPv6PrefixLen", json!(64), Kept),
        ("DNSNames", json!(["a"]), Kept),
    ]
}

/// Refusals of mounts come from `from_mount`, where types are taken apart.
fn mount_fields() -> Table {
    vec![
        ("Target", json!("/x"), Honoured),
        ("Source", json!("x"), Honoured),
        ("Type", json!("volume"), Honoured),
        ("ReadOnly", json!(true), Honoured),
        // macOS.
        ("Consistency", json!("cached"), Kept),
        (
            "BindOptions",
            json!({
                "Propagation": "rslave", "NonRecursive": true, "CreateMountpoint": true,
                "ReadOnlyNonRecursive": true, "ReadOnlyForceRecursive": true, "Subpath": "x",
            }),
            Honoured,
        ),
        (
            "VolumeOptions",
            json!({
                "NoCopy": true, "Labels": {"a": "b"}, "Subpath": "x",
                "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs"}},
            }),
            Honoured,
        ),
        ("ImageOptions", json!({"Subpath": "x"}), Honoured),
        ("TmpfsOptions", json!({"SizeBytes": 1, "Mode": 448, "Options": [["noexec"]]}), Honoured),
    ]
}

/// Reads the fields one by one and all at once, and compares with what comes back.
fn round_trip<T: Serialize + DeserializeOwned>(table: &Table) {
    let read = |fields: Map<String, Value>| -> Map<String, Value> {
        let value: T = json::from_value(Value::Object(fields)).unwrap();
        serde_json::to_value(value).unwrap().as_object().unwrap().clone()
    };
    let mut all = Map::new();
    for (name, sample, _) in table {
        let shown = read(Map::from_iter([((*name).to_owned(), sample.clone())]));
        assert_eq!(shown.get(*name), Some(sample), "`{name}` is not read");
        all.insert((*name).to_owned(), sample.clone());
    }
    let listed: BTreeSet<String> = all.keys().cloned().collect();
    let known: BTreeSet<String> = read(all).keys().cloned().collect();
    assert_eq!(known, listed, "a field of the type has no fate in the table");
}

#[test]
fn every_field_is_read_and_listed() {
    round_trip::<ContainerConfig>(&container_fields());
    round_trip::<HostConfig>(&host_fields());
    round_trip::<EndpointSettings>(&endpoint_fields());
    round_trip::<MountSpec>(&mount_fields());
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    let config: ContainerConfig = json::from_value(json!({"Image": "busybox", "Cmd": ["true"]})).unwrap();
    let volumes: HostConfig =
        json::from_value(json!({"VolumeDriver": "strange", "Binds": ["name:/x"]})).unwrap();
    assert!(check(&config, &volumes).unwrap_err().message().contains("volume plugin strange"));
    for (name, sample, fate) in host_fields() {
        let host: HostConfig = json::from_value(json!({name: sample})).unwrap();
        let outcome = check(&config, &host);
        match fate {
            Refused(text) => {
                let error = outcome.expect_err(name);
                assert!(error.message().contains(text), "`{name}`: {}", error.message());
                assert!(
                    matches!(
                        error.kind(),
                        crate::ErrorKind::Invalid
                            | crate::ErrorKind::NotFound
                            | crate::ErrorKind::NotImplemented
                    ),
                    "`{name}`"
                );
            }
            Honoured | Kept | Discarded => assert!(outcome.is_ok(), "`{name}`: {outcome:?}"),
        }
    }
}
