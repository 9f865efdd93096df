//! A container's published ports: they belong to the endpoint that leads out.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use dory_net::{PortRequest, Publication};

use super::attach::SETUP_FAILED;
use crate::container::{Container, PublishedOn, Record};
use crate::engine::Inner;
use crate::spec::port;
use crate::{EngineError, Result};

impl Inner {
    /// Publishes the container's ports at the endpoint that leads out; without one nothing is published, as on an
    /// internal network.
    pub(super) fn publish_ports(&self, container: &Container) -> Result<Vec<OwnedFd>> {
        let record = container.record();
        let Some(target) = self.publishing_endpoint(&record) else { return Ok(Vec::new()) };
        let object = self.networks.by_id(&target.network).ok_or_else(|| {
            EngineError::not_found("the network on which ports are to be published is gone")
        })?;
        let requests = port_requests(&record, object.record.driver_options().host_binding)?;
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let bridge = object.bridge(self)?;
        let Publication { ports, sockets } =
            bridge.publish(&self.ports, target.address, &requests).map_err(|error| {
                let endpoint = record.run.iter().flat_map(|run| &run.endpoints);
                let id = endpoint
                    .into_iter()
                    .find(|place| place.network == target.network)
                    .map_or("", |place| place.endpoint_id.as_str());
                let name = record.name.as_str();
                EngineError::failed(
                    format!(
                        "{SETUP_FAILED}: driver failed programming external connectivity on endpoint {name} ({id})"
                    ),
                    error,
                )
            })?;
        container.update(|record| {
            if let Some(run) = &mut record.run {
                run.ports = ports;
                run.published_on = Some(target);
            }
        });
        Ok(sockets)
    }

    /// Takes the container's ports back.
    pub(super) fn unpublish_ports(&self, container: &Container) {
        let record = container.record();
        let Some(run) = &record.run else { return };
        let Some(target) = &run.published_on else { return };
        let bridge = self.networks.by_id(&target.network);
        let unpublished = bridge.map(|object| {
            object.bridge(self).map(|bridge| bridge.unpublish(&self.ports, target.address, &run.ports))
        });
        if let Some(Ok(Err(error))) = unpublished {
            tracing::warn!(container.id = %container.id, %error, "Cannot take published ports back");
        }
    }

    /// Lets the container's ports follow the endpoint that leads out. The reservations stay with the shim; sockets come
    /// back where ports were published for the first time.
    pub(super) fn move_ports(&self, container: &Container) -> Result<Vec<OwnedFd>> {
        let record = container.record();
        let Some(run) = &record.run else { return Ok(Vec::new()) };
        let (old, new) = (run.published_on.clone(), self.publishing_endpoint(&record));
        if old == new {
            return Ok(Vec::new());
        }
        let failed = |error| EngineError::failed("cannot move published ports", error);
        if run.ports.is_empty() {
            return self.publish_ports(container);
        }
        if let Some(new) = &new
            && let Some(object) = self.networks.by_id(&new.network)
        {
            object.bridge(self)?.forward_ports(new.address, &run.ports).map_err(failed)?;
        }
        if let Some(old) = &old
            && let Some(object) = self.networks.by_id(&old.network)
        {
            object.bridge(self)?.stop_forwarding(old.address, &run.ports).map_err(failed)?;
        }
        container.update(|record| {
            if let Some(run) = &mut record.run {
                run.published_on = new;
            }
        });
        Ok(Vec::new())
    }

    /// Where the container's ports are to be published.
    fn publishing_endpoint(&self, record: &Record) -> Option<PublishedOn> {
        self.by_way_out(record).into_iter().find_map(|place| {
            let address = place.endpoint.as_ref()?.ipv4.filter(|address| address.gateway.is_some())?;
            match address.address {
                IpAddr::V4(address) => Some(PublishedOn { network: place.network.clone(), address }),
                IpAddr::V6(_) => None,
            }
        })
    }
}

/// The ports of `-p`, and with `-P` any free port for each exposed one. Those that name no address are published on
/// `host_binding`.
fn port_requests(record: &Record, host_binding: Option<IpAddr>) -> Result<Vec<PortRequest>> {
    let mut requests = port::requests(&record.host_config.port_bindings)?;
    if record.host_config.publish_all_ports {
        for port in port::exposed(&record.config, &record.host_config)? {
            let known = |request: &PortRequest| {
                request.container_port == port.number && request.protocol == port.protocol
            };
            if !requests.iter().any(known) {
                requests.push(PortRequest {
                    protocol: port.protocol,
                    container_port: port.number,
                    host_address: Ipv4Addr::UNSPECIFIED,
                    host_ports: None,
                });
            }
        }
    }
    if let Some(IpAddr::V4(binding)) = host_binding {
        for request in requests.iter_mut().filter(|request| request.host_address.is_unspecified()) {
            request.host_address = binding;
        }
    }
    Ok(requests)
}
