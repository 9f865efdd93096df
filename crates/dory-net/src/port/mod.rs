//! Published ports: what is asked for, what is reserved, and what the packet filter then does.
//!
//! A published port is three things. The engine's [`PortAllocator`] knows which of its containers has it. A socket that
//! is bound to it, and never accepts, keeps other programs of the machine off it; whoever holds the socket (a shim, so
//! that it outlives the engine) holds the reservation. And an element in the network's table sends connections on.
//! No connection ever reaches the socket while the element is there; without it, the client is refused at once.

mod allocator;
mod proxy;
mod publish;
mod reserve;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

pub use allocator::PortAllocator;
pub use proxy::PortProxy;
pub use publish::{Publication, PublishError};

/// A transport protocol that ports belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number in an IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with `number`.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port that a container wants published (`HostConfig.PortBindings`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port in the container.
    pub container_port: u16,
    /// The address of this machine; unspecified for all of its family.
    pub host_address: IpAddr,
    /// True where nobody named an address: the port is to be had by IPv6 too, if it can be.
    pub also_ipv6: bool,
    /// The ports of this machine from which the first free one is taken; none for any port that is free.
    pub host_ports: Option<RangeInclusive<u16>>,
}

/// A port that is published, as it is kept in the container's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port in the container.
    pub container_port: u16,
    /// The address of this machine; unspecified for all of its family.
    pub host_address: IpAddr,
    /// The port of this machine.
    pub host_port: u16,
}

/// The container that ports lead to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishTarget {
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

impl PublishTarget {
    /// The address to which the packet filter sends what came to `host`; none where the container has none of that family.
    pub(crate) fn address(self, host: IpAddr) -> Option<IpAddr> {
        match host {
            IpAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }

    /// An address by which this machine reaches it.
    pub(crate) fn any(self) -> Option<IpAddr> {
        self.ipv4.map(IpAddr::V4).or(self.ipv6.map(IpAddr::V6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_their_names_and_numbers() {
        for (protocol, name, number) in
            [(Protocol::Tcp, "tcp", 6), (Protocol::Udp, "udp", 17), (Protocol::Sctp, "sctp", 132)]
        {
            assert_eq!((protocol.to_string().as_str(), protocol.number()), (name, number));
            assert_eq!(Protocol::from_number(number), Some(protocol));
        }
        assert_eq!(Protocol::from_number(1), None);
    }
}
