//! Requests of rtnetlink(7): links, addresses and routes, as many as fit one purpose in one datagram.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::address::MacAddress;
use crate::netlink::{Attributes, Connection, Message, NetlinkError, flags};
use crate::parent::ParentMode;
use crate::subnet::Subnet;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// `IN6_ADDR_GEN_MODE_NONE`: no link-local address, hence no duplicate address detection and no router solicitation.
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// `IFA_F_NODAD`: the address is usable at once, no probe for a second bearer is sent.
const IFA_F_NODAD: u32 = 0x2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u32 = 255;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

/// Size of `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
/// Size of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
/// Size of `struct rtmsg`.
const RTMSG: usize = 12;

/// Per-interface IPv4 settings that netlink can write, so that a read-only `/proc/sys` does not matter
/// (`IPV4_DEVCONF_*` in `include/uapi/linux/ip.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipv4Setting {
    /// `forwarding`: packets that come in by this interface may be sent on.
    Forwarding = 1,
    /// `route_localnet`: packets with 127.0.0.0/8 addresses may pass this interface.
    RouteLocalnet = 26,
}

/// What is known of an existing interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `bridge`, `veth`, …; empty for hardware and loopback.
    pub(crate) kind: String,
    pub(crate) alias: String,
    pub(crate) mtu: u32,
    pub(crate) loopback: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InterfaceAddress {
    pub(crate) index: u32,
    pub(crate) address: IpAddr,
    pub(crate) subnet: Subnet,
}

/// A route outside the table of local addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Subnet,
    pub(crate) interface: Option<u32>,
}

/// A `struct ifinfomsg`.
fn ifinfo(family: u8, index: u32, up: bool) -> [u8; IFINFOMSG] {
    let mut bytes = [0; IFINFOMSG];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        bytes[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        bytes[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    bytes
}

/// Creates the bridge `name`, down. Without a MAC address of its own it would take that of the lowest port, and change
/// it as containers come and go.
pub(crate) fn create_bridge(name: &str, mac: MacAddress, mtu: u32) -> Message {
    let mut message = Message::new(
        RTM_NEWLINK,
        flags::ACK | flags::CREATE | flags::EXCL,
        &ifinfo(AF_UNSPEC, 0, false),
        format!("create the bridge `{name}`"),
    );
    message.text(IFLA_IFNAME, name).bytes(IFLA_ADDRESS, &mac.octets()).u32(IFLA_MTU, mtu).nest(
        IFLA_LINKINFO,
        |info| {
            info.text(IFLA_INFO_KIND, "bridge");
        },
    );
    message
}

/// Creates a veth pair: `host` in this namespace, up and a port of the bridge `master`; `peer` in `netns`, down.
pub(crate) fn create_veth(host: &str, master: u32, mtu: u32, peer: &VethPeer<'_>) -> Message {
    let mut message = Message::new(
        RTM_NEWLINK,
        flags::ACK | flags::CREATE | flags::EXCL,
        &ifinfo(AF_UNSPEC, 0, true),
        format!("create the veth pair `{host}` and `{}`", peer.name),
    );
    message.text(IFLA_IFNAME, host).u32(IFLA_MASTER, master).u32(IFLA_MTU, mtu);
    message.nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
            data.nest(VETH_INFO_PEER, |end| {
                end.raw(&ifinfo(AF_UNSPEC, 0, false))
                    .text(IFLA_IFNAME, peer.name)
                    .bytes(IFLA_ADDRESS, &peer.mac.octets())
                    .u32(IFLA_MTU, mtu)
                    .bytes(IFLA_NET_NS_FD, &peer.netns.as_raw_fd().to_ne_bytes());
            });
        });
    });
    message
}

/// A link on a parent interface.
pub(crate) struct Child<'a> {
    pub(crate) name: &'a str,
    /// Index of the parent, in this namespace.
    pub(crate) parent: u32,
    pub(crate) mode: ParentMode,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) mtu: Option<u32>,
    /// Where the link is to be; this namespace where none is given.
    pub(crate) netns: Option<BorrowedFd<'a>>,
}

