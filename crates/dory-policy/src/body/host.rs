//! `HostConfig` of API 1.51: what a container is given of the host.

use serde_json::{Map, Value};

use super::{exec, field, mount, network, resource, volume};
use crate::facts::Kind;
use crate::judge::{self, Judgement, dropped, free, is_zero, never};
use crate::pattern::{self, Pattern};
use crate::policy::{Choice, HostNamespace};
use crate::shape::Field;
use crate::shape::Shape::{Bool, Int, Object, Objects, ObjectsMap, Pair, Text, TextLists, TextMap, Texts};

static LOG: &[Field] = &[field("Type", Text, log_driver), field("Config", TextMap, log_options)];
static PORT: &[Field] = &[field("HostIp", Text, publish_address), field("HostPort", Text, publish_port)];
static RESTART: &[Field] = &[field("Name", Text, free), field("MaximumRetryCount", Int, free)];
static DEVICE: &[Field] = &[
    field("PathOnHost", Text, device),
    field("PathInContainer", Text, free),
    field("CgroupPermissions", Text, free),
];
static DEVICE_REQUEST: &[Field] = &[
    field("Driver", Text, free),
    field("Count", Int, free),
    field("DeviceIDs", Texts, free),
    field("Capabilities", TextLists, free),
    field("Options", TextMap, free),
];
static RATE: &[Field] = &[field("Path", Text, device), field("Rate", Int, free)];
static WEIGHT: &[Field] = &[field("Path", Text, device), field("Weight", Int, free)];
static ULIMIT: &[Field] = &[field("Name", Text, free), field("Soft", Int, free), field("Hard", Int, free)];

/// API 1.51, `HostConfig` with `Resources`.
pub(crate) static HOST: &[Field] = &[
    field("Binds", Texts, mount::binds),
    field("ContainerIDFile", Text, dropped),
    field("LogConfig", Object(LOG), free),
    field("NetworkMode", Text, network_mode),
    field("PortBindings", ObjectsMap(PORT), free),
    field("RestartPolicy", Object(RESTART), restart),
    field("AutoRemove", Bool, free),
    field("VolumeDriver", Text, volume::driver),
    field("VolumesFrom", Texts, volumes_from),
    field("Mounts", Objects(mount::MOUNT), mount::mounts),
    field("ConsoleSize", Pair, free),
    field("Annotations", TextMap, annotations),
    field("CapAdd", Texts, capabilities),
    field("CapDrop", Texts, free),
    field("CgroupnsMode", Text, cgroup_namespace),
    field("Dns", Texts, free),
    field("DnsOptions", Texts, free),
    field("DnsSearch", Texts, free),
    field("ExtraHosts", Texts, extra_hosts),
    field("GroupAdd", Texts, free),
    field("IpcMode", Text, ipc_mode),
    field("Cgroup", Text, never),
    field("Links", Texts, links),
    field("OomScoreAdj", Int, resource::oom_score),
    field("PidMode", Text, pid_mode),
    field("Privileged", Bool, exec::privileged),
    field("PublishAllPorts", Bool, publish_all),
    field("ReadonlyRootfs", Bool, free),
    field("SecurityOpt", Texts, security_options),
    field("StorageOpt", TextMap, never),
    field("Tmpfs", TextMap, free),
    field("UTSMode", Text, uts_mode),
    field("UsernsMode", Text, user_namespace),
    field("ShmSize", Int, resource::shared_memory),
    field("Sysctls", TextMap, sysctls),
    field("Runtime", Text, runtime),
    field("Isolation", Text, isolation),
    field("MaskedPaths", Texts, unmasked),
    field("ReadonlyPaths", Texts, unmasked),
    field("CpuShares", Int, free),
    field("Memory", Int, resource::memory),
    field("CgroupParent", Text, cgroup_parent),
    field("BlkioWeight", Int, free),
    field("BlkioWeightDevice", Objects(WEIGHT), free),
    field("BlkioDeviceReadBps", Objects(RATE), free),
    field("BlkioDeviceWriteBps", Objects(RATE), free),
    field("BlkioDeviceReadIOps", Objects(RATE), free),
    field("BlkioDeviceWriteIOps", Objects(RATE), free),
    field("CpuPeriod", Int, resource::quota),
    field("CpuQuota", Int, resource::quota),
    field("CpuRealtimePeriod", Int, never),
    field("CpuRealtimeRuntime", Int, never),
    field("CpusetCpus", Text, free),
    field("CpusetMems", Text, free),
    field("Devices", Objects(DEVICE), free),
    field("DeviceCgroupRules", Texts, device_rules),
    field("DeviceRequests", Objects(DEVICE_REQUEST), device_requests),
    field("KernelMemory", Int, dropped),
    field("KernelMemoryTCP", Int, dropped),
    field("MemoryReservation", Int, free),
    field("MemorySwap", Int, resource::swap),
    field("MemorySwappiness", Int, free),
    field("NanoCpus", Int, resource::cpus),
    field("OomKillDisable", Bool, resource::oom_kill),
    field("Init", Bool, free),
    field("PidsLimit", Int, resource::pids),
    field("Ulimits", Objects(ULIMIT), free),
    field("CpuCount", Int, dropped),
    field("CpuPercent", Int, dropped),
    field("IOMaximumIOps", Int, dropped),
    field("IOMaximumBandwidth", Int, dropped),
];

