//! `-p` and `--expose`.

use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::mounts::csv_fields;
use crate::flags::Arguments;

/// The ports of a container.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// `{"80/tcp": {}}`.
    pub(super) exposed: Map<String, Value>,
    /// `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`.
    pub(super) bindings: Map<String, Value>,
}

/// One value of `-p`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Publication {
    address: String,
    /// Empty for a port of the engine's choice.
    host: String,
    container: RangeInclusive<u16>,
    protocol: String,
}

/// Reads `-p` and `--expose`.
pub(super) fn ports(arguments: &Arguments) -> Result<Ports> {
    let mut ports = Ports::default();
    for text in arguments.list("publish") {
        let publication = publication(text).map_err(anyhow::Error::msg)?;
        for (container, host) in pairs(&publication) {
            let key = format!("{container}/{}", publication.protocol);
            ports.exposed.insert(key.clone(), json!({}));
            let binding = json!({ "HostIp": publication.address, "HostPort": host });
            if let Value::Array(bindings) = ports.bindings.entry(key).or_insert_with(|| json!([])) {
                bindings.push(binding);
            }
        }
    }
    for text in arguments.list("expose") {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        for port in range(port).with_context(|| format!("invalid range format for --expose: {text}"))? {
            ports.exposed.insert(format!("{port}/{protocol}"), json!({}));
        }
    }
    Ok(ports)
}

/// Container ports with their host ports; a host range for a single port is the engine's to choose from.
fn pairs(publication: &Publication) -> Vec<(u16, String)> {
    match range(&publication.host) {
        Some(host) if host.len() == publication.container.len() => {
            publication.container.clone().zip(host).map(|(port, host)| (port, host.to_string())).collect()
        }
        _ => publication.container.clone().map(|port| (port, publication.host.clone())).collect(),
    }
}

fn publication(text: &str) -> Result<Publication, String> {
    if text.contains('=') {
        return long_publication(text);
    }
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("Invalid proto: {protocol}"));
    }
    let (rest, container) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (address, host) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, host)) => (address, host.strip_prefix(':').unwrap_or(host)),
        None => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("Invalid ip address: {address}"));
    }
    if container.is_empty() {
        return Err("No port specified: <empty>".to_owned());
    }
    let container = range(container).ok_or_else(|| format!("Invalid containerPort: {container}"))?;
    if !host.is_empty() {
        let host_range = range(host).ok_or_else(|| format!("Invalid hostPort: {host}"))?;
        if container.len() > 1 && host_range.len() != container.len() {
            return Err(format!("Invalid ranges specified for container and host Ports: {text}"));
        }
    }
    Ok(Publication { address: address.to_owned(), host: host.to_owned(), container, protocol })
}

/// `target=80,published=8080,protocol=tcp`.
fn long_publication(text: &str) -> Result<Publication, String> {
    let (mut target, mut host, mut protocol) = (None, String::new(), "tcp".to_owned());
    for field in csv_fields(text).map_err(|error| error.to_string())? {
        match field.split_once('=') {
            Some(("target", value)) => target = range(value),
            Some(("published", value)) => host = value.to_owned(),
            Some(("protocol", value)) => protocol = value.to_ascii_lowercase(),
            Some(("mode" | "name" | "app_protocol", _)) => {}
            _ => return Err(format!("invalid field {field}")),
        }
    }
    let container = target.ok_or_else(|| "missing mandatory field \"target\"".to_owned())?;
    Ok(Publication { address: String::new(), host, container, protocol })
}

/// `80` or `80-90`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.parse().ok()?..=last.parse().ok()?;
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use serde_json::{Value, json};

    fn bindings(value: &str) -> Result<Value, String> {
        parse(&["-p", value, "x"]).map(|body| body["HostConfig"]["PortBindings"].clone())
    }

    #[test]
    fn reads_publications() {
        for (text, expected) in [
            ("80", json!({"80/tcp": [{"HostIp": "", "HostPort": ""}]})),
            ("8080:80", json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]})),
            ("127.0.0.1::80/udp", json!({"80/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}]})),
            ("[::1]:8080:80", json!({"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]})),
            ("8000-8010:80", json!({"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]})),
            (
                "90-91:80-81",
                json!({"80/tcp": [{"HostIp": "", "HostPort": "90"}], "81/tcp": [{"HostIp": "", "HostPort": "91"}]}),
            ),
            (
                "target=80,published=8080,protocol=udp",
                json!({"80/udp": [{"HostIp": "", "HostPort": "8080"}]}),
            ),
        ] {
            assert_eq!(bindings(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_broken_publications() {
        for (text, reason) in [
            ("x", "Invalid containerPort: x"),
            ("80:", "No port specified: <empty>"),
            ("x:80", "Invalid hostPort: x"),
            ("1.2.3:80:80", "Invalid ip address: 1.2.3"),
            ("80/xyz", "Invalid proto: xyz"),
            ("1-3:1-2", "Invalid ranges specified for container and host Ports: 1-3:1-2"),
            ("70000:80", "Invalid hostPort: 70000"),
        ] {
            assert_eq!(bindings(text), Err(reason.to_owned()));
        }
    }

    #[test]
    fn exposes_ranges() {
        let body = parse(&["--expose", "80-81/udp", "--expose", "5", "x"]).unwrap();
        assert_eq!(body["ExposedPorts"], json!({"5/tcp": {}, "80/udp": {}, "81/udp": {}}));
    }
}
