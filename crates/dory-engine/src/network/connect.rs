//! `POST /networks/{id}/connect` and `/disconnect`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dory_net::{Driver, Endpoint};
use dory_sys::fault_point;

use super::attach::{has_no_interface, link_local_addresses, parse_mac, set_endpoint, wished_addresses};
use super::object::NetworkObject;
use super::{HOST, NONE, is_predefined};
use crate::config::EndpointSettings;
use crate::container::{Container, Record};
use crate::engine::{Engine, Inner, blocking};
use crate::spec::namespace::{Mode, Modes};
use crate::{EngineError, ErrorKind, Result};

impl Engine {
    /// Joins a container to one more network, at once where it runs.
    ///
    /// # Errors
    /// `NotFound` for what does not exist, `Forbidden` where it is connected already or an address cannot be had,
    /// `Invalid` for what cannot be.
    pub async fn connect_network(
        &self,
        reference: &str,
        container: &str,
        wish: EndpointSettings,
    ) -> Result<()> {
        let object = self.inner.networks.find(reference)?;
        let container = self.inner.registry.find(container)?;
        let _lifecycle = container.lifecycle.lock().await;
        let inner = Arc::clone(&self.inner);
        let target = Arc::clone(&container);
        blocking(move || inner.connect_container(&object, &target, wish)).await
    }

    /// Takes a container out of a network, at once where it runs.
    ///
    /// # Errors
    /// `NotFound` for what does not exist, `Forbidden` where it is not connected, `Internal` for what the kernel refused.
    pub async fn disconnect_network(&self, reference: &str, container: &str, force: bool) -> Result<()> {
        let object = self.inner.networks.find(reference)?;
        let container = match self.inner.registry.find(container) {
            // Nothing of a container that is gone is left in any network.
            Err(error) if force && error.kind() == ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        let _lifecycle = container.lifecycle.lock().await;
        let inner = Arc::clone(&self.inner);
        let target = Arc::clone(&container);
        blocking(move || inner.disconnect_container(&object, &target)).await
    }
}

impl Inner {
    fn connect_container(
        &self,
        object: &Arc<NetworkObject>,
        container: &Container,
        wish: EndpointSettings,
    ) -> Result<()> {
        let record = container.record();
        let name = object.record.name().to_owned();
        refuse_removed(container, &record)?;
        check_combination(&record, &name)?;
        let wish = wanted(wish);
        self.check_endpoint(object, &wish)?;
        if record.endpoints.contains_key(&name) {
            return Err(EngineError::new(
                ErrorKind::Forbidden,
                format!("endpoint with name {} already exists in network {name}", record.name.as_str()),
            ));
        }
        container.update(|record| record.endpoints.insert(name.clone(), wish));
        let joined = match record.runs() {
            true => self.join_running(container, &name),
            false => Ok(()),
        };
        if joined.is_err() {
            container.update(|record| record.endpoints.remove(&name));
        }
        container.save()?;
        fault_point!("connect.recorded");
        joined
    }

    /// Joins a running container to the network `name`, for which its record has a wish. Undone on failure.
    fn join_running(&self, container: &Container, name: &str) -> Result<()> {
        let place = self.take_endpoint(&container.record(), name)?;
        container.update(|record| {
            if let Some(run) = &mut record.run {
                run.endpoints.push(place.clone());
            }
        });
        // Were the engine to die from here on, the next one would find whose the addresses are.
        let joined = container.save().and_then(|()| {
            fault_point!("connect.place-recorded");
            let netns = self.namespace_of(container)?;
            let endpoint =
                self.make_endpoint(container, &container.record(), &place, netns.as_fd(), false)?;
            fault_point!("connect.endpoint-made");
            set_endpoint(container, name, endpoint);
            self.after_change(container, &netns)
        });
        match joined {
            Ok(()) => self.publish_network("connect", &place.network, Some(container)),
            Err(_) => {
                let undone = self.leave_running(container, name);
                if let Err(error) = undone {
                    tracing::warn!(container.id = %container.id, %error, "Cannot undo a failed connect");
                }
            }
        }
        joined
    }

