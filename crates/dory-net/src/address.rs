//! Addresses as values: IPv4 subnets and MAC addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is no address of the kind wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `a.b.c.d/n` with `n` at most 32.
    #[error("invalid subnet `{0}`: an IPv4 address, a slash and a prefix length up to 32 are needed")]
    Subnet(String),
    /// Not six pairs of hexadecimal digits with colons.
    #[error("invalid MAC address `{0}`: six pairs of hexadecimal digits, joined by colons, are needed")]
    Mac(String),
}

/// An IPv4 subnet in CIDR form; the bits after the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

impl Ipv4Subnet {
    /// The subnet of `prefix` bits that contains `address`; a `prefix` past 32 counts as 32.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { base: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    /// The network address: every host bit zero.
    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    /// The length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The last address: every host bit one.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() | !mask(self.prefix))
    }

    /// True where `address` lies within.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.base.to_bits()
    }

    /// True where the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The address `offset` after the network address; none past the broadcast address.
    pub fn nth(self, offset: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from_bits(self.base.to_bits().checked_add(offset)?);
        self.contains(address).then_some(address)
    }
}

/// The network mask of `prefix` bits.
fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Ipv4Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Ipv4Subnet {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError::Subnet(text.to_owned());
        let (base, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(invalid)?;
        Ok(Self::containing(base.parse().map_err(|_| invalid())?, prefix))
    }
}

impl TryFrom<String> for Ipv4Subnet {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Ipv4Subnet> for String {
    fn from(subnet: Ipv4Subnet) -> Self {
        subnet.to_string()
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// The address that Docker derives from an IPv4 address: `02:42` and its four bytes. An address that comes back
    /// to another container keeps its MAC address, so that no neighbour's ARP entry goes stale.
    pub fn from_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// A random unicast address that is locally administered (IEEE 802-2014, 8.4).
    ///
    /// # Errors
    /// Those of getrandom(2).
    pub fn random() -> Result<Self, rustix::io::Errno> {
        let mut octets = [0; 6];
        rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty())?;
        octets[0] = octets[0] & 0xfc | 0x02;
        Ok(Self(octets))
    }

    /// The six bytes.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError::Mac(text.to_owned());
        let mut octets = [0; 6];
        let mut pairs = text.split([':', '-']);
        for octet in &mut octets {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or_else(invalid)?;
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        if pairs.next().is_some() { Err(invalid()) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Ipv4Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_are_read_and_written() {
        for (text, expected) in [
            ("172.17.0.0/16", "172.17.0.0/16"),
            ("172.17.3.4/16", "172.17.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.1.2.3/32", "10.1.2.3/32"),
        ] {
            assert_eq!(subnet(text).to_string(), expected);
        }
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/0", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Ipv4Subnet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn overlap_is_symmetric() {
        for (one, other, expected) in [
            ("172.17.0.0/16", "172.17.5.0/24", true),
            ("172.17.0.0/16", "172.18.0.0/16", false),
            ("0.0.0.0/0", "172.18.0.0/16", true),
            ("192.168.0.0/20", "192.168.16.0/20", false),
        ] {
            assert_eq!(subnet(one).overlaps(subnet(other)), expected, "{one} {other}");
            assert_eq!(subnet(other).overlaps(subnet(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn addresses_within_a_subnet() {
        assert_eq!(subnet("10.0.0.0/30").nth(1), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(subnet("10.0.0.0/30").nth(4), None);
        assert_eq!(subnet("255.255.255.252/30").nth(9), None);
        assert_eq!(subnet("10.0.0.0/30").broadcast(), Ipv4Addr::new(10, 0, 0, 3));
    }

    #[test]
    fn mac_addresses_are_read_and_written() {
        assert_eq!(MacAddress::from_ipv4(Ipv4Addr::new(172, 17, 0, 2)).to_string(), "02:42:ac:11:00:02");
        assert_eq!("02:42:AC:11:00:02".parse(), Ok(MacAddress::from_ipv4(Ipv4Addr::new(172, 17, 0, 2))));
        for wrong in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "2:42:ac:11:0:2", "02:42:ac:11:00:+2"] {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong}");
        }
    }
}