/// Refuses what is on no list of patterns; nothing at all is always allowed.
fn listed(judgement: &mut Judgement<'_>, list: &[Pattern], rule: &'static str, what: &str, text: &str) {
    if !text.is_empty() && !pattern::any(list, text) {
        judgement.refuse(rule, format!("the {what} {text:?} is not on the list"));
    }
}

/// Refuses a namespace of the host that is not on the list.
pub(crate) fn host_namespace(judgement: &mut Judgement<'_>, namespace: HostNamespace, what: &str) {
    if !judgement.policy.containers.host_namespaces.contains(&namespace) {
        judgement.refuse("containers.host-namespaces", format!("{what} may not be shared"));
    }
}

/// A mode of a namespace: the host's, another container's, or one of `others`.
fn mode(
    judgement: &mut Judgement<'_>,
    value: Value,
    namespace: HostNamespace,
    others: &[&str],
) -> Option<Value> {
    let mode = judge::text(value);
    if mode.is_empty() {
        return None;
    }
    if mode == "host" {
        host_namespace(judgement, namespace, &format!("the host's {namespace:?} namespace").to_lowercase());
    } else if let Some(name) = mode.strip_prefix("container:") {
        return judgement.referred(Kind::Container, name).map(|id| format!("container:{id}").into());
    } else if !others.contains(&mode.as_str()) {
        judgement.refuse("model", format!("the mode {mode:?} is not known"));
    }
    Some(mode.into())
}

fn pid_mode(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    mode(judgement, value, HostNamespace::Pid, &[])
}

fn ipc_mode(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    mode(judgement, value, HostNamespace::Ipc, &["private", "shareable", "none"])
}

fn uts_mode(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    mode(judgement, value, HostNamespace::Uts, &[])
}

fn user_namespace(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    mode(judgement, value, HostNamespace::User, &[])
}

fn cgroup_namespace(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    mode(judgement, value, HostNamespace::Cgroup, &["private"])
}

fn network_mode(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let mode = judge::text(value);
    if let Some(name) = mode.strip_prefix("container:") {
        return judgement.referred(Kind::Container, name).map(|id| format!("container:{id}").into());
    }
    match mode.as_str() {
        "" | "default" => Some(mode.into()),
        // `ns:/proc/1/ns/net` and whatever comes next.
        name if name.contains([':', '/']) => {
            judgement.refuse("model", format!("the network mode {name:?} is not known"));
            None
        }
        name => network::joined(judgement, name).map(Value::from),
    }
}