    fn disconnect_container(&self, object: &Arc<NetworkObject>, container: &Container) -> Result<()> {
        let record = container.record();
        let name = object.record.name().to_owned();
        refuse_removed(container, &record)?;
        let mode = Modes::parse(&record.host_config)?.network;
        if name == HOST || mode == Mode::Host {
            return Err(EngineError::invalid(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        if !record.endpoints.contains_key(&name) {
            return Err(EngineError::new(
                ErrorKind::Forbidden,
                format!("container {} is not connected to network {name}", container.id),
            ));
        }
        container.update(|record| record.endpoints.remove(&name));
        let left = match record.runs() {
            true => self.leave_running(container, &name),
            false => Ok(()),
        };
        container.save()?;
        if record.runs() {
            self.publish_network("disconnect", object.record.id(), Some(container));
        }
        left
    }

    /// Takes a running container out of the network `name`: way out and ports go elsewhere first, then the interface.
    fn leave_running(&self, container: &Container, name: &str) -> Result<()> {
        let record = container.record();
        let places = record.run.iter().flat_map(|run| &run.endpoints);
        let Some(place) = places.into_iter().find(|place| place.name == name).cloned() else {
            return Ok(());
        };
        container.update(|record| {
            if let Some(run) = &mut record.run {
                run.endpoints.retain(|place| place.name != name);
            }
        });
        let left = match &place.endpoint {
            Some(endpoint) => self.leave_by(container, endpoint),
            None => Ok(()),
        };
        self.give_back(&record, &place);
        left
    }

    /// Lets way out and ports go elsewhere, and then deletes the interface whatever came of that.
    fn leave_by(&self, container: &Container, endpoint: &Endpoint) -> Result<()> {
        let failed = "cannot delete the container's interface";
        let netns = self.namespace_of(container)?;
        let rerouted = self.after_change(container, &netns);
        fault_point!("disconnect.rerouted");
        let deleted = match endpoint.host_interface.as_str() {
            // It has no end but the container's.
            "" => dory_net::remove_interface(netns.as_fd(), endpoint)
                .map_err(|error| EngineError::failed(failed, error)),
            _ => dory_net::disconnect(endpoint).map_err(|error| EngineError::failed(failed, error)),
        };
        fault_point!("disconnect.interface-deleted");
        rerouted.and(deleted)
    }

    /// Lets way out and published ports follow a change of the container's endpoints.
    pub(super) fn after_change(&self, container: &Container, netns: &OwnedFd) -> Result<()> {
        self.set_way_out(container, netns.as_fd())?;
        self.serve_change(container, netns)?;
        crate::container::update_etc_files(self, container, &container.record())?;
        fault_point!("connect.way-out-set");
        let sockets = self.move_ports(container)?;
        if !sockets.is_empty() {
            // The shim holds the ports from here on, and so they outlive this engine.
            let held: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            container
                .shim()
                .network(&held)
                .map_err(|error| EngineError::failed("cannot hand the published ports to the shim", error))?;
        }
        container.save()
    }

    pub(super) fn namespace_of(&self, container: &Container) -> Result<OwnedFd> {
        let namespace = container
            .shim()
            .network(&[])
            .map_err(|error| EngineError::failed("cannot reach the container's network namespace", error))?;
        namespace.ok_or_else(|| {
            EngineError::internal(format!("container {} has no network namespace of its own", container.id))
        })
    }

    /// Refuses what the network cannot give (moby `daemon.validateEndpointSettings`).
    pub(crate) fn check_endpoint(&self, object: &NetworkObject, wish: &EndpointSettings) -> Result<()> {
        let record = &object.record;
        let addresses = wished_addresses(wish)?;
        if !wish.mac_address.is_empty() {
            parse_mac(&wish.mac_address)?;
        }
        super::options::endpoint_sysctls(wish, "eth0")?;
        link_local_addresses(wish)?;
        if is_predefined(record.name()) && !addresses.is_empty() {
            return Err(EngineError::invalid(
                "user specified IP address is supported on user defined networks only",
            ));
        }
        if is_predefined(record.name()) && !wish.aliases.is_empty() {
            return Err(EngineError::invalid(
                "network-scoped alias is supported only for containers in user defined networks",
            ));
        }
        for address in addresses {
            let family = |chosen: &&dory_net::NetworkSubnet| chosen.subnet.is_ipv4() == address.is_ipv4();
            let place = record.network.subnets.iter().find(family);
            if place.is_none() || !record.has_chosen_subnet(address.is_ipv4()) {
                return Err(EngineError::invalid(
                    "user specified IP address is supported only when connecting to networks with user configured \
                     subnets",
                ));
            }
        }
        Ok(())
    }
}

/// What of a request is a wish; the rest are facts of another time, which clients send back as they read them.
pub(crate) fn wanted(wish: EndpointSettings) -> EndpointSettings {
    EndpointSettings {
        ipam_config: wish.ipam_config,
        links: wish.links,
        aliases: wish.aliases,
        mac_address: wish.mac_address,
        driver_opts: wish.driver_opts,
        gw_priority: wish.gw_priority,
        ..EndpointSettings::default()
    }
}

fn refuse_removed(container: &Container, record: &Record) -> Result<()> {
    if container.live().removed || record.state.dead {
        return Err(EngineError::conflict(format!(
            "Container {} is marked for removal and cannot be connected or disconnected to the network",
            container.id
        )));
    }
    Ok(())
}

/// Which networks exclude one another (moby `daemon.updateNetworkConfig` and runconfig).
fn check_combination(record: &Record, name: &str) -> Result<()> {
    let refuse = |text: &str| Err(EngineError::invalid(text));
    let mode = Modes::parse(&record.host_config)?.network;
    if mode == Mode::Host || mode.container().is_some() {
        return refuse(
            "container sharing network namespace with another container or host cannot be connected to any other \
             network",
        );
    }
    if name == HOST {
        return refuse("container cannot be disconnected from host network or connected to host network");
    }
    let others = record.endpoints.keys().any(|other| other != name);
    if record.endpoints.contains_key(NONE) || (name == NONE && others) {
        return refuse(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        );
    }
    Ok(())
}

/// True where the network gives containers interfaces.
pub(super) fn gives_interfaces(object: &NetworkObject) -> bool {
    !has_no_interface(object.record.name()) && object.record.driver() != Driver::Null
}
