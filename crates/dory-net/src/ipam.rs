//! Address management: which addresses of a subnet are taken.
//!
//! What is taken is not kept on disk: a container's record holds its address, and an engine that starts gives the
//! addresses of its records to [`Ipam::restore`]. Two sources of truth could differ; one cannot.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use dory_types::NetworkId;

use crate::address::Ipv4Subnet;

/// An address cannot be had. The sentences are Docker's, since clients look for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Every address of the subnet is taken.
    #[error("no available IPv4 addresses on this network's address pools: {network} ({id})")]
    Exhausted {
        /// The network's name.
        network: String,
        /// Its id.
        id: NetworkId,
    },
    /// The requested address is not one of the subnet's hosts.
    #[error("invalid address {address}: It does not belong to any of this network's subnets")]
    OutOfRange {
        /// The requested address.
        address: Ipv4Addr,
    },
    /// The requested address is taken.
    #[error("Address already in use")]
    InUse {
        /// The requested address.
        address: Ipv4Addr,
    },
}

/// The addresses of one subnet.
#[derive(Debug, Clone)]
pub struct Ipam {
    id: NetworkId,
    network: String,
    subnet: Ipv4Subnet,
    taken: BTreeSet<Ipv4Addr>,
}

impl Ipam {
    /// The addresses of `subnet`, of which `gateway` is taken. Errors name the network by `id` and `network`.
    pub fn new(id: NetworkId, network: impl Into<String>, subnet: Ipv4Subnet, gateway: Ipv4Addr) -> Self {
        Self { id, network: network.into(), subnet, taken: BTreeSet::from([gateway]) }
    }

    /// Takes `requested`, or else the lowest address that is free.
    ///
    /// # Errors
    /// [`IpamError::OutOfRange`] and [`IpamError::InUse`] for a requested address, [`IpamError::Exhausted`] without.
    pub fn allocate(&mut self, requested: Option<Ipv4Addr>) -> Result<Ipv4Addr, IpamError> {
        let address = match requested {
            Some(address) if !self.is_host(address) => return Err(IpamError::OutOfRange { address }),
            Some(address) if self.taken.contains(&address) => return Err(IpamError::InUse { address }),
            Some(address) => address,
            None => self
                .lowest_free()
                .ok_or_else(|| IpamError::Exhausted { network: self.network.clone(), id: self.id.clone() })?,
        };
        self.taken.insert(address);
        Ok(address)
    }

    /// Gives `address` back.
    pub fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }

    /// Takes what an earlier engine's containers hold. Returns the addresses that are no hosts of this subnet: their
    /// containers were connected before the subnet changed.
    pub fn restore(&mut self, addresses: impl IntoIterator<Item = Ipv4Addr>) -> Vec<Ipv4Addr> {
        let (ours, others) = addresses.into_iter().partition::<Vec<_>, _>(|address| self.is_host(*address));
        self.taken.extend(ours);
        others
    }

    /// True where a container may bear `address`: neither the network's own nor the broadcast address.
    fn is_host(&self, address: Ipv4Addr) -> bool {
        self.subnet.contains(address) && address != self.subnet.base() && address != self.subnet.broadcast()
    }

    /// The lowest host address that is not taken: the first gap in the ordered set.
    fn lowest_free(&self) -> Option<Ipv4Addr> {
        let mut candidate = self.subnet.nth(1)?;
        for taken in &self.taken {
            if *taken == candidate {
                candidate = Ipv4Addr::from_bits(candidate.to_bits().checked_add(1)?);
            } else if *taken > candidate {
                break;
            }
        }
        self.is_host(candidate).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn ipam() -> Ipam {
        Ipam::new(NetworkId::from_bytes([7; 32]), "bridge", "10.0.0.0/29".parse().unwrap(), address(1))
    }

    #[test]
    fn gives_the_lowest_free_address() {
        let mut ipam = ipam();
        let all: Vec<_> = std::iter::from_fn(|| ipam.allocate(None).ok()).collect();
        assert_eq!(all, [2, 3, 4, 5, 6].map(address));
        assert!(matches!(ipam.allocate(None), Err(IpamError::Exhausted { .. })));
        ipam.release(address(4));
        ipam.release(address(3));
        assert_eq!(ipam.allocate(None), Ok(address(3)));
    }

    #[test]
    fn a_gateway_elsewhere_is_left_out() {
        let mut ipam =
            Ipam::new(NetworkId::from_bytes([7; 32]), "n", "10.0.0.0/29".parse().unwrap(), address(3));
        let all: Vec<_> = std::iter::from_fn(|| ipam.allocate(None).ok()).collect();
        assert_eq!(all, [1, 2, 4, 5, 6].map(address));
    }

    #[test]
    fn a_requested_address_must_be_free_and_a_host() {
        let mut ipam = ipam();
        assert_eq!(ipam.allocate(Some(address(5))), Ok(address(5)));
        assert_eq!(ipam.allocate(Some(address(5))), Err(IpamError::InUse { address: address(5) }));
        for wrong in [address(0), address(7), address(8), Ipv4Addr::LOCALHOST] {
            assert_eq!(ipam.allocate(Some(wrong)), Err(IpamError::OutOfRange { address: wrong }));
        }
    }

    #[test]
    fn restores_what_records_hold() {
        let mut ipam = ipam();
        assert_eq!(ipam.restore([address(2), address(3), Ipv4Addr::LOCALHOST]), [Ipv4Addr::LOCALHOST]);
        assert_eq!(ipam.allocate(None), Ok(address(4)));
    }
}
