//! What is kept of a network.

use std::collections::BTreeMap;

use dory_net::{Driver, Network, NetworkSubnet};
use dory_types::{NetworkId, Timestamp};
use serde::{Deserialize, Serialize};

use super::details::{ConfigReference, NetworkDetails, NetworkIpam, NetworkIpamConfig};
use super::options::DriverOptions;

/// One network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) created: Timestamp,
    pub(crate) enable_ipv4: bool,
    pub(crate) enable_ipv6: bool,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) labels: BTreeMap<String, String>,
    /// Options of the address management, which has none that mean anything here.
    pub(crate) ipam_options: BTreeMap<String, String>,
    /// The families (true for IPv4) whose subnet somebody chose: only there may containers choose their addresses.
    pub(crate) chosen_subnets: Vec<bool>,
    /// What it is in the kernel: name, driver, subnets, options.
    pub(crate) network: Network,
}

impl NetworkRecord {
    /// The record of a network that every engine has.
    pub(crate) fn built_in(id: &NetworkId, name: &str, driver: Driver, created: Timestamp) -> Self {
        let network = Network {
            id: id.clone(),
            name: name.to_owned(),
            driver,
            subnets: Vec::new(),
            bridge: String::new(),
            mtu: 0,
            options: BTreeMap::new(),
        };
        Self {
            created,
            enable_ipv4: true,
            enable_ipv6: false,
            internal: false,
            attachable: false,
            labels: BTreeMap::new(),
            ipam_options: BTreeMap::new(),
            chosen_subnets: Vec::new(),
            network,
        }
    }

    pub(crate) fn id(&self) -> &NetworkId {
        &self.network.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.network.name
    }

    pub(crate) fn driver(&self) -> Driver {
        self.network.driver
    }

    /// The driver's options, read again: they were checked when the network was made.
    pub(crate) fn driver_options(&self) -> DriverOptions {
        DriverOptions::parse(self.driver(), &self.network.options).unwrap_or_default()
    }

    /// What the API shows, without the containers.
    pub(crate) fn details(&self) -> NetworkDetails {
        NetworkDetails {
            name: self.name().to_owned(),
            id: self.id().to_string(),
            created: self.created,
            scope: "local".to_owned(),
            driver: self.driver().to_string(),
            enable_ipv4: self.enable_ipv4,
            enable_ipv6: self.enable_ipv6,
            ipam: NetworkIpam {
                driver: "default".to_owned(),
                options: Some(self.ipam_options.clone()),
                config: Some(self.network.subnets.iter().map(ipam_config).collect()),
            },
            internal: self.internal,
            attachable: self.attachable,
            ingress: false,
            config_from: ConfigReference::default(),
            config_only: false,
            containers: BTreeMap::new(),
            options: self.network.options.clone(),
            labels: self.labels.clone(),
        }
    }
}

/// A subnet as the API shows it.
pub(super) fn ipam_config(place: &NetworkSubnet) -> NetworkIpamConfig {
    let auxiliary: BTreeMap<_, _> =
        place.auxiliary.iter().map(|(name, address)| (name.clone(), address.to_string())).collect();
    NetworkIpamConfig {
        subnet: place.subnet.to_string(),
        ip_range: place.range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: place.gateway.to_string(),
        auxiliary_addresses: Some(auxiliary).filter(|all| !all.is_empty()),
    }
}
