//! `--network` and what belongs to it.

use std::net::IpAddr;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::Object;
use super::mounts::csv_fields;
use crate::flags::Arguments;

/// The networks that a container joins.
#[derive(Debug, Default)]
pub(super) struct Networks {
    /// `HostConfig.NetworkMode`.
    pub(super) mode: String,
    /// `NetworkingConfig.EndpointsConfig`.
    pub(super) endpoints: Map<String, Value>,
}

/// Reads `--network`, `--network-alias`, `--ip` and `--mac-address`.
pub(super) fn networks(arguments: &Arguments) -> Result<Networks> {
    let names = [arguments.list("network"), arguments.list("net")].concat();
    let mut networks = Networks { mode: "default".to_owned(), ..Default::default() };
    for (index, text) in names.iter().enumerate() {
        let (name, mut endpoint) = attachment(text)?;
        if index == 0 {
            networks.mode.clone_from(&name);
            set_shared(arguments, &mut endpoint);
        }
        if !endpoint.0.is_empty() || names.len() > 1 {
            networks.endpoints.insert(name, Value::Object(endpoint.0));
        }
    }
    if names.is_empty() {
        let mut endpoint = Object::default();
        set_shared(arguments, &mut endpoint);
        if !endpoint.0.is_empty() {
            networks.endpoints.insert("default".to_owned(), Value::Object(endpoint.0));
        }
    }
    let shared = ["network-alias", "net-alias"].iter().any(|flag| !arguments.list(flag).is_empty());
    if shared && is_predefined(&networks.mode) {
        bail!("network-scoped aliases are only supported for user-defined networks");
    }
    Ok(networks)
}

/// Networks that are there without anybody having made them.
fn is_predefined(mode: &str) -> bool {
    matches!(mode, "default" | "bridge" | "host" | "none") || mode.starts_with("container:")
}

/// An IP address, as `--dns` takes it.
///
/// # Errors
/// Docker's text.
pub(super) fn address(text: &str) -> Result<String, String> {
    match text.trim().parse::<IpAddr>() {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(_) => Err(format!("{text} is not an ip address")),
    }
}

/// Refuses lines for /etc/hosts and hardware addresses that are none.
pub(super) fn check_hosts(arguments: &Arguments) -> Result<()> {
    arguments.parsed_list("add-host", |text| match text.split_once([':', '=']) {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => Ok(()),
        _ => Err(format!("bad format for add-host: \"{text}\"")),
    })?;
    if let Some(address) = arguments.value("mac-address") {
        let pairs: Vec<_> = address.split([':', '-']).collect();
        if pairs.len() != 6
            || pairs.iter().any(|pair| pair.len() != 2 || u8::from_str_radix(pair, 16).is_err())
        {
            bail!("{address} is not a valid mac address");
        }
    }
    Ok(())
}

/// `NAME`, or `name=NAME,alias=…,ip=…`.
fn attachment(text: &str) -> Result<(String, Object)> {
    let mut endpoint = Object::default();
    if !text.contains('=') {
        return Ok((text.to_owned(), endpoint));
    }
    let (mut name, mut aliases, mut local, mut options, mut addresses) =
        (String::new(), Vec::new(), Vec::new(), Map::new(), Object::default());
    for field in csv_fields(text)? {
        match field.split_once('=') {
            Some(("name", value)) => name = value.to_owned(),
            Some(("alias", value)) => aliases.push(value.to_owned()),
            Some(("ip", value)) => addresses.set("IPv4Address", value),
            Some(("ip6", value)) => addresses.set("IPv6Address", value),
            Some(("gw-priority", value)) => match value.parse::<i64>() {
                Ok(priority) => endpoint.set("GwPriority", priority),
                Err(_) => bail!("invalid gw-priority '{value}' in the network '{text}'"),
            },
            Some(("link-local-ip", value)) => local.push(value.to_owned()),
            Some(("mac-address", value)) => endpoint.set("MacAddress", value),
            Some(("driver-opt", value)) => {
                let (key, value) = value.split_once('=').unwrap_or((value, ""));
                options.insert(key.to_owned(), value.into());
            }
            _ => bail!("invalid field '{field}' in the network '{text}'"),
        }
    }
    if name.is_empty() {
        bail!("network name/id is not specified");
    }
    endpoint.set_list("Aliases", &aliases);
    addresses.set_list("LinkLocalIPs", &local);
    endpoint.set_map("DriverOpts", options);
    endpoint.set_map("IPAMConfig", addresses.0);
    Ok((name, endpoint))
}

/// Adds the flags that stand beside `--network` and mean the first one.
fn set_shared(arguments: &Arguments, endpoint: &mut Object) {
    let mut addresses = Object::default();
    addresses.set_some("IPv4Address", arguments.value("ip"));
    addresses.set_some("IPv6Address", arguments.value("ip6"));
    addresses.set_list("LinkLocalIPs", arguments.list("link-local-ip"));
    endpoint.set_map("IPAMConfig", addresses.0);
    endpoint.set_list("Aliases", &[arguments.list("network-alias"), arguments.list("net-alias")].concat());
    endpoint.set_some("MacAddress", arguments.value("mac-address"));
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use serde_json::json;

    #[test]
    fn reads_networks() {
        for (line, mode, endpoints) in [
            (&["--network", "host", "x"][..], "host", json!({})),
            (
                &["--network", "n", "--ip", "10.0.0.5", "--network-alias", "a", "x"],
                "n",
                json!({"n": {"IPAMConfig": {"IPv4Address": "10.0.0.5"}, "Aliases": ["a"]}}),
            ),
            (
                &["--net", "name=n,alias=a,driver-opt=k=v", "x"],
                "n",
                json!({"n": {"Aliases": ["a"], "DriverOpts": {"k": "v"}}}),
            ),
            (&["--network", "a", "--network", "b", "x"], "a", json!({"a": {}, "b": {}})),
        ] {
            let body = parse(line).unwrap();
            assert_eq!(body["HostConfig"]["NetworkMode"], mode);
            assert_eq!(body["NetworkingConfig"]["EndpointsConfig"], endpoints);
        }
    }
}