fn isolation(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if value.as_str() == Some("default") { None } else { never(judgement, value) }
}

fn capabilities(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let rules = &judgement.policy.containers;
    let mut granted = Vec::new();
    for wish in judge::texts(value) {
        let upper = wish.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
        let allowed = pattern::any(&rules.capabilities, &name);
        if allowed
            || judgement.choose(
                rules.other_capabilities,
                "containers.capabilities",
                &format!("the capability {name:?}"),
            )
        {
            granted.push(Value::from(name));
        }
    }
    Some(granted.into())
}

fn security_options(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let list = &judgement.policy.containers.security_options;
    let options = judge::texts(value);
    for option in &options {
        if !pattern::any(list, option) {
            let name: String = option.chars().take(40).collect();
            judgement.refuse(
                "containers.security-options",
                format!("the security option {name:?} is not on the list"),
            );
        }
    }
    Some(options.into())
}

/// Docker's client sends empty lists for `--security-opt systempaths=unconfined`, and nothing otherwise.
fn unmasked(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if !pattern::any(&judgement.policy.containers.security_options, "systempaths=unconfined") {
        judgement.refuse("containers.security-options", "paths of the kernel stay masked");
    }
    Some(value)
}

fn sysctls(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    keys(judgement, value, &judgement.policy.containers.sysctls, "containers.sysctls", "sysctl")
}

fn annotations(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    keys(judgement, value, &judgement.policy.containers.annotations, "containers.annotations", "annotation")
}

fn log_options(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    keys(judgement, value, &judgement.policy.containers.log_options, "containers.log-options", "log option")
}

fn keys(
    judgement: &mut Judgement<'_>,
    value: Value,
    list: &[Pattern],
    rule: &'static str,
    what: &str,
) -> Option<Value> {
    for key in value.as_object()?.keys() {
        listed(judgement, list, rule, what, key);
    }
    Some(value)
}

macro_rules! listed_judge {
    ($name:ident, $list:ident, $rule:literal, $what:literal) => {
        fn $name(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
            listed(judgement, &judgement.policy.containers.$list, $rule, $what, value.as_str()?);
            (!is_zero(&value)).then_some(value)
        }
    };
}
listed_judge!(device, devices, "containers.devices", "device");
listed_judge!(runtime, runtimes, "containers.runtimes", "runtime");
listed_judge!(cgroup_parent, cgroup_parents, "containers.cgroup-parents", "parent group");
listed_judge!(log_driver, log_drivers, "containers.log-drivers", "log driver");

/// Rules for device numbers reach what no path names.
fn device_rules(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if !is_zero(&value) && !pattern::any(&judgement.policy.containers.devices, "*") {
        judgement.refuse("containers.devices", "rules for devices by number are not allowed");
    }
    Some(value)
}

fn device_requests(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if is_zero(&value) {
        return None;
    }
    let choice = judgement.policy.containers.device_requests;
    judgement.choose(choice, "containers.device-requests", "`DeviceRequests`").then_some(value)
}

pub(crate) fn restart(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let rules = &judgement.policy.containers;
    let name = judge::field(value.as_object()?, "Name").to_owned();
    if pattern::any(&rules.restart, &name) || matches!(name.as_str(), "" | "no") {
        return Some(value);
    }
    let what = format!("the restart policy {name:?}");
    judgement.choose(rules.other_restart, "containers.restart", &what).then_some(value)
}

fn volumes_from(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let mut sources = Vec::new();
    for source in judge::texts(value) {
        let (name, mode) =
            source.split_once(':').map_or((source.as_str(), None), |(name, mode)| (name, Some(mode)));
        if mode.is_some_and(|mode| !matches!(mode, "ro" | "rw" | "z" | "Z")) {
            judgement.refuse("model", format!("the mode of {source:?} is not known"));
        }
        let Some(id) = judgement.referred(Kind::Container, name) else { continue };
        sources.push(mode.map_or(id.clone(), |mode| format!("{id}:{mode}")));
    }
    Some(sources.into())
}

