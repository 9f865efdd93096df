//! A network's own nftables tables, one for each family that it has: what they hold, and how ports come and go.
//!
//! ```text
//! set  bridges    { ifname }               the network's bridge
//! set  peers      { ifname . ifname }      pairs of interfaces whose containers may talk: the bridge with itself
//! set  subnets    { address, ranges }      the containers' addresses
//! map  ports      { protocol . port               : address . port }   published on every address
//! map  addresses  { address . protocol . port     : address . port }   published on one address
//!
//! loopback     filter, before all else: drops what claims to come for 127.0.0.0/8 out of a container
//! prerouting   nat: connections from outside and from containers to a published port
//! output       nat: connections of this machine to a published port, 127.0.0.1 included
//! postrouting  nat: masquerades what leaves, what comes back to a bridge by a published port, and 127.0.0.1
//! forward      filter: to a container only answers, published ports and its neighbours
//! ```
//!
//! A port is an element of a map, so that the hundredth costs what the first did, a packet is looked up in constant time,
//! and nothing has to be found again by a rule's handle. A table bears the name of its bridge, so that neither two
//! networks nor two engines meet in one. One transaction changes the tables of both families.
//!
//! 127.0.0.1: the bridge's `route_localnet` is set, so that the rewritten packet may leave by it, and the source is
//! masqueraded, so that the answer finds back. Docker does the same without its user-space proxy. That setting alone
//! would let a container reach services bound to 127.0.0.1 of this machine, which the chain `loopback` prevents; and
//! `prerouting` leaves 127.0.0.0/8 alone, so that no neighbour on the wire reaches a port published on 127.0.0.1 only.
//! IPv6 has no such setting: what this machine sends to ::1 is passed on by [`crate::PortProxy`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::expression::{Membership, payload};
use super::{ChainType, DataType, Element, Family, Hook, Register, Set, Table, Transaction, elements};
use crate::netlink::NetlinkError;
use crate::port::Protocol;
use crate::subnet::{Subnet, successor};

const BRIDGES: &str = "bridges";
const PEERS: &str = "peers";
const SUBNETS: &str = "subnets";
const PORTS: &str = "ports";
const ADDRESSES: &str = "addresses";

const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_FORWARD: u32 = 2;
pub(super) const NF_INET_LOCAL_OUT: u32 = 3;
const NF_INET_POST_ROUTING: u32 = 4;
/// `NF_IP_PRI_RAW`: before connection tracking.
const PRIORITY_RAW: i32 = -300;
/// `NF_IP_PRI_NAT_DST`.
pub(super) const PRIORITY_DESTINATION: i32 = -100;
/// `NF_IP_PRI_FILTER`.
const PRIORITY_FILTER: i32 = 0;
/// `NF_IP_PRI_NAT_SRC`.
const PRIORITY_SOURCE: i32 = 100;

/// The numbers by which `nft` knows what a key is (libnftables' `enum datatypes`); the kernel only keeps them.
const TYPE_ADDRESS: u32 = 7;
const TYPE_ADDRESS6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_SERVICE: u32 = 13;
const TYPE_INTERFACE: u32 = 41;

/// Room of an interface's name, closing NUL included.
const IFNAMSIZ: usize = 16;

/// An interface's name as nf_tables compares it: sixteen bytes, NUL-filled.
pub(super) fn interface_key(name: &str) -> [u8; IFNAMSIZ] {
    let mut key = [0; IFNAMSIZ];
    let length = name.len().min(IFNAMSIZ - 1);
    key[..length].copy_from_slice(&name.as_bytes()[..length]);
    key
}

/// The type of several values one after the other.
fn concatenated(kinds: &[(u32, u32)]) -> DataType {
    kinds.iter().fold(DataType { kind: 0, length: 0 }, |so_far, (kind, length)| DataType {
        kind: so_far.kind << 6 | kind,
        length: so_far.length + length,
    })
}

/// The type of a family's addresses.
fn address_type(family: Family) -> (u32, u32) {
    match family {
        Family::Ipv4 => (TYPE_ADDRESS, 4),
        Family::Ipv6 => (TYPE_ADDRESS6, 16),
    }
}

/// The bytes of an address, as they fill registers.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Splits an address of `family` off `bytes`.
fn split_address(family: Family, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    match family {
        Family::Ipv4 => bytes.split_first_chunk::<4>().map(|(it, rest)| (IpAddr::from(*it), rest)),
        Family::Ipv6 => bytes.split_first_chunk::<16>().map(|(it, rest)| (IpAddr::from(*it), rest)),
    }
}

/// One published port: what connections to `host` are sent to. Both addresses are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublishedPort {
    pub(crate) protocol: Protocol,
    /// The address on which it is published; unspecified for all.
    pub(crate) host_address: IpAddr,
    pub(crate) host_port: u16,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

