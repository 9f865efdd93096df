//! Legacy links (`--link`) on the default bridge: names in /etc/hosts, and the other container's ports and environment as
//! variables. On networks that people make, a link is a name that only this container may ask for.

use std::net::IpAddr;
use std::sync::Arc;

use dory_net::{ExtraHost, HostTarget};

use super::{BRIDGE, is_predefined};
use crate::config::{GoSlice, HostConfig, NetworkingConfig};
use crate::container::{Container, Record};
use crate::engine::Inner;
use crate::spec::port;
use crate::{EngineError, Result};

/// Variables that Docker does not pass on: they say nothing of the linked container.
const OWN_VARIABLES: [&str; 2] = ["HOME", "PATH"];

/// A link to a container that runs.
#[derive(Debug)]
pub(crate) struct Link {
    alias: String,
    address: IpAddr,
    target: Arc<Record>,
}

/// Reads `NAME`, `NAME:ALIAS`, or what inspect shows: `/NAME:/OWN/ALIAS`.
pub(crate) fn parse(text: &str) -> Result<(&str, &str)> {
    let invalid = || EngineError::invalid(format!("bad format for links: {text}"));
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    let name = name.trim_start_matches('/');
    let alias = alias.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || alias.is_empty() || alias.contains(':') {
        Err(invalid())
    } else {
        Ok((name, alias))
    }
}

impl Inner {
    /// Checks the links of a new container on the default bridge, and writes them as inspect shows them. Those of a
    /// container on another network belong to its endpoint there.
    pub(crate) fn resolve_links(
        &self,
        host: &mut HostConfig,
        networking: &mut NetworkingConfig,
        own_name: &str,
    ) -> Result<()> {
        if !is_predefined(&host.network_mode) && !host.links.is_empty() {
            let own = host.network_mode.clone();
            let wish = networking.endpoints_config.entry(own).or_default().get_or_insert_default();
            // The docker command sends them in both places.
            let mut links = wish.links.to_vec();
            links.extend(host.links.iter().filter(|link| !wish.links.contains(link)).cloned());
            wish.links = GoSlice(Some(links));
            host.links = GoSlice::default();
            return Ok(());
        }
        let mut links = Vec::new();
        for text in &host.links {
            let (name, alias) = parse(text)?;
            let target = self.registry.find(name).map_err(|error| {
                EngineError::invalid(format!("could not get container for {name}: {}", error.message()))
            })?;
            refuse_elsewhere(&target)?;
            links.push(format!("{}:/{own_name}/{alias}", target.record().name.with_slash()));
        }
        if !links.is_empty() {
            host.links = GoSlice(Some(links));
        }
        Ok(())
    }

    /// The links of a container that is about to run.
    pub(crate) fn links(&self, record: &Record) -> Result<Vec<Link>> {
        let on_bridge = record.endpoints.contains_key(BRIDGE);
        let texts = record.host_config.links.iter().filter(|_| on_bridge);
        texts.map(|text| self.link(record, text)).collect()
    }

    fn link(&self, record: &Record, text: &str) -> Result<Link> {
        let (name, alias) = parse(text)?;
        let container = self.registry.find(name)?;
        refuse_elsewhere(&container)?;
        let target = container.record();
        let places = target.present_run().into_iter().flat_map(|run| &run.endpoints);
        let address = places
            .into_iter()
            .find(|place| place.name == BRIDGE)
            .and_then(|place| place.addresses.first().copied());
        let own = record.name.as_str();
        let address = address.ok_or_else(|| {
            EngineError::conflict(format!(
                "Cannot link to a non running container: /{name} AS /{own}/{alias}"
            ))
        })?;
        Ok(Link { alias: alias.to_owned(), address, target })
    }
}

/// Only containers on the default bridge can be linked to from there.
fn refuse_elsewhere(target: &Container) -> Result<()> {
    let record = target.record();
    match record.endpoints.contains_key(BRIDGE) {
        true => Ok(()),
        false => Err(EngineError::invalid(format!(
            "Cannot link to {}, as it does not belong to the default network",
            record.name.with_slash()
        ))),
    }
}

impl Link {
    /// The line of /etc/hosts.
    pub(crate) fn host(&self) -> ExtraHost {
        let name = self.target.name.as_str();
        let mut names = vec![self.alias.as_str(), self.target.id.short()];
        if name != self.alias {
            names.push(name);
        }
        ExtraHost { name: names.join(" "), target: HostTarget::Address(self.address) }
    }

    /// The variables (moby `daemon/links`): the link's name, the exposed ports, and the other container's environment.
    pub(crate) fn environment(&self, own_name: &str) -> Vec<String> {
        let prefix = self.alias.to_ascii_uppercase().replace('-', "_");
        let mut env = vec![format!("{prefix}_NAME=/{own_name}/{}", self.alias)];
        let address = self.address;
        let ports = port::exposed(&self.target.config, &self.target.host_config).unwrap_or_default();
        if let Some(first) = ports.iter().min_by_key(|port| (port.number, port.protocol)) {
            env.push(format!("{prefix}_PORT={}://{address}:{}", first.protocol, first.number));
        }
        for port in ports {
            let (number, protocol) = (port.number, port.protocol.to_string());
            let key = format!("{prefix}_PORT_{number}_{}", protocol.to_ascii_uppercase());
            env.push(format!("{key}={protocol}://{address}:{number}"));
            env.push(format!("{key}_ADDR={address}"));
            env.push(format!("{key}_PORT={number}"));
            env.push(format!("{key}_PROTO={protocol}"));
        }
        for (name, value) in self.target.config.env.iter().filter_map(|entry| entry.split_once('=')) {
            if !OWN_VARIABLES.contains(&name) {
                env.push(format!("{prefix}_ENV_{name}={value}"));
            }
        }
        env
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_links() {
        for (text, expected) in [("db", ("db", "db")), ("db:d", ("db", "d")), ("/db:/web/d", ("db", "d"))] {
            assert_eq!(parse(text).unwrap(), expected);
        }
        for wrong in ["", ":", "a:", ":a", "a:b:c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
