//! The expressions that a rule is made of: each loads, compares or acts, and a comparison that fails ends the rule.

use super::Family;
use crate::netlink::Message;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_JUMP: i32 = -3;
const NFT_RETURN: i32 = -5;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_L4PROTO: u32 = 16;
const NFT_CT_STATE: u32 = 0;
const NFT_CT_STATUS: u32 = 2;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;
const NFT_LOOKUP_F_INV: u32 = 1;
const NFT_NAT_DNAT: u32 = 1;

/// A register, by its number of four-byte units (`NFT_REG32_00` to `NFT_REG32_15`); longer values take the next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register(u32);

impl Register {
    /// The register of unit `unit`, at most 15.
    pub(crate) const fn unit(unit: u32) -> Self {
        Self(8 + unit)
    }
}

/// The first register, which single values use.
const FIRST: Register = Register::unit(0);

/// A field of a packet: base, offset and length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    base: u32,
    offset: u32,
    length: u32,
}

/// Fields of a packet.
pub(crate) mod payload {
    use super::{Family, Field, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER};

    /// The IPv4 destination address.
    pub(crate) const DESTINATION: Field = Field { base: NFT_PAYLOAD_NETWORK_HEADER, offset: 16, length: 4 };

    /// The source address.
    pub(crate) fn source(family: Family) -> Field {
        match family {
            Family::Ipv4 => Field { base: NFT_PAYLOAD_NETWORK_HEADER, offset: 12, length: 4 },
            Family::Ipv6 => Field { base: NFT_PAYLOAD_NETWORK_HEADER, offset: 8, length: 16 },
        }
    }

    /// The destination address.
    pub(crate) fn destination(family: Family) -> Field {
        match family {
            Family::Ipv4 => DESTINATION,
            Family::Ipv6 => Field { base: NFT_PAYLOAD_NETWORK_HEADER, offset: 24, length: 16 },
        }
    }

    /// The destination port of TCP, UDP and SCTP alike.
    pub(crate) const DESTINATION_PORT: Field =
        Field { base: NFT_PAYLOAD_TRANSPORT_HEADER, offset: 2, length: 2 };
}

/// Bits of `ct state`, as the kernel numbers them.
pub(crate) mod state {
    /// Established or related.
    pub(crate) const ESTABLISHED_OR_RELATED: u32 = 0x2 | 0x4;
}

/// Bit of `ct status` of a connection whose destination was rewritten (`IPS_DST_NAT`).
const IPS_DST_NAT: u32 = 0x20;

/// True where the value read is to be in a set, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    In,
    NotIn,
}

/// The expressions of one rule, in order.
pub(crate) struct Expressions<'a> {
    list: &'a mut Message,
}

impl<'a> Expressions<'a> {
    /// Writes to `list`, the open attribute of a rule.
    pub(super) fn new(list: &'a mut Message) -> Self {
        Self { list }
    }

