//! Networks: the three that every engine has.

use std::collections::BTreeMap;
use std::sync::Arc;

use dory_types::{NetworkId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::EndpointSettings;
use crate::engine::{Engine, Inner, blocking};
use crate::filters::Filters;
use crate::{EngineError, ErrorKind, Result};

/// Name and driver of the networks that every engine has.
const BUILT_IN: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];
/// What is asked for and not there yet.
const USER_DEFINED: &str =
    "user-defined networks are not supported by this engine yet: bridge, host and none are there";

/// API 1.51, the body of `POST /networks/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreate {
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// API 1.51, `IPAMConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkIpamConfig {
    /// Address and prefix.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// Gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
}

/// API 1.51, `IPAM`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkIpam {
    /// `default`.
    pub driver: String,
    /// Options.
    pub options: Option<BTreeMap<String, String>>,
    /// Subnets.
    pub config: Option<Vec<NetworkIpamConfig>>,
}

/// API 1.51, `NetworkContainer`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NetworkContainer {
    /// Name of the container.
    #[serde(rename = "Name")]
    pub name: String,
    /// Endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// MAC address.
    #[serde(rename = "MacAddress")]
    pub mac_address: String,
    /// Address and prefix.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// Address and prefix.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// API 1.51, `Network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkDetails {
    /// `bridge`, `host`, `none`.
    pub name: String,
    /// Id.
    pub id: String,
    /// When the engine made it.
    pub created: Timestamp,
    /// `local`.
    pub scope: String,
    /// `bridge`, `host`, `null`.
    pub driver: String,
    /// IPv4 (since API 1.47).
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// IPv6.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Addresses.
    #[serde(rename = "IPAM")]
    pub ipam: NetworkIpam,
    /// No way out.
    pub internal: bool,
    /// Swarm.
    pub attachable: bool,
    /// Swarm.
    pub ingress: bool,
    /// Swarm.
    pub config_from: ConfigReference,
    /// Swarm.
    pub config_only: bool,
    /// Running containers by id.
    pub containers: BTreeMap<String, NetworkContainer>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// API 1.51, `ConfigReference`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigReference {
    /// Empty.
    pub network: String,
}

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
            let chosen =
                BUILT_IN.iter().map(|(name, driver)| inner.network_details(name, driver)).filter(|network| {
                    filters.exact("driver", &network.driver)
                    && filters.exact("scope", &network.scope)
                    && filters.exact("type", "builtin")
                    && filters.any("name", |name| network.name.contains(name.as_str()))
                    && filters.any("id", |id| network.id.contains(id.as_str()))
                    && filters.labels("label", &network.labels)
                    // Built-in networks are never unused.
                    && dangling != Some(true)
                });
            // As dockerd's list has it since API 1.28.
            Ok(chosen.map(|network| NetworkDetails { containers: BTreeMap::new(), ..network }).collect())
        })
        .await
    }

    /// Everything about a network: by name, id, or unambiguous start of an id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn inspect_network(&self, reference: &str) -> Result<NetworkDetails> {
        let (name, driver) = self.inner.find_network(reference)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || Ok(inner.network_details(name, driver))).await
    }

    /// Makes a network; answers its id.
    ///
    /// # Errors
    /// `NotImplemented`: the fixed set is all there is; `Conflict` for the name of a built-in one.
    pub async fn create_network(&self, request: NetworkCreate) -> Result<String> {
        if self.inner.find_network(&request.name).is_ok() {
            return Err(EngineError::conflict(format!("network with name {} already exists", request.name)));
        }
        Err(EngineError::not_implemented(USER_DEFINED))
    }

    /// Removes a network.
    ///
    /// # Errors
    /// `Forbidden` for a built-in one, `NotFound` for every other.
    pub async fn remove_network(&self, reference: &str) -> Result<()> {
        let (name, _) = self.inner.find_network(reference)?;
        Err(EngineError::new(
            ErrorKind::Forbidden,
            format!("{name} is a pre-defined network and cannot be removed"),
        ))
    }

    /// Joins a container to one more network.
    ///
    /// # Errors
    /// `NotFound` for what does not exist, otherwise `NotImplemented`.
    pub async fn connect_network(
        &self,
        reference: &str,
        container: &str,
        _endpoint: EndpointSettings,
    ) -> Result<()> {
        self.inner.find_network(reference)?;
        self.inner.registry.find(container)?;
        Err(EngineError::not_implemented(USER_DEFINED))
    }

    /// Takes a container out of a network.
    ///
    /// # Errors
    /// As [`Self::connect_network`].
    pub async fn disconnect_network(&self, reference: &str, container: &str, _force: bool) -> Result<()> {
        self.inner.find_network(reference)?;
        self.inner.registry.find(container)?;
        Err(EngineError::not_implemented(USER_DEFINED))
    }

    /// Answers the names of unused networks that were removed: built-in ones never are.
    ///
    /// # Errors
    /// `Invalid` for a filter that makes no sense.
    pub async fn prune_networks(&self, filters: &Filters) -> Result<Vec<String>> {
        filters.validate(&["label", "label!", "until"])?;
        Ok(Vec::new())
    }
}

