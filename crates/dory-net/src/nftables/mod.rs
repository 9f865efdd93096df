//! nf_tables over nfnetlink: transactions, sets and maps, and the lookups that a teardown or a survey needs.
//!
//! A [`Transaction`] is taken by the kernel as a whole or not at all, so that no packet ever meets half a change.

mod expression;
mod resolver;
mod table;

use std::fmt;

use dory_sys::netlink::NetlinkProtocol;

use crate::netlink::{Attributes, Connection, Message, NetlinkError, flags};

use expression::{Expressions, Register};
pub(crate) use resolver::redirect_resolver;
pub(crate) use table::{Admission, Firewall, PublishedPort};

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;

/// `NFT_SET_INTERVAL`: elements are ranges.
const NFT_SET_INTERVAL: u32 = 0x4;
/// `NFT_SET_MAP`: elements have data.
const NFT_SET_MAP: u32 = 0x8;
/// `NFT_SET_ELEM_INTERVAL_END`: the element is the first past a range.
const NFT_SET_ELEM_INTERVAL_END: u32 = 0x1;

/// User data by which `nft` knows that a set's keys are in the machine's byte order (libnftnl's
/// `NFTNL_UDATA_SET_KEYBYTEORDER`, four bytes, `BYTEORDER_HOST_ENDIAN`): it would show names of interfaces backwards.
const HOST_ORDER_KEYS: [u8; 6] = {
    let [a, b, c, d] = 1u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

/// A family of addresses, and of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// The family of `address`.
    pub(crate) fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// The kernel's number: `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }

    /// How many registers of four bytes an address takes.
    pub(crate) fn units(self) -> u32 {
        match self {
            Self::Ipv4 => 1,
            Self::Ipv6 => 4,
        }
    }
}

/// A table, by family and name. A name alone stands for one of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table<'a> {
    pub(crate) family: Family,
    pub(crate) name: &'a str,
}

impl<'a> From<&'a str> for Table<'a> {
    fn from(name: &'a str) -> Self {
        Self { family: Family::Ipv4, name }
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// How many elements go into one message: about 60 bytes each, and a list of them must stay below 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 512;

/// The type that a base chain names to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainType {
    Filter,
    Nat,
}

/// Where and when a base chain sees packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    pub(crate) kind: ChainType,
    /// `NF_INET_*`.
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// What a set's keys (or a map's data) are: the types that `nft` shows, packed six bits each, and the length in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataType {
    pub(crate) kind: u32,
    pub(crate) length: u32,
}

/// A set, or a map where `data` is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: DataType,
    pub(crate) data: Option<DataType>,
    pub(crate) ranges: bool,
    /// The keys are text, not numbers in network order; only `nft` asks.
    pub(crate) text: bool,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    pub(crate) data: Option<Vec<u8>>,
    /// The key is the first past a range.
    pub(crate) range_end: bool,
}

impl Element {
    /// A member of a set.
    pub(crate) fn key(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), data: None, range_end: false }
    }

    /// An entry of a map.
    pub(crate) fn entry(key: impl Into<Vec<u8>>, data: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), data: Some(data.into()), range_end: false }
    }
}

/// Changes of tables, applied together.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    messages: Vec<Message>,
    sets: u32,
}