    /// Adds the expression `name`, whose attributes `fill` writes.
    fn push(&mut self, name: &str, fill: impl FnOnce(&mut Message)) -> &mut Self {
        self.list.nest(NFTA_LIST_ELEM, |expression| {
            expression.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, fill);
        });
        self
    }

    /// Adds `meta`: loads the packet's property `key`.
    fn meta(&mut self, key: u32, register: Register) -> &mut Self {
        self.push("meta", |data| {
            data.be32(1, register.0).be32(2, key);
        })
    }

    /// Loads the packet's transport protocol.
    pub(crate) fn load_protocol(&mut self, register: Register) -> &mut Self {
        self.meta(NFT_META_L4PROTO, register)
    }

    /// Loads the name of the interface by which the packet came in.
    pub(crate) fn load_input_interface(&mut self, register: Register) -> &mut Self {
        self.meta(NFT_META_IIFNAME, register)
    }

    /// Loads the name of the interface by which the packet will leave.
    pub(crate) fn load_output_interface(&mut self, register: Register) -> &mut Self {
        self.meta(NFT_META_OIFNAME, register)
    }

    /// Loads a field of the packet.
    pub(crate) fn load_field(&mut self, field: Field, register: Register) -> &mut Self {
        self.push("payload", |data| {
            data.be32(1, register.0).be32(2, field.base).be32(3, field.offset).be32(4, field.length);
        })
    }

    /// Goes on where the value in `register` is (not) in `set`.
    pub(crate) fn lookup(&mut self, set: &str, register: Register, membership: Membership) -> &mut Self {
        self.push("lookup", |data| {
            data.text(1, set).be32(2, register.0);
            if membership == Membership::NotIn {
                data.be32(5, NFT_LOOKUP_F_INV);
            }
        })
    }

    /// Replaces the value in the first register by what `map` has for it; ends the rule where it has nothing.
    pub(crate) fn lookup_map(&mut self, map: &str) -> &mut Self {
        self.push("lookup", |data| {
            data.text(1, map).be32(2, FIRST.0).be32(3, FIRST.0);
        })
    }

    /// Goes on where the input interface is (not) in `set`.
    pub(crate) fn input_interface(&mut self, set: &str, membership: Membership) -> &mut Self {
        self.load_input_interface(FIRST).lookup(set, FIRST, membership)
    }

    /// Goes on where the output interface is (not) in `set`.
    pub(crate) fn output_interface(&mut self, set: &str, membership: Membership) -> &mut Self {
        self.load_output_interface(FIRST).lookup(set, FIRST, membership)
    }

    /// Goes on where the source address is in `set`.
    pub(crate) fn source(&mut self, family: Family, set: &str) -> &mut Self {
        self.load_field(payload::source(family), FIRST).lookup(set, FIRST, Membership::In)
    }

    /// Goes on where the first bytes of the value in the first register are (not) `value`.
    fn compare(&mut self, operator: u32, value: &[u8]) -> &mut Self {
        self.push("cmp", |data| {
            data.be32(1, FIRST.0).be32(2, operator).nest(3, |attributes| {
                attributes.bytes(NFTA_DATA_VALUE, value);
            });
        })
    }

    /// Goes on where the input interface is `name`, in the form that iptables reads as `-i name`; a closing `+` stands
    /// for any rest.
    pub(crate) fn input_interface_is(&mut self, name: &str) -> &mut Self {
        self.load_input_interface(FIRST).compare(NFT_CMP_EQ, &interface_pattern(name))
    }

    /// As [`Self::input_interface_is`] for the output interface.
    pub(crate) fn output_interface_is(&mut self, name: &str) -> &mut Self {
        self.load_output_interface(FIRST).compare(NFT_CMP_EQ, &interface_pattern(name))
    }

    /// Goes on where the address in `field` is a loopback address: 127.0.0.0/8, or ::1.
    pub(crate) fn is_loopback(&mut self, family: Family, field: Field) -> &mut Self {
        match family {
            Family::Ipv4 => self.load_field(Field { length: 1, ..field }, FIRST).compare(NFT_CMP_EQ, &[127]),
            Family::Ipv6 => {
                self.load_field(field, FIRST).compare(NFT_CMP_EQ, &std::net::Ipv6Addr::LOCALHOST.octets())
            }
        }
    }

    /// Goes on where the destination is an address of this machine.
    pub(crate) fn destination_is_local(&mut self) -> &mut Self {
        self.push("fib", |data| {
            data.be32(1, FIRST.0).be32(2, NFT_FIB_RESULT_ADDRTYPE).be32(3, NFTA_FIB_F_DADDR);
        })
        .compare(NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes())
    }

    /// Goes on where the connection's `key` has one of `bits`.
    fn connection_has(&mut self, key: u32, bits: u32) -> &mut Self {
        self.push("ct", |data| {
            data.be32(1, FIRST.0).be32(2, key);
        })
        .push("bitwise", |data| {
            data.be32(1, FIRST.0).be32(2, FIRST.0).be32(3, 4);
            data.nest(4, |mask| {
                mask.bytes(NFTA_DATA_VALUE, &bits.to_ne_bytes());
            });
            data.nest(5, |xor| {
                xor.bytes(NFTA_DATA_VALUE, &[0; 4]);
            });
        })
        .compare(NFT_CMP_NEQ, &[0; 4])
    }

    /// Goes on where the packet belongs to a connection that exists, or that one of those announced.
    pub(crate) fn established(&mut self) -> &mut Self {
        self.connection_has(NFT_CT_STATE, state::ESTABLISHED_OR_RELATED)
    }

    /// Goes on where the connection came by a published port: its destination was rewritten.
    pub(crate) fn published(&mut self) -> &mut Self {
        self.connection_has(NFT_CT_STATUS, IPS_DST_NAT)
    }

    /// Ends with a verdict.
    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.push("immediate", |data| {
            // NFT_REG_VERDICT
            data.be32(1, 0).nest(2, |attributes| {
                attributes.nest(NFTA_DATA_VERDICT, |verdict| {
                    verdict.be32(NFTA_VERDICT_CODE, code.cast_unsigned());
                    if let Some(chain) = chain {
                        verdict.text(NFTA_VERDICT_CHAIN, chain);
                    }
                });
            });
        });
    }

    /// Counts the packets that came so far. iptables has a counter in each of its rules.
    pub(crate) fn count(&mut self) -> &mut Self {
        self.push("counter", |_| {})
    }

    /// Lets the packet pass this chain.
    pub(crate) fn accept(&mut self) {
        self.verdict(NF_ACCEPT, None);
    }

    /// Discards the packet.
    pub(crate) fn drop(&mut self) {
        self.verdict(NF_DROP, None);
    }

    /// Goes on in `chain`, and comes back.
    pub(crate) fn jump(&mut self, chain: &str) {
        self.verdict(NFT_JUMP, Some(chain));
    }

    /// Leaves the chain; in a base chain its policy decides.
    pub(crate) fn leave(&mut self) {
        self.verdict(NFT_RETURN, None);
    }

    /// Gives the packet the address of the interface by which it leaves as its source.
    pub(crate) fn masquerade(&mut self) {
        self.push("masq", |_| {});
    }

    /// Rewrites the destination: the address in the first registers, the port in the one after it.
    pub(crate) fn rewrite_destination(&mut self, family: Family) {
        let port = Register::unit(family.units());
        self.push("nat", |data| {
            data.be32(1, NFT_NAT_DNAT).be32(2, family.number().into()).be32(3, FIRST.0).be32(5, port.0);
        });
    }
}

/// The bytes to compare an interface's name with: all sixteen, or the first ones only where `name` ends in `+`.
fn interface_pattern(name: &str) -> Vec<u8> {
    match name.strip_suffix('+') {
        Some(start) => start.as_bytes().to_vec(),
        None => super::table::interface_key(name).to_vec(),
    }
}