/// Creates a link on a parent interface, down.
pub(crate) fn create_child(link: &Child<'_>) -> Message {
    let mut message = Message::new(
        RTM_NEWLINK,
        flags::ACK | flags::CREATE | flags::EXCL,
        &ifinfo(AF_UNSPEC, 0, false),
        format!("create the link `{}`", link.name),
    );
    message.text(IFLA_IFNAME, link.name).u32(IFLA_LINK, link.parent);
    if let Some(mac) = link.mac {
        message.bytes(IFLA_ADDRESS, &mac.octets());
    }
    if let Some(mtu) = link.mtu {
        message.u32(IFLA_MTU, mtu);
    }
    if let Some(netns) = link.netns {
        message.bytes(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
    }
    message.nest(IFLA_LINKINFO, |info| match link.mode {
        ParentMode::Macvlan(mode) => {
            info.text(IFLA_INFO_KIND, "macvlan").nest(IFLA_INFO_DATA, |data| {
                data.u32(IFLA_MACVLAN_MODE, mode);
            });
        }
        ParentMode::Ipvlan(mode) => {
            info.text(IFLA_INFO_KIND, "ipvlan").nest(IFLA_INFO_DATA, |data| {
                data.bytes(IFLA_IPVLAN_MODE, &mode.to_ne_bytes());
            });
        }
    });
    message
}

/// The container's end of a veth pair.
pub(crate) struct VethPeer<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: MacAddress,
    pub(crate) netns: BorrowedFd<'a>,
}

/// Sets the size of the largest packet. A bridge whose size nobody sets takes that of its smallest port, and 1500 bytes
/// without one; what it is created with does not count.
pub(crate) fn set_mtu(name: &str, mtu: u32) -> Message {
    let mut message = change_link(name, "set the MTU");
    message.u32(IFLA_MTU, mtu);
    message
}

/// Marks the interface `name` with `alias`.
pub(crate) fn set_alias(name: &str, alias: &str) -> Message {
    let mut message = change_link(name, "set the alias");
    message.bytes(IFLA_IFALIAS, alias.as_bytes());
    message
}

/// Marks the bridge port `name` with `alias`, and lets it send a frame back where it came from.
///
/// Where bridged frames pass the packet filter (`bridge-nf-call-iptables`, on by default), a container that connects to
/// its own published port is rewritten while still in the bridge, and would get no answer without the hairpin mode.
/// An `isolated` port exchanges frames with the bridge itself alone, which needs no packet filter (since kernel 4.18).
pub(crate) fn set_port(name: &str, alias: &str, isolated: bool) -> Message {
    let mut message = change_link(name, "set the alias and the port modes");
    message.bytes(IFLA_IFALIAS, alias.as_bytes()).nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |port| {
            port.u8(IFLA_BRPORT_MODE, 1);
            if isolated {
                port.u8(IFLA_BRPORT_ISOLATED, 1);
            }
        });
    });
    message
}

/// Writes `settings` of the interface `name`.
pub(crate) fn set_ipv4(name: &str, settings: &[(Ipv4Setting, u32)]) -> Message {
    let mut message = change_link(name, "write the IPv4 settings");
    message.nest(IFLA_AF_SPEC, |families| {
        families.nest(u16::from(AF_INET), |family| {
            family.nest(IFLA_INET_CONF, |configuration| {
                for (setting, value) in settings {
                    configuration.u32(*setting as u16, *value);
                }
            });
        });
    });
    message
}

/// Keeps the interface `name` from giving itself IPv6 addresses. To be sent before it goes up.
pub(crate) fn disable_ipv6_autoconfiguration(name: &str) -> Message {
    let mut message = change_link(name, "disable the IPv6 autoconfiguration");
    message.nest(IFLA_AF_SPEC, |families| {
        families.nest(u16::from(AF_INET6), |family| {
            family.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
        });
    });
    message
}

/// A change, which is to `operation`, of the existing interface `name`.
fn change_link(name: &str, operation: &str) -> Message {
    let operation = format!("{operation} of `{name}`");
    let mut message = Message::new(RTM_NEWLINK, flags::ACK, &ifinfo(AF_UNSPEC, 0, false), operation);
    message.text(IFLA_IFNAME, name);
    message
}

/// Sets the interface `name` up.
pub(crate) fn set_up(name: &str) -> Message {
    let mut message =
        Message::new(RTM_NEWLINK, flags::ACK, &ifinfo(AF_UNSPEC, 0, true), format!("set `{name}` up"));
    message.text(IFLA_IFNAME, name);
    message
}

