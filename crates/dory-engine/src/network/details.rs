//! Networks as the API shows them.

use std::collections::BTreeMap;

use dory_types::Timestamp;
use serde::{Deserialize, Serialize};

/// API 1.51, the body of `POST /networks/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreate {
    /// Name.
    pub name: String,
    /// Driver; empty means `bridge`.
    pub driver: String,
    /// Scope; anything but `local` and empty is swarm's.
    pub scope: String,
    /// No way out.
    pub internal: bool,
    /// Swarm.
    pub attachable: bool,
    /// Swarm.
    pub ingress: bool,
    /// Swarm.
    pub config_only: bool,
    /// Swarm.
    pub config_from: Option<ConfigReference>,
    /// Addresses.
    #[serde(rename = "IPAM")]
    pub ipam: Option<NetworkIpam>,
    /// IPv4 (since API 1.47); absent means yes.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    /// IPv6; absent means as the driver's options say.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    /// Options of the driver.
    pub options: Option<BTreeMap<String, String>>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
}

/// API 1.51, `IPAMConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkIpamConfig {
    /// Address and prefix.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// Where addresses are taken from that nobody asks for.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// Gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Addresses by name that no container gets. Clients send `AuxiliaryAddresses`, as dockerd names it, too.
    #[serde(alias = "AuxAddress", alias = "AuxAddresses", skip_serializing_if = "Option::is_none")]
    pub auxiliary_addresses: Option<BTreeMap<String, String>>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigReference {
    /// Empty.
    pub network: String,
}
