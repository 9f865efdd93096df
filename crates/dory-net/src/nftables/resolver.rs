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
    ports: (u16, u16),
) -> Result<(), NetlinkError> {
    // In a new namespace nothing is there. A deletion in the same transaction would do no harm, but closing the socket
    // would then wait for a grace period of the kernel, some ten milliseconds.
    let mut fresh = Transaction::default();
    fresh.create_table(TABLE);
    fill(&mut fresh, resolver, port, ports);
    match fresh.commit() {
        Err(error) if error.errno() == Some(rustix::io::Errno::EXIST) => {
            let mut transaction = Transaction::default();
            transaction.delete_table(TABLE);
            transaction.create_table(TABLE);
            fill(&mut transaction, resolver, port, ports);
            transaction.commit()
        }
        outcome => outcome,
    }
}

/// Fills the table.
fn fill(transaction: &mut Transaction, resolver: Ipv4Addr, port: u16, (udp, tcp): (u16, u16)) {
    add_address_map(transaction, TABLE, PORTS);
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
}