/// Puts the interface `name` into the interface group `group`.
pub(crate) fn set_group(name: &str, group: u32) -> Message {
    let mut message = change_link(name, "set the group");
    message.u32(IFLA_GROUP, group);
    message
}

/// Deletes every interface of `group` at once: the kernel waits for one grace period, not for one each.
pub(crate) fn delete_group(group: u32) -> Message {
    let mut message = Message::new(
        RTM_DELLINK,
        flags::ACK,
        &ifinfo(AF_UNSPEC, 0, false),
        format!("delete the interfaces of group {group}"),
    );
    message.u32(IFLA_GROUP, group);
    message
}

/// Deletes the interface `name`.
pub(crate) fn delete_link(name: &str) -> Message {
    let mut message = Message::new(
        RTM_DELLINK,
        flags::ACK,
        &ifinfo(AF_UNSPEC, 0, false),
        format!("delete the interface `{name}`"),
    );
    message.text(IFLA_IFNAME, name);
    message
}

/// Gives the interface `index` the address `address` of `subnet`, with the subnet's route. An address that is there
/// already is no error. No duplicate is looked for: who has which address is the engine's own decision.
pub(crate) fn add_address(index: u32, address: IpAddr, subnet: Subnet) -> Message {
    let mut message = address_message(
        RTM_NEWADDR,
        flags::ACK | flags::CREATE | flags::REPLACE,
        index,
        address,
        subnet.prefix(),
        "add",
    );
    match subnet.last() {
        IpAddr::V4(broadcast) => message.bytes(IFA_BROADCAST, &broadcast.octets()),
        IpAddr::V6(_) => message.u32(IFA_FLAGS, IFA_F_NODAD),
    };
    message
}

/// Takes the address `address` from the interface `index`; the subnet's route goes with it.
pub(crate) fn delete_address(index: u32, address: IpAddr, prefix: u8) -> Message {
    address_message(RTM_DELADDR, flags::ACK, index, address, prefix, "delete")
}

/// A message about `address`.
fn address_message(kind: u16, flags: u16, index: u32, address: IpAddr, prefix: u8, verb: &str) -> Message {
    let mut header = [0; IFADDRMSG];
    header[0] = family(address);
    header[1] = prefix;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(kind, flags, &header, format!("{verb} the address {address}/{prefix}"));
    let octets = octets(address);
    message.bytes(IFA_LOCAL, &octets).bytes(IFA_ADDRESS, &octets);
    message
}

/// Adds the default route by `gateway` over the interface `index`, in place of one that is there.
pub(crate) fn set_default_route(index: u32, gateway: IpAddr) -> Message {
    let mut message = default_route_message(
        RTM_NEWROUTE,
        flags::ACK | flags::CREATE | flags::REPLACE,
        gateway,
        format!("add the default route by {gateway}"),
    );
    message.bytes(RTA_GATEWAY, &octets(gateway)).u32(RTA_OIF, index);
    message
}

/// Deletes the default route of a family over the interface `index`.
pub(crate) fn delete_default_route(index: u32, ipv4: bool) -> Message {
    let of = if ipv4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let mut message =
        default_route_message(RTM_DELROUTE, flags::ACK, of, "delete the default route".to_owned());
    message.u32(RTA_OIF, index);
    message
}

/// A message about a route to everywhere in the family of `of`.
fn default_route_message(kind: u16, flags: u16, of: IpAddr, operation: String) -> Message {
    let mut header = [0; RTMSG];
    header[0] = family(of);
    header[4] = RT_TABLE_MAIN;
    header[5] = RTPROT_BOOT;
    header[7] = RTN_UNICAST;
    Message::new(kind, flags, &header, operation)
}

/// The address family's number.
fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// The bytes of an address.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Every interface.
pub(crate) fn links(connection: &mut Connection) -> Result<Vec<Link>, NetlinkError> {
    let request = Message::new(RTM_GETLINK, flags::DUMP, &ifinfo(AF_UNSPEC, 0, false), "list the interfaces");
    Ok(connection.query(request)?.iter().filter_map(|payload| read_link(payload)).collect())
}

