//! Address management: which addresses of a subnet are taken.
//!
//! What is taken is not kept on disk: a container's record holds its address, and an engine that starts gives the
//! addresses of its records to [`Ipam::restore`]. Two sources of truth could differ; one cannot.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dory_types::NetworkId;

use crate::network::NetworkSubnet;
use crate::subnet::{Subnet, successor};

/// An address cannot be had. The sentences are Docker's, since clients look for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Every address of the subnet is taken.
    #[error("no available {family} addresses on this network's address pools: {network} ({id})")]
    Exhausted {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The network's name.
        network: String,
        /// Its id.
        id: NetworkId,
    },
    /// The requested address is not one of the subnet's hosts.
    #[error("invalid address {address}: It does not belong to any of this network's subnets")]
    OutOfRange {
        /// The requested address.
        address: IpAddr,
    },
    /// The requested address is taken.
    #[error("Address already in use")]
    InUse {
        /// The requested address.
        address: IpAddr,
    },
}

/// The addresses of one subnet.
#[derive(Debug, Clone)]
pub struct Ipam {
    id: NetworkId,
    network: String,
    subnet: Subnet,
    range: Subnet,
    taken: BTreeSet<IpAddr>,
}

impl Ipam {
    /// The addresses of `place`, of which the gateway and the auxiliary ones are taken. Errors name the network by `id`
    /// and `network`.
    pub fn new(id: NetworkId, network: impl Into<String>, place: &NetworkSubnet) -> Self {
        let taken = place.auxiliary.values().copied().chain([place.gateway]).collect();
        let range = place.range.unwrap_or(place.subnet);
        Self { id, network: network.into(), subnet: place.subnet, range, taken }
    }

    /// Takes `requested`, or else the lowest address of the range that is free.
    ///
    /// # Errors
    /// [`IpamError::OutOfRange`] and [`IpamError::InUse`] for a requested address, [`IpamError::Exhausted`] without.
    pub fn allocate(&mut self, requested: Option<IpAddr>) -> Result<IpAddr, IpamError> {
        let address = match requested {
            Some(address) if !self.is_host(address) => return Err(IpamError::OutOfRange { address }),
            Some(address) if self.taken.contains(&address) => return Err(IpamError::InUse { address }),
            Some(address) => address,
            None => self.lowest_free().ok_or_else(|| IpamError::Exhausted {
                family: if self.subnet.is_ipv4() { "IPv4" } else { "IPv6" },
                network: self.network.clone(),
                id: self.id.clone(),
            })?,
        };
        self.taken.insert(address);
        Ok(address)
    }

    /// Gives `address` back.
    pub fn release(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }

    /// Takes what an earlier engine's containers hold. Returns the addresses that are no hosts of this subnet: their
    /// containers were connected before the subnet changed.
    pub fn restore(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        let (ours, others) = addresses.into_iter().partition::<Vec<_>, _>(|address| self.is_host(*address));
        self.taken.extend(ours);
        others
    }

    /// True where a container may bear `address`: neither the network's own nor, for IPv4, the broadcast address.
    fn is_host(&self, address: IpAddr) -> bool {
        let broadcast = self.subnet.is_ipv4() && address == self.subnet.last();
        self.subnet.contains(address) && address != self.subnet.base() && !broadcast
    }

    /// The lowest host address of the range that is not taken: the first gap in the ordered set.
    fn lowest_free(&self) -> Option<IpAddr> {
        let mut candidate = self.range.base();
        if candidate == self.subnet.base() {
            candidate = successor(candidate)?;
        }
        for taken in self.taken.range(candidate..) {
            if *taken != candidate {
                break;
            }
            candidate = successor(candidate)?;
        }
        (self.range.contains(candidate) && self.is_host(candidate)).then_some(candidate)
    }
}

