//! The subnets that networks are given when none is asked for, and the choice of one that collides with nothing.
//!
//! A nested engine lives in a container of an outer one: the outer subnet is on its `eth0`, so the same pool gives the
//! inner engine the next subnet, at every depth.

use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::subnet::Subnet;

/// A range that is cut into subnets (dockerd's `default-address-pools`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    /// The range.
    pub base: Subnet,
    /// The length of the prefix of each subnet, in bits.
    pub size: u8,
}

/// The text is no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid address pool `{0}`: `base=SUBNET,size=BITS` is needed, with BITS past the subnet's prefix")]
pub struct AddressPoolError(String);

impl FromStr for AddressPool {
    type Err = AddressPoolError;

    /// Reads `base=10.20.0.0/16,size=24`, as dockerd's `--default-address-pool` has it.
    fn from_str(text: &str) -> Result<Self, AddressPoolError> {
        let invalid = || AddressPoolError(text.to_owned());
        let (mut base, mut size) = (None, None);
        for field in text.split(',') {
            match field.split_once('=').ok_or_else(invalid)? {
                ("base", value) => base = Some(value.parse::<Subnet>().map_err(|_| invalid())?),
                ("size", value) => size = Some(value.parse::<u8>().map_err(|_| invalid())?),
                _ => return Err(invalid()),
            }
        }
        let (base, size) = (base.ok_or_else(invalid)?, size.ok_or_else(invalid)?);
        base.part(size, 0).map(|_| Self { base, size }).ok_or_else(invalid)
    }
}

/// How many subnets of one pool are looked at: a pool of IPv6 has more than anybody could walk.
const PARTS_TRIED: u128 = 1 << 16;

/// Docker's default pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 to 192.168.240.0/20. Those of IPv6 lie in
/// `local`, the engine's own unique local /48 (RFC 4193), as dockerd has it since 27.0.
pub fn default_pools(local: Subnet) -> Vec<AddressPool> {
    let large = (17..32).map(|second| ([172, second, 0, 0], 16, 16));
    let mut pools: Vec<_> = large
        .chain([([192, 168, 0, 0], 16, 20)])
        .map(|(base, prefix, size)| AddressPool { base: Subnet::containing(base.into(), prefix), size })
        .collect();
    pools.push(AddressPool { base: local, size: 64 });
    pools
}

/// The unique local /48 whose global id is `seed` (RFC 4193, section 3.1).
pub fn unique_local(seed: [u8; 5]) -> Subnet {
    let [a, b, c, d, e] = seed;
    let base = Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    Subnet::containing(base.into(), 48)
}

/// The first subnet of the pools of one family that overlaps none of `in_use`. A default route overlaps everything and
/// so is left out.
pub(crate) fn first_free(pools: &[AddressPool], ipv4: bool, in_use: &[Subnet]) -> Option<Subnet> {
    let candidates = pools
        .iter()
        .filter(|pool| pool.base.is_ipv4() == ipv4)
        .flat_map(|pool| (0..PARTS_TRIED).map_while(|number| pool.base.part(pool.size, number)));
    let free = |candidate: &Subnet| !in_use.iter().any(|used| used.prefix() > 0 && used.overlaps(*candidate));
    candidates.into_iter().find(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(in_use: &[&str], ipv4: bool) -> Option<String> {
        let in_use: Vec<Subnet> = in_use.iter().map(|text| text.parse().unwrap()).collect();
        let pools = default_pools(unique_local([1, 2, 3, 4, 5]));
        first_free(&pools, ipv4, &in_use).map(|subnet| subnet.to_string())
    }

    #[test]
    fn chooses_as_docker_does_and_never_what_is_in_use() {
        let default = "0.0.0.0/0";
        for (in_use, expected) in [
            (&[default][..], "172.17.0.0/16"),
            (&[default, "172.17.0.0/16"], "172.18.0.0/16"),
            (&["172.18.0.0/16"], "172.17.0.0/16"),
            (&["172.17.42.0/24", "172.18.0.1/32"], "172.19.0.0/16"),
            (&["172.16.0.0/12"], "192.168.0.0/20"),
            (&["172.16.0.0/12", "192.168.1.0/24"], "192.168.16.0/20"),
        ] {
            assert_eq!(free(in_use, true).as_deref(), Some(expected));
        }
        assert_eq!(free(&["172.16.0.0/12", "192.168.0.0/16"], true), None);
    }

    #[test]
    fn pools_are_read() {
        let pool: AddressPool = "base=10.20.0.0/16,size=24".parse().unwrap();
        assert_eq!((pool.base.to_string().as_str(), pool.size), ("10.20.0.0/16", 24));
        for wrong in ["", "base=10.20.0.0/16", "base=10.20.0.0/16,size=8", "base=x,size=24", "size=24,foo=1"]
        {
            assert!(wrong.parse::<AddressPool>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ipv6_comes_from_the_engines_own_range() {
        assert_eq!(free(&["::/0"], false).as_deref(), Some("fd01:203:405::/64"));
        assert_eq!(free(&["fd01:203:405::/64"], false).as_deref(), Some("fd01:203:405:1::/64"));
    }
}