impl Transaction {
    /// Applies the changes in the calling thread's network namespace.
    pub(crate) fn commit(self) -> Result<(), NetlinkError> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let bracket = |kind, operation: &str| {
            let mut header = [0; 4];
            header[2..].copy_from_slice(&NFNL_SUBSYS_NFTABLES.to_be_bytes());
            Message::new(kind, 0, &header, operation)
        };
        Connection::open(NetlinkProtocol::Netfilter)?.transact(
            bracket(NFNL_MSG_BATCH_BEGIN, "commit the packet filter's rules"),
            self.messages,
            bracket(NFNL_MSG_BATCH_END, "end the packet filter's transaction"),
        )
    }

    /// Creates the table; no error where it is there.
    pub(crate) fn add_table<'t>(&mut self, table: impl Into<Table<'t>>) {
        self.table(table.into(), flags::CREATE);
    }

    /// Creates the table; one that is there fails the transaction (`EEXIST`).
    pub(crate) fn create_table<'t>(&mut self, table: impl Into<Table<'t>>) {
        self.table(table.into(), flags::CREATE | flags::EXCL);
    }

    fn table(&mut self, table: Table<'_>, flags: u16) {
        let operation = format!("create the nftables table `{table}`");
        self.push(table.family, NFT_MSG_NEWTABLE, flags, operation).text(NFTA_TABLE_NAME, table.name);
    }

    /// Deletes the table with all that is in it.
    pub(crate) fn delete_table<'t>(&mut self, table: impl Into<Table<'t>>) {
        let table = table.into();
        self.push(table.family, NFT_MSG_DELTABLE, 0, format!("delete the nftables table `{table}`"))
            .text(NFTA_TABLE_NAME, table.name);
    }

    /// Creates the chain, which is a base chain where `hook` is there.
    pub(crate) fn add_chain<'t>(&mut self, table: impl Into<Table<'t>>, chain: &str, hook: Option<Hook>) {
        let table = table.into();
        let message = self.push(
            table.family,
            NFT_MSG_NEWCHAIN,
            flags::CREATE,
            format!("create the nftables chain `{table} {chain}`"),
        );
        message.text(NFTA_CHAIN_TABLE, table.name).text(NFTA_CHAIN_NAME, chain);
        if let Some(hook) = hook {
            message.nest(NFTA_CHAIN_HOOK, |attributes| {
                attributes
                    .be32(NFTA_HOOK_HOOKNUM, hook.number)
                    .be32(NFTA_HOOK_PRIORITY, hook.priority.cast_unsigned());
            });
            message.text(
                NFTA_CHAIN_TYPE,
                match hook.kind {
                    ChainType::Filter => "filter",
                    ChainType::Nat => "nat",
                },
            );
        }
    }

    /// Appends a rule to the chain. `mark` is kept with it as user data, to find it again.
    pub(crate) fn append_rule<'t>(
        &mut self,
        table: impl Into<Table<'t>>,
        chain: &str,
        mark: Option<&[u8]>,
        fill: impl FnOnce(&mut Expressions<'_>),
    ) {
        let table = table.into();
        let message = self.push(
            table.family,
            NFT_MSG_NEWRULE,
            flags::CREATE | flags::APPEND,
            format!("add a rule to the nftables chain `{table} {chain}`"),
        );
        message.text(NFTA_RULE_TABLE, table.name).text(NFTA_RULE_CHAIN, chain);
        message.nest(NFTA_RULE_EXPRESSIONS, |list| fill(&mut Expressions::new(list)));
        if let Some(mark) = mark {
            message.bytes(NFTA_RULE_USERDATA, mark);
        }
    }

    /// Deletes every rule of the chain.
    pub(crate) fn flush_chain<'t>(&mut self, table: impl Into<Table<'t>>, chain: &str) {
        let table = table.into();
        self.push(table.family, NFT_MSG_DELRULE, 0, format!("flush the nftables chain `{table} {chain}`"))
            .text(NFTA_RULE_TABLE, table.name)
            .text(NFTA_RULE_CHAIN, chain);
    }

    /// Deletes the rule with `handle`.
    pub(crate) fn delete_rule<'t>(&mut self, table: impl Into<Table<'t>>, chain: &str, handle: u64) {
        let table = table.into();
        self.push(
            table.family,
            NFT_MSG_DELRULE,
            0,
            format!("delete a rule of the nftables chain `{table} {chain}`"),
        )
        .text(NFTA_RULE_TABLE, table.name)
        .text(NFTA_RULE_CHAIN, chain)
        .bytes(NFTA_RULE_HANDLE, &handle.to_be_bytes());
    }

    /// Creates the set or map.
    pub(crate) fn add_set<'t>(&mut self, table: impl Into<Table<'t>>, set: &Set<'_>) {
        let table = table.into();
        self.sets += 1;
        let id = self.sets;
        let message = self.push(
            table.family,
            NFT_MSG_NEWSET,
            flags::CREATE,
            format!("create the nftables set `{table} {}`", set.name),
        );
        let ranges = if set.ranges { NFT_SET_INTERVAL } else { 0 };
        let map = if set.data.is_some() { NFT_SET_MAP } else { 0 };
        message
            .text(NFTA_SET_TABLE, table.name)
            .text(NFTA_SET_NAME, set.name)
            .be32(NFTA_SET_FLAGS, ranges | map)
            .be32(NFTA_SET_KEY_TYPE, set.key.kind)
            .be32(NFTA_SET_KEY_LEN, set.key.length)
            .be32(NFTA_SET_ID, id);
        if set.text {
            message.bytes(NFTA_SET_USERDATA, &HOST_ORDER_KEYS);
        }
        if let Some(data) = set.data {
            message.be32(NFTA_SET_DATA_TYPE, data.kind).be32(NFTA_SET_DATA_LEN, data.length);
        }
    }

    /// Adds elements; one that is there with the same data is no error.
    pub(crate) fn add_elements<'t>(&mut self, table: impl Into<Table<'t>>, set: &str, elements: &[Element]) {
        self.elements((NFT_MSG_NEWSETELEM, flags::CREATE, "add to"), table.into(), set, elements);
    }

    /// Deletes elements; one that is not there fails the transaction.
    pub(crate) fn delete_elements<'t>(
        &mut self,
        table: impl Into<Table<'t>>,
        set: &str,
        elements: &[Element],
    ) {
        self.elements((NFT_MSG_DELSETELEM, 0, "delete from"), table.into(), set, elements);
    }

    fn elements(
        &mut self,
        (kind, flags, verb): (u16, u16, &str),
        table: Table<'_>,
        set: &str,
        elements: &[Element],
    ) {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let message =
                self.push(table.family, kind, flags, format!("{verb} the nftables set `{table} {set}`"));
            message.text(NFTA_SET_ELEM_LIST_TABLE, table.name).text(NFTA_SET_ELEM_LIST_SET, set);
            message.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                for element in chunk {
                    list.nest(NFTA_LIST_ELEM, |attributes| write_element(attributes, element));
                }
            });
        }
    }

    fn push(&mut self, family: Family, kind: u16, flags: u16, operation: String) -> &mut Message {
        self.messages.push(message(family, kind, flags | flags::ACK, operation));
        self.messages.last_mut().expect("a message was just pushed")
    }
}

