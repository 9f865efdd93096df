//! Networks: `POST /networks/create`, `connect`, `disconnect`, and a container's endpoints, of API 1.51.

use serde_json::{Map, Value};

use super::{field, host, labels, mark};
use crate::facts::{Kind, Resolution};
use crate::judge::{self, Judgement, dropped, free, is_zero, never};
use crate::pattern;
use crate::shape::Field;
use crate::shape::Shape::{Bool, Int, Object, ObjectMap, Objects, Text, TextMap, Texts};

static ENDPOINT_IPAM: &[Field] = &[
    field("IPv4Address", Text, free),
    field("IPv6Address", Text, free),
    field("LinkLocalIPs", Texts, never),
];

/// API 1.51, `EndpointSettings`. What only answers have is dropped: clients send back what they were shown.
pub(crate) static ENDPOINT: &[Field] = &[
    field("IPAMConfig", Object(ENDPOINT_IPAM), free),
    field("Links", Texts, host::links),
    field("Aliases", Texts, free),
    field("MacAddress", Text, free),
    field("DriverOpts", TextMap, never),
    field("GwPriority", Int, free),
    field("NetworkID", Text, dropped),
    field("EndpointID", Text, dropped),
    field("Gateway", Text, dropped),
    field("IPAddress", Text, dropped),
    field("IPPrefixLen", Int, dropped),
    field("IPv6Gateway", Text, dropped),
    field("GlobalIPv6Address", Text, dropped),
    field("GlobalIPv6PrefixLen", Int, dropped),
    field("DNSNames", Texts, dropped),
];

/// API 1.51, `NetworkingConfig`.
pub(crate) static NETWORKING: &[Field] = &[field("EndpointsConfig", ObjectMap(ENDPOINT), endpoints)];

static IPAM_CONFIG: &[Field] = &[
    field("Subnet", Text, subnet),
    field("IPRange", Text, free),
    field("Gateway", Text, free),
    field("AuxiliaryAddresses", TextMap, free),
];

static IPAM: &[Field] = &[
    field("Driver", Text, ipam_driver),
    field("Config", Objects(IPAM_CONFIG), free),
    field("Options", TextMap, never),
];

static CONFIG_FROM: &[Field] = &[field("Network", Text, never)];

/// API 1.51, NetworkCreateRequest.
pub(crate) static CREATE: &[Field] = &[
    field("Name", Text, free),
    field("CheckDuplicate", Bool, free),
    field("Driver", Text, driver),
    field("Scope", Text, scope),
    field("EnableIPv4", Bool, free),
    field("EnableIPv6", Bool, free),
    field("Internal", Bool, free),
    field("Attachable", Bool, free),
    field("Ingress", Bool, never),
    field("ConfigOnly", Bool, never),
    field("ConfigFrom", Object(CONFIG_FROM), dropped),
    field("IPAM", Object(IPAM), free),
    field("Options", TextMap, options),
    field("Labels", TextMap, labels),
];

/// API 1.51, NetworkConnectRequest.
pub(crate) static CONNECT: &[Field] =
    &[field("Container", Text, container), field("EndpointConfig", Object(ENDPOINT), free)];

/// API 1.51, NetworkDisconnectRequest.
pub(crate) static DISCONNECT: &[Field] = &[field("Container", Text, container), field("Force", Bool, free)];

/// Options of bridges that concern that bridge only.
const OPTIONS: &[&str] = &[
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.driver.mtu",
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
];

fn options(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let Value::Object(options) = &value else { return None };
    let whole = judgement.policy.containers.host_namespaces.contains(&crate::policy::HostNamespace::Network);
    if let Some(option) = options.keys().find(|key| !whole && !OPTIONS.contains(&key.as_str())) {
        judgement.refuse("networks.options", format!("the option {option:?} reaches beyond the network"));
    }
    Some(value)
}

