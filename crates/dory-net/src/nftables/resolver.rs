//! The table that the engine keeps in a container: it sends the questions for the embedded DNS server to its sockets.
//!
//! ```text
//! map   ports   { address . protocol . port : address . port }
//! chain output  nat: what this container asks of the resolver's address
//! ```
//!
//! Answers come back from port 53, because connection tracking undoes for them what was done to the question.

use std::net::Ipv4Addr;

use super::table::{NF_INET_LOCAL_OUT, PRIORITY_DESTINATION, add_address_map, address_element};
use super::{ChainType, Family, Hook, Register, Transaction};
use crate::netlink::NetlinkError;
use crate::nftables::expression::payload;
use crate::port::Protocol;

/// The table's name, the same in every container: a later engine replaces it.
const TABLE: &str = "dory-dns";
const PORTS: &str = "ports";
const OUTPUT: &str = "output";

/// Sends `port` of `resolver` to its port `udp` or `tcp`, for what the calling thread's network namespace sends itself.
/// Replaces what was there in one step.
pub(crate) fn redirect_resolver(
    resolver: Ipv4Addr,
    port: u16,
    (udp, tcp): (u16, u16),
) -> Result<(), NetlinkError> {
    let mut transaction = Transaction::default();
    // Creating it first makes the deletion good either way.
    transaction.add_table(TABLE);
    transaction.delete_table(TABLE);
    transaction.add_table(TABLE);
    add_address_map(&mut transaction, TABLE, PORTS);
    let hook = Hook { kind: ChainType::Nat, number: NF_INET_LOCAL_OUT, priority: PRIORITY_DESTINATION };
    transaction.add_chain(TABLE, OUTPUT, Some(hook));
    transaction.append_rule(TABLE, OUTPUT, None, |rule| {
        rule.load_field(payload::DESTINATION, Register::unit(0))
            .load_protocol(Register::unit(1))
            .load_field(payload::DESTINATION_PORT, Register::unit(2))
            .lookup_map(PORTS)
            .rewrite_destination(Family::Ipv4);
    });
    let elements = [(Protocol::Udp, udp), (Protocol::Tcp, tcp)]
        .map(|(protocol, target)| address_element(protocol, (resolver, port), (resolver, target)));
    transaction.add_elements(TABLE, PORTS, &elements);
    transaction.commit()
}
