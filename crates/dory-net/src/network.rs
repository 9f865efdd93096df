//! A network as a value: what the API shows and what is kept on disk. What it is in the kernel is [`crate::bridge`]'s.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dory_types::NetworkId;
use serde::{Deserialize, Serialize};

use crate::address::Ipv4Subnet;

/// Who makes a network, in the API's words (`Network.Driver`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A Linux bridge with NAT.
    Bridge,
    /// The engine's own network namespace.
    Host,
    /// Loopback only.
    Null,
}

/// A subnet of a network, and the address of the bridge in it (`IPAM.Config`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSubnet {
    /// The subnet.
    pub subnet: Ipv4Subnet,
    /// The bridge's address: the containers' default gateway.
    pub gateway: Ipv4Addr,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Its name, unique within an engine.
    pub name: String,
    /// Who makes it.
    pub driver: Driver,
    /// Its subnets; none for the drivers that give no addresses.
    pub subnets: Vec<NetworkSubnet>,
    /// The name of the bridge; empty for the other drivers.
    pub bridge: String,
    /// The size of the largest packet, in bytes; 0 for the other drivers.
    pub mtu: u32,
    /// Driver options in Docker's words, such as `com.docker.network.bridge.name`.
    pub options: BTreeMap<String, String>,
}
