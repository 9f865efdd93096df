//! Networks: the three that every engine has.

use std::collections::BTreeMap;

use dory_types::Timestamp;
use serde::{Deserialize, Serialize};

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
