//! `DELETE /networks/{id}` and `POST /networks/prune`.

use std::sync::Arc;

use dory_net::Driver;
use dory_sys::fault_point;
use dory_types::Timestamp;

use super::is_predefined;
use super::object::NetworkObject;
use crate::container::prune_until;
use crate::engine::{Engine, Inner, blocking};
use crate::filters::Filters;
use crate::{EngineError, ErrorKind, Result};

impl Engine {
    /// Removes a network.
    ///
    /// # Errors
    /// `NotFound`; `Forbidden` for a built-in one, and for one with running containers.
    pub async fn remove_network(&self, reference: &str) -> Result<()> {
        let (inner, reference) = (Arc::clone(&self.inner), reference.to_owned());
        blocking(move || {
            let object = inner.networks.find(&reference)?;
            let (name, id) = (object.record.name(), object.record.id());
            if is_predefined(name) {
                return Err(EngineError::new(
                    ErrorKind::Forbidden,
                    format!("{name} is a pre-defined network and cannot be removed"),
                ));
            }
            match inner.remove_if_unused(&object)? {
                true => Ok(()),
                false => Err(EngineError::new(
                    ErrorKind::Forbidden,
                    format!("error while removing network: network {name} id {id} has active endpoints"),
                )),
            }
        })
        .await
    }

    /// Removes every network that no running container is in; answers their names.
    ///
    /// # Errors
    /// `Invalid` for a filter that makes no sense.
    pub async fn prune_networks(&self, filters: &Filters) -> Result<Vec<String>> {
        filters.validate(&["label", "label!", "until"])?;
        let until = prune_until(filters)?;
        let (inner, filters) = (Arc::clone(&self.inner), filters.clone());
        blocking(move || inner.prune(&filters, until)).await
    }
}

impl Inner {
    fn prune(&self, filters: &Filters, until: Option<Timestamp>) -> Result<Vec<String>> {
        let mut pruned = Vec::new();
        for object in self.networks.all() {
            let record = &object.record;
            let chosen = !is_predefined(record.name())
                && until.is_none_or(|until| record.created < until)
                && filters.prune_labels(&record.labels);
            if chosen && self.remove_if_unused(&object)? {
                pruned.push(record.name().to_owned());
            }
        }
        self.events.publish("network", "prune", "", [("reclaimed".to_owned(), "0".to_owned())].into());
        Ok(pruned)
    }

    /// Removes the network unless somebody is in it; false where somebody is.
    fn remove_if_unused(&self, object: &Arc<NetworkObject>) -> Result<bool> {
        let _change = self.networks.change();
        if !object.close() {
            return Ok(false);
        }
        // From here on it is gone, also for the next engine, which removes what is left in the kernel.
        self.networks.remove(object.record.id()).inspect_err(|_| object.reopen())?;
        fault_point!("network.record-removed");
        self.dismantle(object);
        fault_point!("network.dismantled");
        let attributes = [
            ("name".to_owned(), object.record.name().to_owned()),
            ("type".to_owned(), object.record.driver().to_string()),
        ];
        self.events.publish("network", "destroy", object.record.id().as_str(), attributes.into());
        Ok(true)
    }

    /// Removes the bridge: its rules and addresses now, itself behind everybody's back, since the kernel takes its time.
    /// One whose name somebody chose goes at once, because the next network may want that name.
    fn dismantle(&self, object: &NetworkObject) {
        if object.record.driver() != Driver::Bridge {
            // Links of containers go with their namespaces, and nobody is in it any more.
            return;
        }
        let Some(bridge) = object.existing_bridge() else {
            self.sweep_bridges();
            return;
        };
        let chosen = object.record.driver_options().bridge.is_some();
        if let Err(error) = if chosen { bridge.remove() } else { bridge.retire() } {
            tracing::warn!(network.id = %object.record.id(), error = dory_types::with_causes(&error), "Cannot remove a bridge");
        }
        if !chosen {
            self.runtime().spawn_blocking(move || {
                if let Err(error) = bridge.remove() {
                    let error = dory_types::with_causes(&error);
                    tracing::warn!(network.id = %bridge.network().id, error, "Cannot remove a bridge");
                }
            });
        }
    }
}