impl PublishedPort {
    fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// The map that holds it, and its element there.
    fn element(&self) -> (&'static str, Element) {
        let mut key = Vec::with_capacity(24);
        let map = if self.host_address.is_unspecified() {
            PORTS
        } else {
            key.extend(octets(self.host_address));
            ADDRESSES
        };
        key.extend([self.protocol.number(), 0, 0, 0]);
        key.extend(port_field(self.host_port));
        let mut data = octets(self.address);
        data.extend(port_field(self.port));
        (map, Element::entry(key, data))
    }

    /// True for what is sent to the bridge's own address: the DNS forwarder's ports.
    fn stays_here(&self) -> bool {
        self.address == self.host_address
    }

    /// Reads an element of `map`; none for what no engine of ours writes.
    fn from_element(family: Family, map: &str, element: &Element) -> Option<Self> {
        let (host_address, key) = match (map == ADDRESSES, family) {
            (true, _) => split_address(family, &element.key)?,
            (false, Family::Ipv4) => (Ipv4Addr::UNSPECIFIED.into(), element.key.as_slice()),
            (false, Family::Ipv6) => (Ipv6Addr::UNSPECIFIED.into(), element.key.as_slice()),
        };
        let (address, port) = split_address(family, element.data.as_deref()?)?;
        Some(Self {
            protocol: Protocol::from_number(*key.first()?)?,
            host_address,
            host_port: u16::from_be_bytes(*key.get(4..)?.first_chunk()?),
            address,
            port: u16::from_be_bytes(*port.first_chunk()?),
        })
    }
}

/// A port as it fills a register: network order, then padding.
fn port_field(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// What a network lets pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    /// Nothing goes beyond the network.
    pub(crate) internal: bool,
    /// What leaves gets an address of this machine.
    pub(crate) masquerade: bool,
}

/// A network's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Firewall {
    name: String,
    families: Vec<Family>,
}

impl Firewall {
    /// The tables `name` of `families`, whether or not they exist yet.
    pub(crate) fn new(name: impl Into<String>, families: &[Family]) -> Self {
        Self { name: name.into(), families: families.to_vec() }
    }

    fn table(&self, family: Family) -> Table<'_> {
        Table { family, name: &self.name }
    }

    fn tables(&self) -> impl Iterator<Item = Table<'_>> {
        self.families.iter().map(|family| self.table(*family))
    }

    /// Brings the tables to their full form with `bridge` and `subnets` in them. Published ports that are there stay, and
    /// no packet sees a table without its rules: an engine that starts again runs this over its predecessor's.
    pub(crate) fn install(
        &self,
        bridge: &str,
        subnets: &[Subnet],
        admission: Admission,
    ) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::default();
        for table in self.tables() {
            transaction.add_table(table);
            add_sets(&mut transaction, table);
            for (chain, hook) in base_chains() {
                transaction.add_chain(table, chain, Some(hook));
            }
            transaction.add_chain(table, "to_container", None);
            for chain in base_chains().map(|(chain, _)| chain).into_iter().chain(["to_container"]) {
                transaction.flush_chain(table, chain);
            }
            add_nat_rules(&mut transaction, table, admission);
            add_filter_rules(&mut transaction, table, admission);
            let key = interface_key(bridge);
            transaction.add_elements(table, BRIDGES, &[Element::key(key)]);
            transaction.add_elements(table, PEERS, &[Element::key([key, key].concat())]);
            for subnet in subnets.iter().filter(|subnet| Family::of(subnet.base()) == table.family) {
                transaction.add_elements(table, SUBNETS, &range(*subnet));
            }
        }
        transaction.commit()
    }

    /// Adds the ports, all or none.
    pub(crate) fn publish(&self, ports: &[PublishedPort]) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::default();
        for (table, map, elements) in self.by_map(ports) {
            transaction.add_elements(table, map, &elements);
        }
        transaction.commit()
    }

    /// Removes the ports. One that is not there is left out.
    pub(crate) fn unpublish(&self, ports: &[PublishedPort]) -> Result<(), NetlinkError> {
        let there = self.published()?;
        let ports: Vec<_> = ports.iter().filter(|port| there.contains(port)).copied().collect();
        let mut transaction = Transaction::default();
        for (table, map, elements) in self.by_map(&ports) {
            transaction.delete_elements(table, map, &elements);
        }
        transaction.commit()
    }

    /// The elements of `ports` by the map that holds them.
    fn by_map(&self, ports: &[PublishedPort]) -> Vec<(Table<'_>, &'static str, Vec<Element>)> {
        let mut all = Vec::new();
        for table in self.tables() {
            for map in [PORTS, ADDRESSES] {
                let elements: Vec<_> = ports
                    .iter()
                    .filter(|port| port.family() == table.family)
                    .map(PublishedPort::element)
                    .filter(|(of, _)| *of == map)
                    .map(|(_, it)| it)
                    .collect();
                all.push((table, map, elements));
            }
        }
        all
    }

    /// Sends port 53 of the bridge's address `gateway` to the forwarder's ports there, in place of what was.
    pub(crate) fn redirect_dns(&self, gateway: Ipv4Addr, udp: u16, tcp: u16) -> Result<(), NetlinkError> {
        let old: Vec<_> =
            self.all()?.iter().filter(|port| port.stays_here()).map(|port| port.element().1).collect();
        let gateway = IpAddr::from(gateway);
        let new = [(Protocol::Udp, udp), (Protocol::Tcp, tcp)].map(|(protocol, port)| {
            PublishedPort { protocol, host_address: gateway, host_port: 53, address: gateway, port }
                .element()
                .1
        });
        let table = self.table(Family::Ipv4);
        let mut transaction = Transaction::default();
        transaction.delete_elements(table, ADDRESSES, &old);
        transaction.add_elements(table, ADDRESSES, &new);
        transaction.commit()
    }

    /// Every port of a container that is published by these tables.
    pub(crate) fn published(&self) -> Result<Vec<PublishedPort>, NetlinkError> {
        Ok(self.all()?.into_iter().filter(|port| !port.stays_here()).collect())
    }

    /// Every element of the maps.
    fn all(&self) -> Result<Vec<PublishedPort>, NetlinkError> {
        let mut ports = Vec::new();
        for table in self.tables() {
            for map in [PORTS, ADDRESSES] {
                let found = elements(table, map)?;
                let read = |element: &Element| PublishedPort::from_element(table.family, map, element);
                ports.extend(found.iter().filter_map(read));
            }
        }
        Ok(ports)
    }

    /// Deletes the tables; no error where there are none.
    pub(crate) fn remove(&self) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::default();
        for table in self.tables() {
            // Creating it first makes the deletion good either way.
            transaction.add_table(table);
            transaction.delete_table(table);
        }
        transaction.commit()
    }
}