/// Writes one element's attributes.
fn write_element(attributes: &mut Message, element: &Element) {
    if element.range_end {
        attributes.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
    }
    attributes.nest(NFTA_SET_ELEM_KEY, |key| {
        key.bytes(NFTA_DATA_VALUE, &element.key);
    });
    if let Some(data) = &element.data {
        attributes.nest(NFTA_SET_ELEM_DATA, |value| {
            value.bytes(NFTA_DATA_VALUE, data);
        });
    }
}

/// A message of nf_tables for tables of `family`.
fn message(family: Family, kind: u16, flags: u16, operation: impl Into<String>) -> Message {
    Message::new(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, &[family.number(), 0, 0, 0], operation)
}

/// Size of `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// A base chain's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Drop,
    Accept,
}

/// The policy of the base chain `chain` of `table`; none where there is no such chain, or it has no hook.
pub(crate) fn chain_policy(table: Table<'_>, chain: &str) -> Result<Option<Policy>, NetlinkError> {
    let mut request = message(
        table.family,
        NFT_MSG_GETCHAIN,
        flags::ACK,
        format!("find the nftables chain `{table} {chain}`"),
    );
    request.text(NFTA_CHAIN_TABLE, table.name).text(NFTA_CHAIN_NAME, chain);
    let found = none_if_missing(Connection::open(NetlinkProtocol::Netfilter)?.query(request))?;
    let policy =
        found.iter().find_map(|payload| Attributes::after(payload, NFGENMSG).be32(NFTA_CHAIN_POLICY));
    Ok(policy.map(|policy| if policy == 0 { Policy::Drop } else { Policy::Accept }))
}

