//! `GET /networks` and `GET /networks/{id}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::details::{NetworkContainer, NetworkDetails};
use super::object::NetworkObject;
use super::record::ipam_config;
use super::{BRIDGE, is_predefined};
use crate::engine::{Engine, Inner, blocking};
use crate::filters::Filters;
use crate::{EngineError, Result};

impl Engine {
    /// The networks that the filters choose.
    ///
    /// # Errors
    /// `Invalid` for a filter that makes no sense.
    pub async fn list_networks(&self, filters: &Filters) -> Result<Vec<NetworkDetails>> {
        filters.validate(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        if let Some(kind) =
            filters.get("type").iter().find(|kind| !matches!(kind.as_str(), "builtin" | "custom"))
        {
            return Err(EngineError::invalid(format!("invalid filter: 'type'='{kind}'")));
        }
        let dangling = filters.boolean("dangling")?;
        let (inner, filters) = (Arc::clone(&self.inner), filters.clone());
        blocking(move || {
            let chosen = inner.networks.all().into_iter().filter(|object| {
                let record = &object.record;
                let kind = if is_predefined(record.name()) { "builtin" } else { "custom" };
                filters.exact("driver", record.driver().as_str())
                    && filters.exact("scope", "local")
                    && filters.exact("type", kind)
                    && filters.any("name", |name| record.name().contains(name.as_str()))
                    && filters.any("id", |id| record.id().as_str().contains(id.as_str()))
                    && filters.labels("label", &record.labels)
                    // Built-in networks are never unused.
                    && dangling.is_none_or(|wanted| wanted == (kind == "custom" && object.is_unused()))
            });
            // Without containers, as dockerd's list has it since API 1.28.
            Ok(chosen.map(|object| inner.network_details(&object)).collect())
        })
        .await
    }

    /// Everything about a network: by name, id, or unambiguous start of an id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn inspect_network(&self, reference: &str) -> Result<NetworkDetails> {
        let object = self.inner.networks.find(reference)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let containers = inner.network_containers(&object);
            Ok(NetworkDetails { containers, ..inner.network_details(&object) })
        })
        .await
    }
}

impl Inner {
    /// A network without its containers.
    fn network_details(&self, object: &NetworkObject) -> NetworkDetails {
        let mut details = object.record.details();
        if !is_predefined(object.record.name()) {
            return details;
        }
        details.ipam.options = None;
        if object.record.name() == BRIDGE
            && let Ok(bridge) = self.bridge.network()
        {
            let network = bridge.network();
            details.ipam.config = Some(network.subnets.iter().map(ipam_config).collect());
            details.enable_ipv6 = network.ipv6().is_some();
            details.options.clone_from(&network.options);
            details.options.insert("com.docker.network.bridge.name".to_owned(), network.bridge.clone());
            details.options.insert("com.docker.network.driver.mtu".to_owned(), network.mtu.to_string());
        }
        details
    }

    /// The running containers of a network.
    fn network_containers(&self, object: &NetworkObject) -> BTreeMap<String, NetworkContainer> {
        let mut members = BTreeMap::new();
        for container in self.registry.all() {
            let record = container.record();
            let Some(run) = record.present_run().filter(|_| record.runs()) else { continue };
            let Some(place) = run.endpoints.iter().find(|it| it.network == *object.record.id()) else {
                continue;
            };
            let address = |ipv4: bool| {
                let endpoint = place.endpoint.as_ref();
                let address = endpoint.and_then(|endpoint| if ipv4 { endpoint.ipv4 } else { endpoint.ipv6 });
                address.map(|it| format!("{}/{}", it.address, it.prefix)).unwrap_or_default()
            };
            let member = NetworkContainer {
                name: record.name.as_str().to_owned(),
                endpoint_id: place.endpoint_id.clone(),
                mac_address: place.endpoint.as_ref().map(|it| it.mac.to_string()).unwrap_or_default(),
                ipv4_address: address(true),
                ipv6_address: address(false),
            };
            members.insert(record.id.to_string(), member);
        }
        members
    }
}