/// The table's base chains.
fn base_chains() -> [(&'static str, Hook); 5] {
    let hook = |kind, number, priority| Hook { kind, number, priority };
    [
        ("loopback", hook(ChainType::Filter, NF_INET_PRE_ROUTING, PRIORITY_RAW)),
        ("prerouting", hook(ChainType::Nat, NF_INET_PRE_ROUTING, PRIORITY_DESTINATION)),
        ("output", hook(ChainType::Nat, NF_INET_LOCAL_OUT, PRIORITY_DESTINATION)),
        ("postrouting", hook(ChainType::Nat, NF_INET_POST_ROUTING, PRIORITY_SOURCE)),
        ("forward", hook(ChainType::Filter, NF_INET_FORWARD, PRIORITY_FILTER)),
    ]
}

/// Creates the sets and maps.
fn add_sets(transaction: &mut Transaction, table: Table<'_>) {
    let interface = (TYPE_INTERFACE, 16);
    let address = address_type(table.family);
    let port = [(TYPE_PROTOCOL, 4), (TYPE_SERVICE, 4)];
    let target = concatenated(&[address, (TYPE_SERVICE, 4)]);
    let set = |name, key, data| Set { name, key, data, ranges: name == SUBNETS, text: name == BRIDGES };
    for set in [
        set(BRIDGES, concatenated(&[interface]), None),
        set(PEERS, concatenated(&[interface, interface]), None),
        set(SUBNETS, concatenated(&[address]), None),
        set(PORTS, concatenated(&port), Some(target)),
        set(ADDRESSES, concatenated(&[address, port[0], port[1]]), Some(target)),
    ] {
        transaction.add_set(table, &set);
    }
}

/// Creates the map `name` from an address, a protocol and a port to an address and a port.
pub(super) fn add_address_map(transaction: &mut Transaction, table: &str, name: &str) {
    let address = (TYPE_ADDRESS, 4);
    let service = (TYPE_SERVICE, 4);
    let key = concatenated(&[address, (TYPE_PROTOCOL, 4), service]);
    let data = Some(concatenated(&[address, service]));
    transaction.add_set(table, &Set { name, key, data, ranges: false, text: false });
}

/// An element of such a map.
pub(super) fn address_element(
    protocol: Protocol,
    (address, port): (Ipv4Addr, u16),
    (to_address, to_port): (Ipv4Addr, u16),
) -> Element {
    let mut key = address.octets().to_vec();
    key.extend([protocol.number(), 0, 0, 0]);
    key.extend(port_field(port));
    let mut data = to_address.octets().to_vec();
    data.extend(port_field(to_port));
    Element::entry(key, data)
}

/// Fills the chains that rewrite addresses.
fn add_nat_rules(transaction: &mut Transaction, table: Table<'_>, admission: Admission) {
    let family = table.family;
    let protocol = family.units();
    let destination = payload::destination(family);
    for chain in ["prerouting", "output"] {
        // IPv4 sends what this machine says to 127.0.0.1 to containers all the same; IPv6 cannot.
        if chain == "prerouting" || family == Family::Ipv6 {
            transaction.append_rule(table, chain, None, |rule| {
                rule.is_loopback(family, destination).leave();
            });
        }
        transaction.append_rule(table, chain, None, |rule| {
            rule.load_field(destination, Register::unit(0))
                .load_protocol(Register::unit(protocol))
                .load_field(payload::DESTINATION_PORT, Register::unit(protocol + 1))
                .lookup_map(ADDRESSES)
                .rewrite_destination(family);
        });
        transaction.append_rule(table, chain, None, |rule| {
            rule.destination_is_local()
                .load_protocol(Register::unit(0))
                .load_field(payload::DESTINATION_PORT, Register::unit(1))
                .lookup_map(PORTS)
                .rewrite_destination(family);
        });
    }
    if admission.masquerade && !admission.internal {
        transaction.append_rule(table, "postrouting", None, |rule| {
            rule.source(family, SUBNETS).output_interface(BRIDGES, Membership::NotIn).masquerade();
        });
    }
    // A container that reaches its neighbour by a published port: the answer must come back this way.
    transaction.append_rule(table, "postrouting", None, |rule| {
        rule.output_interface(BRIDGES, Membership::In).published().source(family, SUBNETS).masquerade();
    });
    transaction.append_rule(table, "postrouting", None, |rule| {
        rule.output_interface(BRIDGES, Membership::In)
            .is_loopback(family, payload::source(family))
            .masquerade();
    });
}

/// Fills the chains that let pass or drop.
fn add_filter_rules(transaction: &mut Transaction, table: Table<'_>, admission: Admission) {
    let loopback = payload::destination(table.family);
    transaction.append_rule(table, "loopback", None, |rule| {
        rule.input_interface(BRIDGES, Membership::In).is_loopback(table.family, loopback).drop();
    });
    transaction.append_rule(table, "forward", None, |rule| {
        rule.output_interface(BRIDGES, Membership::In).jump("to_container");
    });
    if admission.internal {
        transaction.append_rule(table, "forward", None, |rule| {
            rule.input_interface(BRIDGES, Membership::In).output_interface(BRIDGES, Membership::NotIn).drop();
        });
    } else {
        transaction.append_rule(table, "to_container", None, |rule| rule.established().accept());
        transaction.append_rule(table, "to_container", None, |rule| rule.published().accept());
    }
    transaction.append_rule(table, "to_container", None, |rule| {
        let (input, output) = (Register::unit(0), Register::unit(4));
        rule.load_input_interface(input)
            .load_output_interface(output)
            .lookup(PEERS, input, Membership::In)
            .accept();
    });
    transaction.append_rule(table, "to_container", None, |rule| rule.drop());
}

/// The two elements that make a range: its first address, and the first one past it (none at the very end).
fn range(subnet: Subnet) -> Vec<Element> {
    let mut elements = vec![Element::key(octets(subnet.base()))];
    if let Some(end) = successor(subnet.last()) {
        elements.push(Element { range_end: true, ..Element::key(octets(end)) });
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_survives_its_element() {
        for (host, container) in [
            ("0.0.0.0", "172.17.0.2"),
            ("127.0.0.1", "172.17.0.2"),
            ("192.0.2.1", "172.17.0.2"),
            ("::", "fd00::2"),
            ("2001:db8::1", "fd00::2"),
        ] {
            let port = PublishedPort {
                protocol: Protocol::Udp,
                host_address: host.parse().unwrap(),
                host_port: 8080,
                address: container.parse().unwrap(),
                port: 80,
            };
            let (map, element) = port.element();
            assert_eq!(PublishedPort::from_element(port.family(), map, &element), Some(port));
        }
        assert_eq!(PublishedPort::from_element(Family::Ipv4, PORTS, &Element::key([6, 0])), None);
        assert_eq!(PublishedPort::from_element(Family::Ipv6, ADDRESSES, &Element::key([6; 9])), None);
    }

    #[test]
    fn a_range_ends_after_its_last_address() {
        let elements = range("172.17.0.0/16".parse().unwrap());
        assert_eq!(elements[0].key, [172, 17, 0, 0]);
        assert_eq!((elements[1].key.as_slice(), elements[1].range_end), (&[172, 18, 0, 0][..], true));
        assert_eq!(range("255.255.0.0/16".parse().unwrap()).len(), 1);
    }

    #[test]
    fn interface_keys_have_sixteen_bytes() {
        assert_eq!(&interface_key("dory0")[..6], b"dory0\0");
        assert_eq!(interface_key("a-name-that-is-far-too-long")[15], 0);
    }
}
