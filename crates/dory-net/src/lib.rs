//! Bridges, veth pairs, addresses, NAT and published ports over netlink.