/// Links are `CONTAINER:ALIAS`; dockerd's own form begins with a slash.
pub(crate) fn links(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let mut links = Vec::new();
    for link in judge::texts(value) {
        let (name, alias) = link.split_once(':').unwrap_or((&link, &link));
        if let Some(id) = judgement.referred(Kind::Container, name.trim_start_matches('/')) {
            links.push(format!("{id}:{alias}"));
        }
    }
    Some(links.into())
}

fn extra_hosts(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let choice = judgement.policy.networks.host_gateway;
    let mut hosts = judge::texts(value);
    hosts.retain(|host| {
        !host.ends_with("host-gateway") || judgement.choose(choice, "networks.host-gateway", "`host-gateway`")
    });
    Some(hosts.into())
}

fn publish_address(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let rules = &judgement.policy.networks;
    let address = judge::text(value);
    let named = if address.is_empty() { "0.0.0.0" } else { &address };
    if pattern::any(&rules.publish_addresses, named) {
        return Some(address.into());
    }
    let Some(default) = &rules.publish_default else {
        judgement.refuse("networks.publish-addresses", format!("ports may not be published on {named:?}"));
        return None;
    };
    judgement.change("networks.publish-default", format!("ports are published on {default}, not on {named}"));
    Some(default.as_str().into())
}

/// A port of the host, or `FIRST-LAST`; nothing and zero take a free one.
fn publish_port(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let text = judge::text(value);
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    if text.is_empty() || text == "0" {
        return Some(text.into());
    }
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok());
    let fits =
        match (judgement.policy.networks.publish_ports, digits(first).flatten(), digits(last).flatten()) {
            (Some((low, high)), Some(first), Some(last)) => low <= first && first <= last && last <= high,
            _ => false,
        };
    if !fits {
        judgement.refuse("networks.publish-ports", format!("the port {text:?} may not be published"));
    }
    Some(text.into())
}

/// Addresses of these ports cannot be named, so the default has to be allowed.
fn publish_all(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if is_zero(&value) {
        return None;
    }
    if !pattern::any(&judgement.policy.networks.publish_addresses, "0.0.0.0") {
        judgement.refuse(
            "networks.publish-addresses",
            "publishing all ports (-P) publishes them on every address; publish them one by one (-p 127.0.0.1::PORT)",
        );
    }
    Some(value)
}

/// What concerns all of it.
pub(crate) fn finish(judgement: &mut Judgement<'_>, host: &mut Map<String, Value>) {
    if judge::field(host, "NetworkMode").is_empty() || judge::field(host, "NetworkMode") == "default" {
        network::joined(judgement, "bridge");
    }
    // The runtime's own profile and masks are gone with it, which no list of options says.
    let privileged = host.get("Privileged").is_some_and(|value| !is_zero(value));
    if privileged && judgement.policy.containers.privileged != Choice::Allow {
        judgement.refuse("containers.privileged", "`Privileged` is not allowed");
    }
    // An ephemeral port without an address is published everywhere too: an absent `HostIp` has no judge.
    if let Some(Value::Object(ports)) = host.get_mut("PortBindings") {
        let bindings = ports.values_mut().filter_map(Value::as_array_mut).flatten();
        for binding in bindings.filter_map(Value::as_object_mut) {
            if !binding.contains_key("HostIp")
                && let Some(address) = publish_address(judgement, Value::from(""))
            {
                binding.insert("HostIp".to_owned(), address);
            }
        }
    }
    if !judgement.mounts.is_empty() {
        let mounts = host.entry("Mounts").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(mounts) = mounts {
            mounts.append(&mut judgement.mounts);
        }
    }
    resource::finish(judgement, host);
}
