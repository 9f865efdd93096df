//! A network as a value: what the API shows and what is kept on disk. What it is in the kernel is [`crate::bridge`]'s.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use dory_types::NetworkId;
use serde::{Deserialize, Serialize};

use crate::subnet::Subnet;

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
    /// A link with a MAC address of its own on a parent interface.
    Macvlan,
    /// A link on a parent interface, whose MAC address it shares.
    Ipvlan,
}

impl Driver {
    /// The driver's name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A subnet of a network (`IPAM.Config`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSubnet {
    /// The subnet.
    pub subnet: Subnet,
    /// The containers' default gateway: for a bridge its own address.
    pub gateway: IpAddr,
    /// Where addresses are taken from that nobody asks for; by default all of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Subnet>,
    /// Addresses by name that no container gets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary: BTreeMap<String, IpAddr>,
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
    /// Its subnets, at most one for each family; none for the drivers that give no addresses.
    pub subnets: Vec<NetworkSubnet>,
    /// The name of the bridge, or of the parent interface; empty for the other drivers.
    pub bridge: String,
    /// The size of the largest packet, in bytes; 0 for the other drivers.
    pub mtu: u32,
    /// Driver options in Docker's words, such as `com.docker.network.bridge.name`.
    pub options: BTreeMap<String, String>,
}

impl Network {
    /// The subnet of IPv4.
    pub fn ipv4(&self) -> Option<&NetworkSubnet> {
        self.subnets.iter().find(|it| it.subnet.is_ipv4())
    }

    /// The subnet of IPv6.
    pub fn ipv6(&self) -> Option<&NetworkSubnet> {
        self.subnets.iter().find(|it| !it.subnet.is_ipv4())
    }
}