impl Inner {
    fn network_id(&self, name: &str) -> &NetworkId {
        match name {
            "bridge" => &self.identity.bridge,
            "host" => &self.identity.host,
            _ => &self.identity.none,
        }
    }

    /// Name and driver of the network that `reference` means.
    pub(crate) fn find_network(&self, reference: &str) -> Result<(&'static str, &'static str)> {
        let named = BUILT_IN.iter().find(|(name, _)| *name == reference);
        let by_id = || {
            let mut matching = BUILT_IN.iter().filter(|(name, _)| {
                !reference.is_empty() && self.network_id(name).as_str().starts_with(reference)
            });
            matching.next().filter(|_| matching.next().is_none())
        };
        named
            .or_else(by_id)
            .copied()
            .ok_or_else(|| EngineError::not_found(format!("network {reference} not found")))
    }

    fn network_details(&self, name: &str, driver: &str) -> NetworkDetails {
        let bridge = if name == "bridge" { self.bridge.network().ok() } else { None };
        let config = bridge.map(|bridge| {
            let subnet = bridge.subnet();
            vec![NetworkIpamConfig { subnet: subnet.subnet.to_string(), gateway: subnet.gateway.to_string() }]
        });
        let mut options = bridge.map(|bridge| bridge.network().options.clone()).unwrap_or_default();
        if let Some(bridge) = bridge {
            options.insert("com.docker.network.bridge.name".to_owned(), bridge.network().bridge.clone());
            options.insert("com.docker.network.driver.mtu".to_owned(), bridge.network().mtu.to_string());
        }
        NetworkDetails {
            name: name.to_owned(),
            id: self.network_id(name).to_string(),
            created: self.identity.created,
            scope: "local".to_owned(),
            driver: driver.to_owned(),
            enable_ipv4: true,
            enable_ipv6: false,
            ipam: NetworkIpam {
                driver: "default".to_owned(),
                options: None,
                config: Some(config.unwrap_or_default()),
            },
            internal: false,
            attachable: false,
            ingress: false,
            config_from: ConfigReference::default(),
            config_only: false,
            containers: self.network_containers(name),
            options,
            labels: BTreeMap::new(),
        }
    }

    /// The running containers of a network.
    fn network_containers(&self, network: &str) -> BTreeMap<String, NetworkContainer> {
        let mut members = BTreeMap::new();
        for container in self.registry.all() {
            let record = container.record();
            if !record.runs() {
                continue;
            }
            if let Some(settings) = self.networks(&record).remove(network) {
                let ipv4_address = match settings.ip_address.as_str() {
                    "" => String::new(),
                    address => format!("{address}/{}", settings.ip_prefix_len),
                };
                members.insert(
                    record.id.to_string(),
                    NetworkContainer {
                        name: record.name.as_str().to_owned(),
                        endpoint_id: settings.endpoint_id,
                        mac_address: settings.mac_address,
                        ipv4_address,
                        ipv6_address: String::new(),
                    },
                );
            }
        }
        members
    }
}