fn driver(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let name = judge::text(value);
    if name.is_empty() {
        return None;
    }
    if !pattern::any(&judgement.policy.networks.drivers, &name) {
        judgement.refuse("networks.drivers", format!("the network driver {name:?} is not on the list"));
    }
    Some(name.into())
}

fn ipam_driver(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if !matches!(value.as_str(), Some("" | "default")) {
        judgement.refuse("networks.drivers", "only the default address management is allowed");
    }
    None
}

fn scope(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if !matches!(value.as_str(), Some("" | "local")) {
        judgement.refuse("networks.drivers", "only networks of this machine are allowed");
    }
    None
}

/// Subnets are private ones: another one would draw the host's own traffic to those addresses into the bridge.
fn subnet(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    use std::net::IpAddr;
    let text = judge::text(value);
    if text.is_empty() {
        return None;
    }
    let private = text.split_once('/').and_then(|(address, length)| {
        let length: u8 = length.parse().ok()?;
        Some(match address.parse().ok()? {
            IpAddr::V4(address) => match address.octets() {
                [10, ..] => length >= 8,
                [172, second, ..] => (16..32).contains(&second) && length >= 12,
                [192, 168, ..] => length >= 16,
                _ => false,
            },
            IpAddr::V6(address) => address.segments()[0] & 0xfe00 == 0xfc00 && length >= 7,
        })
    });
    if private != Some(true) {
        judgement.refuse("networks.subnets", format!("{text:?} is no subnet of private addresses"));
    }
    Some(text.into())
}

fn container(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let name = judge::text(value);
    judgement.own(Kind::Container, &name).map(Value::from)
}

/// The network that a container joins, by id; `None` where it may not.
pub(crate) fn joined(judgement: &mut Judgement<'_>, name: &str) -> Option<String> {
    if let "bridge" | "none" = name {
        // Nobody can make a network of these names; the engine knows them by name only in some places.
        if name == "bridge" && !pattern::any(&judgement.policy.networks.join, name) {
            judgement.refuse("networks.join", "the network `bridge` is not on the list");
        }
        return Some(name.to_owned());
    }
    if name == "host" {
        host::host_namespace(judgement, crate::policy::HostNamespace::Network, "the host's network");
        return Some(name.to_owned());
    }
    match judgement.name(Kind::Network, name)? {
        Resolution::Own(id) | Resolution::Joined(id) => Some(id),
        Resolution::Shared { id, name } => {
            if !pattern::any(&judgement.policy.networks.join, &name) {
                judgement.refuse("networks.join", format!("the network {name:?} is not on the list"));
            }
            Some(id)
        }
        Resolution::Foreign | Resolution::Absent => {
            judgement.answer(404, "objects", Kind::Network.absent(name));
            None
        }
    }
}

/// Keys are names of networks, of which the mode of a new container is one.
fn endpoints(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let Value::Object(endpoints) = value else { return None };
    let mut joined_ones = Map::new();
    for (name, endpoint) in endpoints {
        let id = if name == "default" { Some(name) } else { joined(judgement, &name) };
        if let Some(id) = id
            && joined_ones.insert(id, endpoint).is_some()
        {
            judgement.answer(400, "model", "two endpoints are of one network".to_owned());
        }
    }
    Some(Value::Object(joined_ones))
}

/// The network as a whole.
pub(crate) fn finish(judgement: &mut Judgement<'_>, body: &mut Map<String, Value>) {
    let limit = judgement.policy.limits.networks;
    judgement.quota(Kind::Network, limit, "limits.networks");
    if body.get("Name").is_none_or(is_zero) {
        judgement.answer(400, "model", "a network needs a name".to_owned());
    }
    if !body.contains_key("Driver") && !pattern::any(&judgement.policy.networks.drivers, "bridge") {
        judgement.refuse("networks.drivers", "the network driver \"bridge\" is not on the list");
    }
    mark(judgement, body, &[]);
}
