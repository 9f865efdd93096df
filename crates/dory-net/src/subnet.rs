//! Subnets of either family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::Ipv4Subnet;

/// The text is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct SubnetError(String);

/// An IPv4 or IPv6 subnet in CIDR form (RFC 4632, RFC 4291); the bits after the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The subnet of `prefix` bits that contains `address`; a longer prefix than an address counts as the address's
    /// length.
    pub fn containing(address: IpAddr, prefix: u8) -> Self {
        let prefix = prefix.min(width(address));
        let (bits, mask) = (bits(address), mask(prefix, width(address)));
        Self { base: from_bits(bits & mask, address.is_ipv4()), prefix }
    }

    /// The network address: every host bit zero.
    pub fn base(self) -> IpAddr {
        self.base
    }

    /// The length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// True for IPv4.
    pub fn is_ipv4(self) -> bool {
        self.base.is_ipv4()
    }

    /// The same subnet where it is one of IPv4.
    pub fn as_ipv4(self) -> Option<Ipv4Subnet> {
        match self.base {
            IpAddr::V4(base) => Some(Ipv4Subnet::containing(base, self.prefix)),
            IpAddr::V6(_) => None,
        }
    }

    /// The last address: every host bit one. For IPv4 it is the broadcast address.
    pub fn last(self) -> IpAddr {
        let host = !mask(self.prefix, width(self.base)) & mask(width(self.base), width(self.base));
        from_bits(bits(self.base) | host, self.is_ipv4())
    }

    /// True where `address` is of the same family and lies within.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4()
            && bits(address) & mask(self.prefix, width(address)) == bits(self.base)
    }

    /// True where all of `other` lies within.
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.base)
    }

    /// True where the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The address `offset` after the network address; none past the last one.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        let bits = bits(self.base).checked_add(offset)?;
        if self.is_ipv4() && bits > u128::from(u32::MAX) {
            return None;
        }
        Some(from_bits(bits, self.is_ipv4())).filter(|address| self.contains(*address))
    }

    /// The `number`th subnet of `prefix` bits within this one; none past the last.
    pub fn part(self, prefix: u8, number: u128) -> Option<Self> {
        let width = width(self.base);
        if prefix < self.prefix || prefix > width {
            return None;
        }
        let base = self.nth(number.checked_mul(1u128.checked_shl(u32::from(width - prefix))?)?)?;
        Some(Self { base, prefix })
    }
}

/// The address after `address`; none after the very last.
pub(crate) fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// How many bits an address of the family of `address` has.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An address as a number.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The number `bits` as an address; an IPv4 address has the lowest 32.
fn from_bits(bits: u128, ipv4: bool) -> IpAddr {
    if ipv4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
}

/// The network mask of `prefix` bits out of `width`.
fn mask(prefix: u8, width: u8) -> u128 {
    let all = u128::MAX.checked_shr(u32::from(128 - width)).unwrap_or(0);
    all & u128::MAX.checked_shl(u32::from(width - prefix)).unwrap_or(0)
}

impl From<Ipv4Subnet> for Subnet {
    fn from(subnet: Ipv4Subnet) -> Self {
        Self { base: subnet.base().into(), prefix: subnet.prefix() }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let invalid = || SubnetError(text.to_owned());
        let (base, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let base: IpAddr = base.parse().map_err(|_| invalid())?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= width(base)).ok_or_else(invalid)?;
        Ok(Self::containing(base, prefix))
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;
    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_are_read_and_written() {
        for (text, expected, last) in [
            ("172.17.3.4/16", "172.17.0.0/16", "172.17.255.255"),
            ("0.0.0.0/0", "0.0.0.0/0", "255.255.255.255"),
            ("10.1.2.3/32", "10.1.2.3/32", "10.1.2.3"),
            ("fd00::1/64", "fd00::/64", "fd00::ffff:ffff:ffff:ffff"),
            ("::/0", "::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(
                (subnet(text).to_string().as_str(), subnet(text).last().to_string().as_str()),
                (expected, last)
            );
        }
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn families_never_meet() {
        assert!(!subnet("0.0.0.0/0").overlaps(subnet("::/0")));
        assert!(subnet("172.17.0.0/16").overlaps(subnet("172.17.5.0/24")));
        assert!(subnet("172.17.0.0/16").covers(subnet("172.17.5.0/24")));
        assert!(!subnet("172.17.5.0/24").covers(subnet("172.17.0.0/16")));
        assert!(!subnet("fd00::/64").overlaps(subnet("fd00:0:0:1::/64")));
    }

    #[test]
    fn addresses_and_parts() {
        assert_eq!(subnet("10.0.0.0/30").nth(1), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(subnet("10.0.0.0/30").nth(4), None);
        assert_eq!(subnet("255.255.255.252/30").nth(9), None);
        assert_eq!(subnet("fd00::/64").nth(2), Some("fd00::2".parse().unwrap()));
        assert_eq!(subnet("172.16.0.0/12").part(16, 2), Some(subnet("172.18.0.0/16")));
        assert_eq!(subnet("172.16.0.0/12").part(16, 16), None);
        assert_eq!(subnet("fd00::/48").part(64, 3), Some(subnet("fd00:0:0:3::/64")));
    }
}
