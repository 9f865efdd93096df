//! A container's endpoints: taken before its start, made during it, given back at its end.

use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use dory_net::{Driver, Endpoint, EndpointConfig};
use dory_sys::fault_point;
use dory_types::NetworkId;

use super::object::NetworkObject;
use super::{BRIDGE, HOST, NONE};
use crate::config::EndpointSettings;
use crate::container::{Container, Record, RunEndpoint, random_bytes};
use crate::engine::Inner;
use crate::spec::namespace::{Mode, Modes};
use crate::{EngineError, Result};

/// Before errors that keep a container from its networks, as dockerd has it.
pub(super) const SETUP_FAILED: &str = "failed to set up container networking";

impl Inner {
    /// Takes a place in each of the container's networks: dockerd's own network first, then the one that the container
    /// was made for, then the others by name. Nothing is taken on failure.
    pub(crate) fn take_endpoints(&self, record: &Record) -> Result<Vec<RunEndpoint>> {
        let mut names: Vec<&String> = record.endpoints.keys().collect();
        names.sort_by_key(|name| (*name != BRIDGE, **name != record.host_config.network_mode));
        let mut taken = Vec::new();
        for name in names {
            match self.take_endpoint(record, name) {
                Ok(place) => taken.push(place),
                Err(error) => {
                    taken.iter().for_each(|place| self.give_back(record, place));
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    /// Takes a place in one network: membership, and addresses.
    pub(super) fn take_endpoint(&self, record: &Record, name: &str) -> Result<RunEndpoint> {
        let object = self.networks.find(name)?;
        object.join(&record.id)?;
        let wish = record.endpoints.get(name).cloned().unwrap_or_default();
        let addresses = self.take_addresses(&object, &wish).inspect_err(|_| object.leave(&record.id))?;
        Ok(RunEndpoint {
            name: object.record.name().to_owned(),
            network: object.record.id().clone(),
            endpoint_id: NetworkId::from_bytes(random_bytes()).to_string(),
            addresses,
            endpoint: None,
        })
    }

    fn take_addresses(&self, object: &NetworkObject, wish: &EndpointSettings) -> Result<Vec<IpAddr>> {
        if matches!(object.record.driver(), Driver::Host | Driver::Null) {
            return Ok(Vec::new());
        }
        object
            .segment(self)?
            .allocate(&wished_addresses(wish)?)
            .map_err(|error| EngineError::new(crate::ErrorKind::Forbidden, error.to_string()))
    }

    /// Gives a place back.
    pub(crate) fn give_back(&self, record: &Record, place: &RunEndpoint) {
        self.resolver.withdraw(&place.network, &record.id);
        let Some(object) = self.networks.by_id(&place.network) else { return };
        if !place.addresses.is_empty()
            && let Ok(segment) = object.segment(self)
        {
            segment.release(&place.addresses);
        }
        object.leave(&record.id);
    }

    /// Makes the endpoints in the container's network namespace, and publishes its ports. The sockets that come back hold
    /// the ports for as long as somebody holds them.
    pub(crate) fn connect_all(&self, container: &Container, netns: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
        let record = container.record();
        let places = record.run.as_ref().map(|run| run.endpoints.clone()).unwrap_or_default();
        let bridged = places.iter().filter(|place| !place.addresses.is_empty()).count();
        if bridged == 0 {
            dory_net::configure_loopback(netns)
                .map_err(|error| EngineError::failed("cannot set up the loopback interface", error))?;
        }
        for place in places.iter().filter(|place| !place.addresses.is_empty()) {
            // With one network, or where it comes first anyway, the routes are set with the interface.
            let endpoint = self.make_endpoint(container, &record, place, netns, bridged == 1)?;
            fault_point!("start.endpoint-made");
            set_endpoint(container, &place.name, endpoint);
        }
        if bridged > 1 {
            self.set_way_out(container, netns)?;
        }
        self.serve_names(container, netns)?;
        let sockets = self.publish_ports(container)?;
        fault_point!("start.ports-published");
        container.save()?;
        fault_point!("start.network-recorded");
        self.publish_connections(container);
        Ok(sockets)
    }

    /// Publishes that a container is in its networks.
    pub(crate) fn publish_connections(&self, container: &Container) {
        for place in container.record().run.iter().flat_map(|run| &run.endpoints) {
            self.publish_network("connect", &place.network, Some(container));
        }
    }

    /// Makes one endpoint.
    pub(super) fn make_endpoint(
        &self,
        container: &Container,
        record: &Record,
        place: &RunEndpoint,
        netns: BorrowedFd<'_>,
        default_route: bool,
    ) -> Result<Endpoint> {
        let object = self.object_of(place)?;
        let wish = record.endpoints.get(&place.name);
        let mac = wish.map(|wish| wish.mac_address.as_str()).filter(|mac| !mac.is_empty());
        let prefix = object.record.driver_options().interface_prefix;
        let interface = next_interface(&container.record(), &prefix);
        let config = EndpointConfig {
            mark: container.id.short().to_owned(),
            mac: mac.map(parse_mac).transpose()?,
            sysctls: wish
                .map(|wish| super::options::endpoint_sysctls(wish, &interface))
                .transpose()?
                .unwrap_or_default(),
            interface,
            addresses: place.addresses.clone(),
            link_local: wish.map(link_local_addresses).transpose()?.unwrap_or_default(),
            default_route,
        };
        object
            .segment(self)?
            .connect(netns, &config)
            .map_err(|error| EngineError::failed(SETUP_FAILED, error))
    }

    /// Sends what has no other way by the endpoint that leads out.
    pub(super) fn set_way_out(&self, container: &Container, netns: BorrowedFd<'_>) -> Result<()> {
        let record = container.record();
        let endpoints: Vec<&Endpoint> =
            self.by_way_out(&record).into_iter().filter_map(|place| place.endpoint.as_ref()).collect();
        dory_net::set_default_routes(netns, &endpoints)
            .map_err(|error| EngineError::failed(SETUP_FAILED, error))
    }

    pub(super) fn object_of(&self, place: &RunEndpoint) -> Result<Arc<NetworkObject>> {
        self.networks
            .by_id(&place.network)
            .ok_or_else(|| EngineError::not_found(format!("network {} not found", place.name)))
    }

    /// Gives back what the present run holds of networks, and takes its ports back. The interfaces go with their namespace;
    /// where another container lives in that too, they go now, before somebody else has their addresses.
    pub(crate) fn release_endpoints(&self, container: &Container) {
        let record = container.record();
        let Some(run) = &record.run else { return };
        self.unpublish_ports(container);
        self.resolver.detach(&record.id);
        fault_point!("release.ports-unpublished");
        if self.is_joined(&record) {
            let endpoints = run.endpoints.iter().filter_map(|place| place.endpoint.as_ref());
            for endpoint in endpoints.filter(|endpoint| !endpoint.host_interface.is_empty()) {
                if let Err(error) = dory_net::disconnect(endpoint) {
                    tracing::warn!(container.id = %container.id, %error, "Cannot delete a container's interface");
                }
            }
        }
        run.endpoints.iter().for_each(|place| self.give_back(&record, place));
    }

    /// True where another container that runs lives in this one's network namespace.
    fn is_joined(&self, record: &Record) -> bool {
        self.registry.all().iter().map(|other| other.record()).filter(|other| other.runs()).any(|other| {
            let mode = Modes::parse(&other.host_config).ok().map(|modes| modes.network);
            let reference = mode.as_ref().and_then(Mode::container);
            reference.is_some_and(|it| it == record.id.as_str() || it == record.name.as_str())
        })
    }

    /// Publishes an event of a network, with the container that it concerns.
    pub(crate) fn publish_network(&self, action: &str, id: &NetworkId, container: Option<&Container>) {
        let Some(object) = self.networks.by_id(id) else { return };
        let mut attributes = std::collections::BTreeMap::from([
            ("name".to_owned(), object.record.name().to_owned()),
            ("type".to_owned(), object.record.driver().to_string()),
        ]);
        if let Some(container) = container {
            attributes.insert("container".to_owned(), container.id.to_string());
        }
        self.events.publish("network", action, id.as_str(), attributes);
    }
}

/// Records what came of a place.
pub(super) fn set_endpoint(container: &Container, name: &str, endpoint: Endpoint) {
    container.update(|record| {
        let places = record.run.iter_mut().flat_map(|run| &mut run.endpoints);
        if let Some(place) = places.into_iter().find(|place| place.name == name) {
            place.endpoint = Some(endpoint);
        }
    });
}

/// The addresses that a container wants in a network.
pub(crate) fn wished_addresses(wish: &EndpointSettings) -> Result<Vec<IpAddr>> {
    let Some(wish) = &wish.ipam_config else { return Ok(Vec::new()) };
    let mut addresses = Vec::new();
    for (family, text, ipv4) in [("IPv4", &wish.ipv4_address, true), ("IPv6", &wish.ipv6_address, false)] {
        if text.is_empty() {
            continue;
        }
        let address = text.parse().ok().filter(|address: &IpAddr| address.is_ipv4() == ipv4);
        addresses
            .push(address.ok_or_else(|| EngineError::invalid(format!("invalid {family} address: {text}")))?);
    }
    Ok(addresses)
}

/// The link-local addresses that a container wants besides.
pub(super) fn link_local_addresses(wish: &EndpointSettings) -> Result<Vec<IpAddr>> {
    let texts = wish.ipam_config.iter().flat_map(|wish| wish.link_local_ips.iter());
    texts
        .map(|text| {
            text.parse().map_err(|_| EngineError::invalid(format!("invalid link-local IP address: {text}")))
        })
        .collect()
}

/// The MAC address that a container wants.
pub(crate) fn parse_mac(text: &str) -> Result<dory_net::MacAddress> {
    text.parse().map_err(|_| EngineError::invalid(format!("invalid MAC address: {text}")))
}

/// The name of the container's next interface: after every one that it has.
fn next_interface(record: &Record, prefix: &str) -> String {
    let places = record.run.iter().flat_map(|run| &run.endpoints);
    let numbers = places
        .filter_map(|place| place.endpoint.as_ref()?.interface.strip_prefix(prefix)?.parse::<u32>().ok());
    format!("{prefix}{}", numbers.max().map_or(0, |last| last.saturating_add(1)))
}

/// True where a network of this name gives a container no interface.
pub(super) fn has_no_interface(name: &str) -> bool {
    matches!(name, HOST | NONE)
}
