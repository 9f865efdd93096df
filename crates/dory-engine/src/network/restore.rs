//! What an engine finds of networks when it opens.

use std::net::IpAddr;
use std::sync::Arc;

use dory_types::NetworkId;

use super::object::{NetworkObject, Segment};
use crate::container::{Container, RunEndpoint};
use crate::engine::Inner;

impl Inner {
    /// Takes addresses and ports that running containers have, and removes what no container claims. Networks that no
    /// container was in are not touched.
    pub(crate) fn restore_networks(&self, running: &[Arc<Container>], ended: &[Arc<Container>]) {
        let changed: Vec<_> = running.iter().filter(|container| forget_half_made(container)).collect();
        for object in self.networks.all() {
            let id = object.record.id();
            let had = running.iter().chain(ended).any(|container| place_in(container, id).is_some());
            if had && super::connect::gives_interfaces(&object) {
                self.restore_network(&object, running);
            }
        }
        for container in running {
            let record = container.record();
            for place in record.run.iter().flat_map(|run| &run.endpoints) {
                let joined = self.networks.by_id(&place.network).map(|object| object.join(&record.id));
                if !matches!(joined, Some(Ok(()))) {
                    tracing::warn!(container.id = %record.id, network = place.name, "A running container's network is gone");
                }
            }
            self.serve_names_again(container);
        }
        self.sweep_endpoints(running);
        for container in changed {
            // Its way out may have been the network that it is not in after all.
            let settled = self.namespace_of(container).and_then(|netns| self.after_change(container, &netns));
            if let Err(error) = settled {
                tracing::warn!(container.id = %container.id, %error, "Cannot undo a connect that was cut short");
            }
        }
    }

    /// Removes the interfaces that no running container claims, in every network.
    fn sweep_endpoints(&self, running: &[Arc<Container>]) {
        let endpoints = |container: &Arc<Container>| -> Vec<String> {
            let record = container.record();
            let places = record.run.iter().flat_map(|run| &run.endpoints);
            places.filter_map(|place| Some(place.endpoint.as_ref()?.host_interface.clone())).collect()
        };
        let live: Vec<String> = running.iter().flat_map(endpoints).collect();
        if let Err(error) = dory_net::sweep_endpoints(self.identity.owner(), &live) {
            let error = dory_types::with_causes(&error);
            tracing::warn!(error, "Cannot remove interfaces of dead containers");
        }
    }

    fn restore_network(&self, object: &NetworkObject, running: &[Arc<Container>]) {
        let id = object.record.id();
        let bridge = match object.segment(self) {
            Ok(Segment::Bridge(bridge)) => bridge,
            Ok(Segment::Parent(parent)) => {
                let places = running.iter().filter_map(|container| place_in(container, id));
                parent.restore(places.flat_map(|place| place.addresses).collect());
                return;
            }
            Err(error) => {
                tracing::warn!(network.id = %id, %error, "Running containers have lost their network");
                return;
            }
        };
        let places: Vec<RunEndpoint> =
            running.iter().filter_map(|container| place_in(container, id)).collect();
        let addresses = places.iter().flat_map(|place| place.addresses.iter().copied());
        for address in bridge.restore(addresses.collect::<Vec<IpAddr>>()) {
            tracing::warn!(%address, "A running container's address is not of its network's subnets");
        }
        let published: Vec<_> = running
            .iter()
            .filter_map(|container| {
                let record = container.record();
                let run = record.run.as_ref()?;
                let target = run.published_on.as_ref().filter(|target| target.network == *id)?;
                Some((target.target, run.ports.clone()))
            })
            .collect();
        if let Err(error) = bridge.restore_ports(&self.ports, &published) {
            tracing::warn!(%error, "Cannot put published ports back");
        }
    }

    /// Removes the bridges of all networks; their records stay.
    pub(crate) fn remove_bridges(&self) {
        let own = self.networks.all().into_iter().filter_map(|object| object.existing_bridge());
        let removed =
            own.map(|bridge| bridge.remove()).chain(self.bridge.existing().map(|bridge| bridge.remove()));
        for error in removed.filter_map(std::result::Result::err) {
            tracing::warn!(error = dory_types::with_causes(&error), "Cannot remove a bridge");
        }
        // Those that nobody has needed since this engine opened.
        self.sweep_bridges_but(&[]);
    }

    /// Removes bridges of this engine that no record names.
    pub(crate) fn sweep_bridges(&self) {
        let live: Vec<NetworkId> =
            self.networks.all().iter().map(|object| object.record.id().clone()).collect();
        self.sweep_bridges_but(&live);
    }

    fn sweep_bridges_but(&self, live: &[NetworkId]) {
        match dory_net::sweep_bridges(self.identity.owner(), live) {
            Ok(swept) if swept.is_empty() => {}
            Ok(swept) => tracing::info!(?swept, "Removed bridges that no network claims"),
            Err(error) => {
                let error = dory_types::with_causes(&error);
                tracing::warn!(error, "Cannot remove bridges that no network claims");
            }
        }
    }
}

/// Takes out of a running container's record the networks that it was on its way into when the engine died: nobody was told
/// that it is in. True where there were some.
fn forget_half_made(container: &Container) -> bool {
    let half_made = |place: &RunEndpoint| !place.addresses.is_empty() && place.endpoint.is_none();
    container.update(|record| {
        let Some(run) = &mut record.run else { return false };
        let names: Vec<String> =
            run.endpoints.iter().filter(|place| half_made(place)).map(|place| place.name.clone()).collect();
        run.endpoints.retain(|place| !half_made(place));
        names.iter().for_each(|name| drop(record.endpoints.remove(name)));
        !names.is_empty()
    })
}

/// The container's place in a network.
fn place_in(container: &Container, network: &NetworkId) -> Option<RunEndpoint> {
    let record = container.record();
    let places = &record.run.as_ref()?.endpoints;
    places.iter().find(|place| place.network == *network).cloned()
}