/// Takes one address in each of the subnets `all`: the one of `requested` that is of its family, or the lowest that is free.
/// On failure none is taken.
pub(crate) fn allocate_all(all: &mut [Ipam], requested: &[IpAddr]) -> Result<Vec<IpAddr>, IpamError> {
    let stray = |address: &&IpAddr| !all.iter().any(|ipam| ipam.subnet.is_ipv4() == address.is_ipv4());
    if let Some(address) = requested.iter().find(stray) {
        return Err(IpamError::OutOfRange { address: *address });
    }
    let mut taken = Vec::new();
    for number in 0..all.len() {
        let ipam = &mut all[number];
        let wish = requested.iter().find(|it| it.is_ipv4() == ipam.subnet.is_ipv4()).copied();
        match ipam.allocate(wish) {
            Ok(address) => taken.push(address),
            Err(error) => {
                release_all(all, &taken);
                return Err(error);
            }
        }
    }
    Ok(taken)
}

/// Gives `addresses` back to whichever subnet has them.
pub(crate) fn release_all(all: &mut [Ipam], addresses: &[IpAddr]) {
    for address in addresses {
        all.iter_mut().for_each(|ipam| ipam.release(*address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn ipam(subnet: &str, gateway: &str, range: Option<&str>) -> Ipam {
        let place = NetworkSubnet {
            subnet: subnet.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            range: range.map(|range| range.parse().unwrap()),
            auxiliary: BTreeMap::new(),
        };
        Ipam::new(NetworkId::from_bytes([7; 32]), "bridge", &place)
    }

    #[test]
    fn gives_the_lowest_free_address() {
        let mut ipam = ipam("10.0.0.0/29", "10.0.0.1", None);
        let all: Vec<_> = std::iter::from_fn(|| ipam.allocate(None).ok()).collect();
        assert_eq!(all, [2, 3, 4, 5, 6].map(address));
        assert!(matches!(ipam.allocate(None), Err(IpamError::Exhausted { .. })));
        ipam.release(address(4));
        ipam.release(address(3));
        assert_eq!(ipam.allocate(None), Ok(address(3)));
    }

    #[test]
    fn leaves_out_gateways_and_keeps_to_the_range() {
        for (gateway, range, expected) in [
            ("10.0.0.3", None, vec![1, 2, 4, 5, 6]),
            ("10.0.0.1", Some("10.0.0.4/30"), vec![4, 5, 6]),
            ("10.0.0.4", Some("10.0.0.4/31"), vec![5]),
            ("10.0.0.1", Some("10.0.0.0/30"), vec![2, 3]),
        ] {
            let mut ipam = ipam("10.0.0.0/29", gateway, range);
            let all: Vec<_> = std::iter::from_fn(|| ipam.allocate(None).ok()).collect();
            assert_eq!(all, expected.into_iter().map(address).collect::<Vec<_>>(), "{gateway} {range:?}");
        }
    }

    #[test]
    fn ipv6_has_no_broadcast_address() {
        let mut ipam = ipam("fd00::/126", "fd00::1", None);
        let all: Vec<_> = std::iter::from_fn(|| ipam.allocate(None).ok()).map(|it| it.to_string()).collect();
        assert_eq!(all, ["fd00::2", "fd00::3"]);
        let exhausted = ipam.allocate(None).unwrap_err().to_string();
        assert!(exhausted.starts_with("no available IPv6 addresses"), "{exhausted}");
    }

    #[test]
    fn a_requested_address_must_be_free_and_a_host() {
        let mut ipam = ipam("10.0.0.0/29", "10.0.0.1", Some("10.0.0.0/30"));
        assert_eq!(ipam.allocate(Some(address(5))), Ok(address(5)));
        assert_eq!(ipam.allocate(Some(address(5))), Err(IpamError::InUse { address: address(5) }));
        for wrong in [address(0), address(7), address(8), IpAddr::from([127, 0, 0, 1])] {
            assert_eq!(ipam.allocate(Some(wrong)), Err(IpamError::OutOfRange { address: wrong }));
        }
    }

    #[test]
    fn restores_what_records_hold() {
        let mut ipam = ipam("10.0.0.0/29", "10.0.0.1", None);
        let elsewhere = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(ipam.restore([address(2), address(3), elsewhere]), [elsewhere]);
        assert_eq!(ipam.allocate(None), Ok(address(4)));
    }
}