/// The interface `name`; none where there is none of that name.
pub(crate) fn link(connection: &mut Connection, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut request = Message::new(
        RTM_GETLINK,
        flags::ACK,
        &ifinfo(AF_UNSPEC, 0, false),
        format!("find the interface `{name}`"),
    );
    request.text(IFLA_IFNAME, name);
    match connection.query(request) {
        Ok(found) => Ok(found.iter().find_map(|payload| read_link(payload))),
        Err(error) if error.errno() == Some(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads an `RTM_NEWLINK`.
fn read_link(payload: &[u8]) -> Option<Link> {
    const ARPHRD_LOOPBACK: u16 = 772;
    let attributes = Attributes::after(payload, IFINFOMSG);
    Some(Link {
        index: u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?),
        name: attributes.text(IFLA_IFNAME)?.to_owned(),
        kind: attributes.nested(IFLA_LINKINFO).text(IFLA_INFO_KIND).unwrap_or_default().to_owned(),
        alias: attributes.text(IFLA_IFALIAS).unwrap_or_default().to_owned(),
        mtu: attributes.u32(IFLA_MTU).unwrap_or(1500),
        loopback: u16::from_ne_bytes(payload.get(2..4)?.try_into().ok()?) == ARPHRD_LOOPBACK,
    })
}

/// Every address of every interface, link-local ones of IPv6 left out: every interface has the same of those.
pub(crate) fn addresses(connection: &mut Connection) -> Result<Vec<InterfaceAddress>, NetlinkError> {
    let request = Message::new(RTM_GETADDR, flags::DUMP, &[AF_UNSPEC; IFADDRMSG], "list the addresses");
    Ok(connection.query(request)?.iter().filter_map(|payload| read_address(payload)).collect())
}

/// Reads an `RTM_NEWADDR`.
fn read_address(payload: &[u8]) -> Option<InterfaceAddress> {
    let attributes = Attributes::after(payload, IFADDRMSG);
    let address = ip(attributes.find(IFA_LOCAL).or_else(|| attributes.find(IFA_ADDRESS))?)?;
    if is_link_local(address) {
        return None;
    }
    Some(InterfaceAddress {
        index: u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?),
        address,
        subnet: Subnet::containing(address, *payload.get(1)?),
    })
}

/// Every unicast route of every table but the local one, link-local ones of IPv6 left out.
pub(crate) fn routes(connection: &mut Connection) -> Result<Vec<Route>, NetlinkError> {
    let request = Message::new(RTM_GETROUTE, flags::DUMP, &[AF_UNSPEC; RTMSG], "list the routes");
    Ok(connection.query(request)?.iter().filter_map(|payload| read_route(payload)).collect())
}

/// Reads an `RTM_NEWROUTE`; none for what is no unicast route, or a local one.
fn read_route(payload: &[u8]) -> Option<Route> {
    let attributes = Attributes::after(payload, RTMSG);
    let table = attributes.u32(RTA_TABLE).unwrap_or_else(|| u32::from(payload.get(4).copied().unwrap_or(0)));
    if table == RT_TABLE_LOCAL || *payload.get(7)? != RTN_UNICAST {
        return None;
    }
    let destination = match (attributes.find(RTA_DST), *payload.first()?) {
        (Some(bytes), AF_INET | AF_INET6) => ip(bytes)?,
        (None, AF_INET) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (None, AF_INET6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    if is_link_local(destination) {
        return None;
    }
    Some(Route {
        destination: Subnet::containing(destination, *payload.get(1)?),
        interface: attributes.u32(RTA_OIF),
    })
}

/// True for `fe80::/10`.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The address whose bytes are `bytes`: four, or sixteen.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_has_no_destination_attribute() {
        let mut payload = [0; RTMSG].to_vec();
        payload[0] = AF_INET;
        payload[4] = RT_TABLE_MAIN;
        payload[7] = RTN_UNICAST;
        payload.extend([8, 0, RTA_OIF as u8, 0, 3, 0, 0, 0]);
        let route = read_route(&payload).unwrap();
        assert_eq!((route.destination.prefix(), route.interface), (0, Some(3)));
        payload[4] = 255;
        assert_eq!(read_route(&payload), None, "the local table does not count");
        assert_eq!(read_route(&[]), None);
    }

    #[test]
    fn short_answers_are_left_out() {
        assert_eq!(read_link(&[0; 15]), None);
        assert_eq!(read_address(&[2, 16, 0, 0]), None);
    }
}
