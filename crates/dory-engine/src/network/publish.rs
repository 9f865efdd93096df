//! A container's published ports: they belong to the endpoint that leads out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{MutexGuard, PoisonError};

use dory_net::{Endpoint, PortProxy, PortRequest, Publication, PublishTarget};
use dory_types::ContainerId;

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
        let Publication { ports, sockets, proxy } =
            bridge.publish(&self.ports, target.target, &requests).map_err(|error| {
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
        self.run_proxy(&container.id, proxy);
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
        self.proxies().remove(&container.id);
        let bridge = self.networks.by_id(&target.network);
        let unpublished = bridge.map(|object| {
            object.bridge(self).map(|bridge| bridge.unpublish(&self.ports, target.target, &run.ports))
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
            object.bridge(self)?.forward_ports(new.target, &run.ports).map_err(failed)?;
        }
        if let Some(old) = &old
            && let Some(object) = self.networks.by_id(&old.network)
        {
            object.bridge(self)?.stop_forwarding(old.target, &run.ports).map_err(failed)?;
        }
        // One proxy must go before another can have its ports.
        self.proxies().remove(&container.id);
        let target = new.as_ref().map(|new| new.target).unwrap_or_default();
        self.run_proxy(&container.id, PortProxy::bind(target, &run.ports));
        container.update(|record| {
            if let Some(run) = &mut record.run {
                run.published_on = new;
            }
        });
        Ok(Vec::new())
    }

    /// Passes connections on that the packet filter cannot, on a thread of its own, until the container's entry among the
    /// proxies is dropped.
    pub(super) fn run_proxy(&self, container: &ContainerId, proxy: PortProxy) {
        if proxy.is_empty() {
            return;
        }
        let started = UnixStream::pair().and_then(|(ours, theirs)| {
            let run = move || {
                if let Err(error) = proxy.run(theirs.as_fd()) {
                    tracing::warn!(%error, "A proxy of published ports ended");
                }
            };
            std::thread::Builder::new().name("port-proxy".to_owned()).spawn(run)?;
            Ok(OwnedFd::from(ours))
        });
        match started {
            Ok(stop) => drop(self.proxies().insert(container.clone(), stop)),
            Err(error) => {
                tracing::warn!(container.id = %container, %error, "Published ports cannot be had by IPv6");
            }
        }
    }

    /// What ends each container's proxy when dropped.
    fn proxies(&self) -> MutexGuard<'_, HashMap<ContainerId, OwnedFd>> {
        self.port_proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the container's ports are to be published.
    fn publishing_endpoint(&self, record: &Record) -> Option<PublishedOn> {
        self.by_way_out(record).into_iter().find_map(|place| {
            let target = publish_target(place.endpoint.as_ref()?);
            let network = place.network.clone();
            (target != PublishTarget::default()).then_some(PublishedOn { network, target })
        })
    }
}

/// The addresses of an endpoint to which ports may lead: those of networks with an outside.
fn publish_target(endpoint: &Endpoint) -> PublishTarget {
    let mut target = PublishTarget::default();
    if endpoint.host_interface.is_empty() {
        // On a parent interface the container has its own ports on the wire.
        return target;
    }
    for place in endpoint.addresses().filter(|place| place.gateway.is_some()) {
        match place.address {
            IpAddr::V4(address) => target.ipv4 = Some(address),
            IpAddr::V6(address) => target.ipv6 = Some(address),
        }
    }
    target
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
                    host_address: Ipv4Addr::UNSPECIFIED.into(),
                    also_ipv6: true,
                    host_ports: None,
                });
            }
        }
    }
    if let Some(binding) = host_binding {
        for request in requests.iter_mut().filter(|request| request.also_ipv6) {
            request.host_address = binding;
            request.also_ipv6 = false;
        }
    }
    Ok(requests)
}