/// True where `table` has a chain `chain`.
pub(crate) fn chain_exists(table: Table<'_>, chain: &str) -> Result<bool, NetlinkError> {
    let mut request = message(
        table.family,
        NFT_MSG_GETCHAIN,
        flags::ACK,
        format!("find the nftables chain `{table} {chain}`"),
    );
    request.text(NFTA_CHAIN_TABLE, table.name).text(NFTA_CHAIN_NAME, chain);
    Ok(!none_if_missing(Connection::open(NetlinkProtocol::Netfilter)?.query(request))?.is_empty())
}

/// The handles of the rules of `chain` that carry the user data `mark`, in the chain's order.
pub(crate) fn marked_rules(table: Table<'_>, chain: &str, mark: &[u8]) -> Result<Vec<u64>, NetlinkError> {
    let mut request = message(
        table.family,
        NFT_MSG_GETRULE,
        flags::DUMP,
        format!("list the rules of the nftables chain `{table} {chain}`"),
    );
    request.text(NFTA_RULE_TABLE, table.name).text(NFTA_RULE_CHAIN, chain);
    let found = none_if_missing(Connection::open(NetlinkProtocol::Netfilter)?.query(request))?;
    Ok(found
        .iter()
        .map(|payload| Attributes::after(payload, NFGENMSG))
        .filter(|rule| rule.find(NFTA_RULE_USERDATA) == Some(mark))
        .filter_map(|rule| Some(u64::from_be_bytes(rule.find(NFTA_RULE_HANDLE)?.try_into().ok()?)))
        .collect())
}

/// The elements of the set or map `set` of `table`; none where there is no such set.
pub(crate) fn elements(table: Table<'_>, set: &str) -> Result<Vec<Element>, NetlinkError> {
    let mut request = message(
        table.family,
        NFT_MSG_GETSETELEM,
        flags::DUMP,
        format!("list the elements of the nftables set `{table} {set}`"),
    );
    request.text(NFTA_SET_ELEM_LIST_TABLE, table.name).text(NFTA_SET_ELEM_LIST_SET, set);
    let found = none_if_missing(Connection::open(NetlinkProtocol::Netfilter)?.query(request))?;
    let lists =
        found.iter().map(|payload| Attributes::after(payload, NFGENMSG).nested(NFTA_SET_ELEM_LIST_ELEMENTS));
    Ok(lists.flatten().filter_map(|(_, element)| read_element(Attributes::new(element))).collect())
}

/// Reads one element's attributes.
fn read_element(attributes: Attributes<'_>) -> Option<Element> {
    let key = attributes.nested(NFTA_SET_ELEM_KEY).find(NFTA_DATA_VALUE)?.to_vec();
    let data = attributes.nested(NFTA_SET_ELEM_DATA).find(NFTA_DATA_VALUE).map(<[u8]>::to_vec);
    let range_end = attributes.be32(NFTA_SET_ELEM_FLAGS).unwrap_or(0) & NFT_SET_ELEM_INTERVAL_END != 0;
    Some(Element { key, data, range_end })
}

/// What does not exist has no content.
fn none_if_missing(found: Result<Vec<Vec<u8>>, NetlinkError>) -> Result<Vec<Vec<u8>>, NetlinkError> {
    match found {
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => Ok(Vec::new()),
        result => result,
    }
}
