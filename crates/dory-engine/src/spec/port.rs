//! Ports as `-p` and `--expose` name them (go-connections `nat`).

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use dory_net::{PortRequest, Protocol};

use crate::EngineError;
use crate::config::{ContainerConfig, HostConfig, PortMap};

/// A container's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Port {
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
}

impl std::fmt::Display for Port {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.number, self.protocol)
    }
}

/// Reads `80/tcp`, or `80`.
pub(crate) fn parse_port(text: &str) -> Result<Port, EngineError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(EngineError::invalid(format!("invalid proto: {other}"))),
    };
    let number = number
        .parse()
        .map_err(|_| EngineError::invalid(format!("invalid port specification: \"{number}\"")))?;
    Ok(Port { number, protocol })
}

/// Reads a host port or a range of them; `None` is any.
fn parse_range(text: &str) -> Result<Option<RangeInclusive<u16>>, EngineError> {
    let invalid = || EngineError::invalid(format!("invalid port specification: \"{text}\""));
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
    if first > last { Err(invalid()) } else { Ok(Some(first..=last)) }
}

/// The address of this machine on which a port is published; without one it is to be had by IPv6 too.
fn parse_address(text: &str) -> Result<(IpAddr, bool), EngineError> {
    if text.is_empty() {
        return Ok((Ipv4Addr::UNSPECIFIED.into(), true));
    }
    match text.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(address) => Ok((address, false)),
        Err(_) => Err(EngineError::invalid(format!("invalid IP address: {text}"))),
    }
}

/// Every wish of `bindings`.
pub(crate) fn requests(bindings: &PortMap) -> Result<Vec<PortRequest>, EngineError> {
    let mut requests = Vec::new();
    for (key, bindings) in bindings {
        let port = parse_port(key)?;
        for binding in bindings.iter().flatten() {
            let (host_address, also_ipv6) = parse_address(&binding.host_ip)?;
            requests.push(PortRequest {
                protocol: port.protocol,
                container_port: port.number,
                host_address,
                also_ipv6,
                host_ports: parse_range(&binding.host_port)?,
            });
        }
    }
    Ok(requests)
}

/// Ports that the container shows: exposed or bound.
pub(crate) fn exposed(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<Port>, EngineError> {
    let keys = config.exposed_ports.keys().chain(host.port_bindings.keys());
    let mut ports = keys.map(|key| parse_port(key)).collect::<Result<Vec<_>, _>>()?;
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortBinding;

    fn bindings(key: &str, ip: &str, port: &str) -> PortMap {
        [(key.to_owned(), Some(vec![PortBinding { host_ip: ip.into(), host_port: port.into() }]))].into()
    }

    #[test]
    fn reads_bindings() {
        let request = &requests(&bindings("80/tcp", "127.0.0.1", "8000-8010")).unwrap()[0];
        assert_eq!((request.container_port, request.host_ports.clone()), (80, Some(8000..=8010)));
        assert_eq!(request.host_address, Ipv4Addr::LOCALHOST);
        let any = &requests(&bindings("53/udp", "", "")).unwrap()[0];
        assert_eq!((any.protocol, any.host_ports.clone()), (Protocol::Udp, None));
    }

    #[test]
    fn refuses_what_is_no_port() {
        for (key, ip, port) in
            [("x", "", ""), ("80/foo", "", ""), ("80", "1.2.3", ""), ("80", "", "9-8"), ("80", "", "70000")]
        {
            assert!(requests(&bindings(key, ip, port)).is_err(), "{key} {ip} {port}");
        }
    }
}
