//! Connections that the kernel remembers, and must not where a port changes hands.
//!
//! NAT is decided by a connection's first packet. UDP has connections only in the kernel's eyes: a client that goes on
//! sending from the same port keeps the old decision alive, be it "no container here" from before the port was published
//! or the address of a container that is gone. So what concerns a published UDP port is forgotten whenever it changes.

use dory_sys::netlink::NetlinkProtocol;

use crate::netlink::{Attributes, Connection, Message, NetlinkError, flags};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const IPPROTO_UDP: u8 = 17;
/// Every family.
const AF_UNSPEC: u8 = 0;
/// Size of `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// Forgets every UDP connection whose first packet was for one of `ports`, on whatever address.
pub(crate) fn forget_udp(ports: &[u16]) -> Result<(), NetlinkError> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut connection = Connection::open(NetlinkProtocol::Netfilter)?;
    let entries = connection.query(message(
        AF_UNSPEC,
        IPCTNL_MSG_CT_GET,
        flags::DUMP,
        "list the tracked connections",
    ))?;
    let deletions: Vec<_> = entries
        .iter()
        .map(|entry| (entry.first().copied().unwrap_or(AF_UNSPEC), Attributes::after(entry, NFGENMSG)))
        .filter(|(_, entry)| udp_port(*entry).is_some_and(|port| ports.contains(&port)))
        .filter_map(|(family, entry)| delete(family, entry))
        .collect();
    // An entry that went by itself in the meantime is as good as deleted.
    let gone = |error: &NetlinkError| error.errno() == Some(rustix::io::Errno::NOENT);
    connection
        .request_each(&deletions)?
        .into_iter()
        .find_map(|answer| answer.err().filter(|error| !gone(error)))
        .map_or(Ok(()), Err)
}

/// The destination port of an entry's first packet; none for what is not UDP.
fn udp_port(entry: Attributes<'_>) -> Option<u16> {
    let protocol = entry.nested(CTA_TUPLE_ORIG).nested(CTA_TUPLE_PROTO);
    (protocol.find(CTA_PROTO_NUM)? == [IPPROTO_UDP])
        .then(|| Some(u16::from_be_bytes(protocol.find(CTA_PROTO_DST_PORT)?.try_into().ok()?)))?
}

/// The request that deletes an entry: its first tuple, and its id, lest a successor with the same tuple be hit.
fn delete(family: u8, entry: Attributes<'_>) -> Option<Message> {
    let mut request = message(family, IPCTNL_MSG_CT_DELETE, flags::ACK, "forget a tracked connection");
    let tuple = entry.find(CTA_TUPLE_ORIG)?;
    request.nest(CTA_TUPLE_ORIG, |attribute| {
        attribute.raw(tuple);
    });
    request.bytes(CTA_ID, entry.find(CTA_ID)?);
    if let Some(zone) = entry.find(CTA_ZONE) {
        request.bytes(CTA_ZONE, zone);
    }
    Some(request)
}

/// A message of the connection tracker for connections of `family`.
fn message(family: u8, kind: u16, flags: u16, operation: &str) -> Message {
    Message::new(NFNL_SUBSYS_CTNETLINK << 8 | kind, flags, &[family, 0, 0, 0], operation)
}
