//! Bridge networks in the kernel: made, adopted, joined, swept and removed.
//!
//! What is the engine's bears its mark in the interface's alias (`ip -d link` shows it): `dory:<owner>` on a bridge,
//! `dory:<owner>:<endpoint>` on the host's end of a veth pair. A bridge with another mark is another engine's, and the
//! next free name is taken instead, so that any number of engines share a network namespace.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dory_sys::netlink::NetlinkProtocol;
use dory_types::NetworkId;

use crate::address::MacAddress;
use crate::dns::{DnsForwarder, ForwarderError};
use crate::endpoint::{self, Endpoint, EndpointConfig, EndpointError, Port};
use crate::foreign::ForeignFirewall;
use crate::forwarding::{self, Forwarding};
use crate::ipam::{self, Ipam, IpamError};
use crate::lock;
use crate::netlink::{Connection, NetlinkError};
use crate::network::{Driver, Network, NetworkSubnet};
use crate::nftables::{Admission, Family, Firewall};
use crate::pool::{self, AddressPool};
use crate::route::{self, Ipv4Setting};
use crate::subnet::Subnet;
use crate::survey::{Place, Survey};

/// The size of the largest packet on Ethernet, where no default route tells of another.
const DEFAULT_MTU: u32 = 1500;

/// A bridge network could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The interfaces, addresses or routes could not be read.
    #[error("cannot survey the network namespace")]
    Survey(#[source] NetlinkError),
    /// Every name that was tried belongs to something else.
    #[error("no free name for a bridge: `{0}` and the names after it belong to others")]
    NoName(String),
    /// The name that was asked for belongs to another interface.
    #[error("the interface name `{0}` is in use")]
    NameTaken(String),
    /// The bridge can have no IPv6 address.
    #[error("cannot enable IPv6 on the bridge `{0}`")]
    NoIpv6(String, #[source] std::io::Error),
    /// Every subnet of the pools overlaps a route or an address.
    #[error(
        "could not find an available, non-overlapping address pool among the defaults to assign to the network"
    )]
    NoSubnet,
    /// The subnet that was asked for overlaps a route or an address.
    #[error("the subnet {wanted} overlaps {existing}, which is in use")]
    Overlap {
        /// The subnet that was asked for.
        wanted: Subnet,
        /// What is there.
        existing: Subnet,
    },
    /// The subnet has no room for a gateway.
    #[error("the subnet {0} is too small for a network")]
    TooSmall(Subnet),
    /// The bridge could not be made or set up.
    #[error("cannot set up the bridge `{0}`")]
    SetUp(String, #[source] NetlinkError),
    /// The packet filter's rules could not be made.
    #[error("cannot install the packet filter's rules of the bridge `{0}`")]
    Firewall(String, #[source] NetlinkError),
    /// Something could not be removed; the rest was.
    #[error("cannot remove the bridge `{0}` wholly")]
    Remove(String, #[source] NetlinkError),
}

/// What is wished of a network's addresses in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetWish {
    /// True for IPv4.
    pub ipv4: bool,
    /// The subnet; by default the first of the pools that collides with nothing.
    pub subnet: Option<Subnet>,
    /// The bridge's address; by default the subnet's first.
    pub gateway: Option<IpAddr>,
    /// Where addresses are taken from that nobody asks for.
    pub range: Option<Subnet>,
    /// Addresses by name that no container gets.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

impl SubnetWish {
    /// Any subnet of IPv4.
    pub fn ipv4() -> Self {
        Self { ipv4: true, subnet: None, gateway: None, range: None, auxiliary: BTreeMap::new() }
    }

    /// Any subnet of IPv6.
    pub fn ipv6() -> Self {
        Self { ipv4: false, ..Self::ipv4() }
    }

    /// The wish for just that place: what a record holds.
    pub fn of(place: &NetworkSubnet) -> Self {
        Self {
            ipv4: place.subnet.is_ipv4(),
            subnet: Some(place.subnet),
            gateway: Some(place.gateway),
            range: place.range,
            auxiliary: place.auxiliary.clone(),
        }
    }

    /// The place that came of it.
    pub(crate) fn place(&self, subnet: Subnet, gateway: IpAddr) -> NetworkSubnet {
        NetworkSubnet { subnet, gateway, range: self.range, auxiliary: self.auxiliary.clone() }
    }
}

/// What a bridge network is to be.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// The network's id, which the engine keeps: together with `owner` it tells whose a bridge is.
    pub id: NetworkId,
    /// The network's name.
    pub name: String,
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// True where the bridge must have that name; else the number at its end is raised where another engine has it.
    pub exact_name: bool,
    /// The engine's mark, the same at each start of the engine on the same data.
    pub owner: String,
    /// The subnets: at most one for each family.
    pub subnets: Vec<SubnetWish>,
    /// Where subnets are taken from that nobody asks for.
    pub pools: Vec<AddressPool>,
    /// Subnets of the engine's other networks, which may have no bridge yet.
    pub reserved: Vec<Subnet>,
    /// Addresses that a chosen subnet must not contain although no route tells of them: the resolvers.
    pub avoid: Vec<IpAddr>,
    /// The size of the largest packet, in bytes; by default that of the interface of the default route.
    pub mtu: Option<u32>,
    /// True where nothing goes beyond the network.
    pub internal: bool,
    /// True where containers of the network may talk to each other.
    pub intercontainer: bool,
    /// True where what leaves the network gets an address of this machine.
    pub masquerade: bool,
    /// Driver options, kept with the network.
    pub options: BTreeMap<String, String>,
}

impl BridgeConfig {
    /// The defaults: any subnet of IPv4, and Docker's pools.
    pub fn new(
        id: NetworkId,
        name: impl Into<String>,
        bridge: impl Into<String>,
        owner: impl Into<String>,
    ) -> Self {
        let owner = owner.into();
        // Any five bytes that stay the same will do; a hash spreads what an id's text has in common.
        let seed = owner.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let [a, b, c, d, e, ..] = seed.to_be_bytes();
        Self {
            id,
            name: name.into(),
            bridge: bridge.into(),
            exact_name: false,
            owner,
            subnets: vec![SubnetWish::ipv4()],
            pools: pool::default_pools(pool::unique_local([a, b, c, d, e])),
            reserved: Vec::new(),
            avoid: Vec::new(),
            mtu: None,
            internal: false,
            intercontainer: true,
            masquerade: true,
            options: BTreeMap::new(),
        }
    }
}

/// A circumstance that the operator should know of; none stops the network from being used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkFact {
    /// The engine switched forwarding on for the whole namespace.
    #[error(
        "net.ipv4.ip_forward was 0 and is now 1: this machine forwards between its other interfaces as well"
    )]
    ForwardingEnabled,
    /// `/proc/sys` cannot be written, so each interface was set for itself.
    #[error(
        "net.ipv4.ip_forward cannot be written ({0}): forwarding is on for the interfaces that exist now, not for later ones"
    )]
    ForwardingByInterface(String),
    /// The engine switched IPv6 forwarding on for the whole namespace.
    #[error(
        "net.ipv6.conf.all.forwarding was 0 and is now 1: this machine forwards between its other interfaces as well"
    )]
    Ipv6ForwardingEnabled,
    /// Containers reach their network by IPv6, and nothing beyond.
    #[error("IPv6 forwarding cannot be enabled ({0}): containers reach each other by IPv6, not the outside")]
    NoIpv6Forwarding(String),
    /// Containers reach their network, and nothing beyond.
    #[error("IPv4 forwarding cannot be enabled ({0}): containers reach each other, not the outside")]
    NoForwarding(String),
    /// An iptables chain drops what is forwarded; rules of ours now let our bridge's packets through.
    #[error("the iptables chain FORWARD drops by default: rules for `{0}` were appended to it")]
    ForwardPolicyDrop(String),
    /// The iptables chain drops, and could not be changed.
    #[error(
        "the iptables chain FORWARD drops by default and refuses our rules ({0}): containers may not reach the outside"
    )]
    ForwardPolicyStays(String),
}

/// A bridge network that exists. Shared by the engine's threads.
#[derive(Debug)]
pub struct BridgeNetwork {
    network: Network,
    owner: String,
    index: u32,
    internal: bool,
    intercontainer: bool,
    firewall: Firewall,
    foreign: ForeignFirewall,
    ipam: Mutex<Vec<Ipam>>,
    facts: Vec<NetworkFact>,
}

impl BridgeNetwork {
    /// Makes the network that `config` asks for in the calling thread's network namespace, or adopts the one that an
    /// earlier engine made with the same mark and id: its subnets and its published ports stay as they are.
    ///
    /// # Errors
    /// [`BridgeError`], one variant for each step; a bridge that was made is removed again.
    pub fn ensure(config: &BridgeConfig) -> Result<Self, BridgeError> {
        let _lock = lock::acquire();
        let mut connection = Connection::open(NetlinkProtocol::Route).map_err(BridgeError::Survey)?;
        let survey = Survey::new(&mut connection).map_err(BridgeError::Survey)?;
        let mark = bridge_mark(&config.owner, config.id.short());
        let place = survey.place(&config.bridge, config.exact_name, &mark)?;
        let subnets = config
            .subnets
            .iter()
            .map(|wish| survey.place_of(config, wish, place.existing))
            .collect::<Result<Vec<_>, _>>()?;
        let mtu = config.mtu.unwrap_or_else(|| survey.outward().map_or(DEFAULT_MTU, |link| link.mtu));
        let bridge = place.name.as_str();
        let families: Vec<_> = subnets.iter().map(|place| Family::of(place.gateway)).collect();
        let firewall = Firewall::new(bridge, &families);
        let admission = Admission { internal: config.internal, masquerade: config.masquerade };
        let made = make_bridge(&mut connection, &place, &mark, &subnets, mtu).and_then(|index| {
            let places: Vec<_> = subnets.iter().map(|place| place.subnet).collect();
            let installed = firewall.install(bridge, &places, admission);
            installed.map_err(|error| BridgeError::Firewall(bridge.to_owned(), error))?;
            Ok(index)
        });
        if made.is_err() && place.existing.is_none() {
            // It may or may not be there; the first error is the one to tell.
            let _ = connection.request(&[route::delete_link(bridge)]);
        }
        let index = made?;
        let foreign = ForeignFirewall::new(bridge);
        let mut facts = forwarding_facts(&mut connection, &survey, bridge);
        if families.contains(&Family::Ipv6)
            && let Some(fact) = forwarding::enable_ipv6()
        {
            facts.push(fact);
        }
        facts.extend(foreign.open());
        let ipam = subnets.iter().map(|place| Ipam::new(config.id.clone(), &config.name, place)).collect();
        let network = Network {
            id: config.id.clone(),
            name: config.name.clone(),
            driver: Driver::Bridge,
            subnets,
            bridge: place.name,
            mtu,
            options: config.options.clone(),
        };
        let (owner, ipam) = (config.owner.clone(), Mutex::new(ipam));
        let (internal, intercontainer) = (config.internal, config.intercontainer);
        Ok(Self { network, owner, index, internal, intercontainer, firewall, foreign, ipam, facts })
    }

    /// The network as a value.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What the operator should know.
    pub fn facts(&self) -> &[NetworkFact] {
        &self.facts
    }

    /// The bridge's own address of IPv4; none for a network of IPv6 alone.
    pub fn gateway(&self) -> Option<std::net::Ipv4Addr> {
        match self.network.ipv4()?.gateway {
            IpAddr::V4(gateway) => Some(gateway),
            IpAddr::V6(_) => None,
        }
    }

    /// Takes one address in each of the network's subnets for a container: the one of `requested` that belongs there, or
    /// the lowest that is free.
    ///
    /// # Errors
    /// As [`Ipam::allocate`]; then none is taken.
    pub fn allocate(&self, requested: &[IpAddr]) -> Result<Vec<IpAddr>, IpamError> {
        ipam::allocate_all(&mut self.ipam(), requested)
    }

    /// Gives a container's addresses back.
    pub fn release(&self, addresses: &[IpAddr]) {
        ipam::release_all(&mut self.ipam(), addresses);
    }

    /// Takes the addresses that running containers hold; returns those that are of none of the subnets.
    pub fn restore(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        let mut rest: Vec<IpAddr> = addresses.into_iter().collect();
        for ipam in self.ipam().iter_mut() {
            rest = ipam.restore(rest);
        }
        rest
    }

    /// Joins `netns` to the network by a veth pair whose inner end is set up with its addresses and, where asked for, the
    /// default routes. The addresses are the caller's, from [`Self::allocate`].
    ///
    /// A container that ends needs no [`disconnect`](crate::disconnect): the pair goes with the namespace, and nobody
    /// waits for it.
    ///
    /// # Errors
    /// [`EndpointError`]; nothing is left behind.
    pub fn connect(&self, netns: BorrowedFd<'_>, config: &EndpointConfig) -> Result<Endpoint, EndpointError> {
        // A firewall that came after the engine (a dockerd, say) may have begun to drop what is forwarded.
        if let Some(fact @ NetworkFact::ForwardPolicyStays(_)) = self.foreign.open() {
            tracing::warn!(%fact, network = %self.network.name, "Packets of the network may be dropped");
        }
        let alias = endpoint_mark(&self.owner, self.network.id.short(), &config.mark);
        let port = Port {
            bridge: self.index,
            alias: &alias,
            isolated: !self.intercontainer,
            internal: self.internal,
        };
        endpoint::connect(&self.network, port, netns, config)
    }

    /// A DNS forwarder on the bridge's address, to which port 53 of that address is sent from now on. It is to be run by
    /// the caller, and takes the place of an earlier engine's. `upstreams` are tried in order.
    ///
    /// # Errors
    /// [`ForwarderError::NoAddress`], [`ForwarderError::Listen`] and [`ForwarderError::Redirect`].
    pub fn dns_forwarder(&self, upstreams: Vec<SocketAddr>) -> Result<DnsForwarder, ForwarderError> {
        let subnet = self.network.ipv4().and_then(|place| place.subnet.as_ipv4());
        let (Some(subnet), Some(gateway)) = (subnet, self.gateway()) else {
            return Err(ForwarderError::NoAddress(self.network.bridge.clone()));
        };
        let forwarder = DnsForwarder::bind(gateway, subnet, upstreams)?;
        let (datagrams, connections) =
            forwarder.local_addresses().map_err(|error| ForwarderError::Listen(gateway, error))?;
        self.firewall
            .redirect_dns(gateway, datagrams.port(), connections.port())
            .map_err(|error| ForwarderError::Redirect(gateway, error))?;
        Ok(forwarder)
    }

    /// Deletes the pairs of this network that none of `live` (the names of host interfaces) claims: what is left of
    /// containers that ended while no engine ran. Returns their names.
    ///
    /// # Errors
    /// The refusal of the kernel.
    pub fn sweep(&self, live: &[String]) -> Result<Vec<String>, NetlinkError> {
        let mut connection = Connection::open(NetlinkProtocol::Route)?;
        let mark = endpoint_mark(&self.owner, self.network.id.short(), "");
        let dead: Vec<_> = route::links(&mut connection)?
            .into_iter()
            .filter(|link| link.alias.starts_with(&mark) && !live.contains(&link.name))
            .map(|link| link.name)
            .collect();
        endpoint::delete_all(&mut connection, &dead)?;
        Ok(dead)
    }

    /// Takes the network's rules and addresses away, at once: its subnets are free from here on. The bridge itself, which
    /// takes the kernel a grace period, is left to [`Self::remove`].
    ///
    /// # Errors
    /// [`BridgeError::Remove`] with the first failure, after everything was tried.
    pub fn retire(&self) -> Result<(), BridgeError> {
        let rules = self.foreign.close().and(self.firewall.remove());
        let addresses = Connection::open(NetlinkProtocol::Route).and_then(|mut connection| {
            let delete = |place: &NetworkSubnet| {
                route::delete_address(self.index, place.gateway, place.subnet.prefix())
            };
            connection.request(&self.network.subnets.iter().map(delete).collect::<Vec<_>>())
        });
        rules.and(addresses).map_err(|error| BridgeError::Remove(self.network.bridge.clone(), error))
    }

    /// Removes the network: rules, pairs and bridge. Containers that are still joined lose it.
    ///
    /// # Errors
    /// [`BridgeError::Remove`] with the first failure, after everything was tried.
    pub fn remove(&self) -> Result<(), BridgeError> {
        let rules = self.foreign.close().and(self.firewall.remove());
        let pairs = self.sweep(&[]).map(drop);
        let bridge = Connection::open(NetlinkProtocol::Route)
            .and_then(|mut connection| connection.request(&[route::delete_link(&self.network.bridge)]));
        rules.and(pairs).and(bridge).map_err(|error| BridgeError::Remove(self.network.bridge.clone(), error))
    }

    /// The network's table in the packet filter.
    pub(crate) fn firewall(&self) -> &Firewall {
        &self.firewall
    }

    fn ipam(&self) -> MutexGuard<'_, Vec<Ipam>> {
        // A panic elsewhere leaves sets of addresses, which are always whole.
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the bridges with the mark of the engine `owner` whose networks are none of `live`: what is left of networks
/// that were removed, or never recorded, when an engine died. Returns their names.
///
/// # Errors
/// The first refusal of the kernel, after everything was tried.
pub fn sweep_bridges(owner: &str, live: &[NetworkId]) -> Result<Vec<String>, NetlinkError> {
    let mut connection = Connection::open(NetlinkProtocol::Route)?;
    let prefix = bridge_mark(owner, "");
    let dead = |link: &route::Link| {
        let id = link.alias.strip_prefix(&prefix).filter(|_| link.kind == "bridge");
        id.is_some_and(|id| !live.iter().any(|network| network.short() == id))
    };
    let links = route::links(&mut connection)?;
    let mut swept = Vec::new();
    let mut outcome = Ok(());
    for link in links.iter().filter(|link| dead(link)) {
        let pairs = format!("{}:", link.alias);
        let ports: Vec<_> =
            links.iter().filter(|it| it.alias.starts_with(&pairs)).map(|it| it.name.clone()).collect();
        let removed = ForeignFirewall::new(&link.name)
            .close()
            .and(remove_tables(&link.name))
            .and(endpoint::delete_all(&mut connection, &ports))
            .and(connection.request(&[route::delete_link(&link.name)]));
        outcome = outcome.and(removed);
        swept.push(link.name.clone());
    }
    outcome.map(|()| swept)
}

/// Deletes the pairs with the mark of the engine `owner`, in whichever network, that none of `live` (the names of host
/// interfaces) claims: what is left of containers that ended while no engine ran, and of a connect or a disconnect in whose
/// middle an engine died. Returns their names.
///
/// # Errors
/// The refusal of the kernel.
pub fn sweep_endpoints(owner: &str, live: &[String]) -> Result<Vec<String>, NetlinkError> {
    let mut connection = Connection::open(NetlinkProtocol::Route)?;
    let prefix = bridge_mark(owner, "");
    let of_owner = |alias: &str| alias.strip_prefix(&prefix).is_some_and(|rest| rest.contains(':'));
    let dead: Vec<_> = route::links(&mut connection)?
        .into_iter()
        .filter(|link| of_owner(&link.alias) && !live.contains(&link.name))
        .map(|link| link.name)
        .collect();
    endpoint::delete_all(&mut connection, &dead)?;
    Ok(dead)
}

/// Removes the tables of the bridge `name`. A kernel without IPv6 has none of that family, and refuses to make one.
fn remove_tables(name: &str) -> Result<(), NetlinkError> {
    let _ = Firewall::new(name, &[Family::Ipv6]).remove();
    Firewall::new(name, &[Family::Ipv4]).remove()
}

/// The alias of a bridge.
fn bridge_mark(owner: &str, network: &str) -> String {
    format!("dory:{owner}:{network}")
}

/// The alias of the host's end of a pair.
fn endpoint_mark(owner: &str, network: &str, endpoint: &str) -> String {
    format!("dory:{owner}:{network}:{endpoint}")
}

/// Brings the bridge to its full form, and returns its index. What is in order already stays as it is.
fn make_bridge(
    connection: &mut Connection,
    place: &Place,
    mark: &str,
    subnets: &[NetworkSubnet],
    mtu: u32,
) -> Result<u32, BridgeError> {
    let name = place.name.as_str();
    let failed = |error| BridgeError::SetUp(name.to_owned(), error);
    let index = match place.existing {
        Some(index) => index,
        None => {
            let ipv4 = subnets.iter().find_map(|place| match place.gateway {
                IpAddr::V4(gateway) => Some(MacAddress::from_ipv4(gateway)),
                IpAddr::V6(_) => None,
            });
            let mac = match ipv4 {
                Some(mac) => mac,
                None => MacAddress::random().map_err(|errno| failed(NetlinkError::Open(errno.into())))?,
            };
            let requests = [
                route::create_bridge(name, mac, mtu),
                route::set_alias(name, mark),
                route::set_mtu(name, mtu),
            ];
            connection.request(&requests).map_err(failed)?;
            let link = route::link(connection, name).map_err(failed)?;
            link.ok_or_else(|| failed(NetlinkError::Malformed(format!("find the interface `{name}`"))))?.index
        }
    };
    let ipv6 = subnets.iter().any(|place| !place.subnet.is_ipv4());
    // A kernel without IPv6 refuses this one, and needs it not.
    let mut requests = vec![route::disable_ipv6_autoconfiguration(name)];
    let address = |place: &NetworkSubnet| route::add_address(index, place.gateway, place.subnet);
    requests.extend(subnets.iter().map(address));
    if ipv6 {
        endpoint::enable_ipv6(name).map_err(|error| BridgeError::NoIpv6(name.to_owned(), error))?;
        // Neighbours are asked for from a link-local address; Docker's bridges have this one.
        let link_local = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]);
        requests.push(route::add_address(index, link_local, Subnet::containing(link_local, 64)));
    }
    requests.push(route::set_up(name));
    requests.push(route::set_ipv4(name, &[(Ipv4Setting::RouteLocalnet, 1)]));
    let answers = connection.request_each(&requests).map_err(failed)?;
    answers.into_iter().skip(1).collect::<Result<(), _>>().map_err(failed)?;
    Ok(index)
}

/// Switches forwarding on, and tells how it went.
fn forwarding_facts(connection: &mut Connection, survey: &Survey, bridge: &str) -> Vec<NetworkFact> {
    let interfaces = survey.links.iter().filter(|link| !link.loopback).map(|link| link.name.as_str());
    match forwarding::enable(connection, interfaces.chain([bridge])) {
        Forwarding::WasOn => Vec::new(),
        Forwarding::Enabled => vec![NetworkFact::ForwardingEnabled],
        Forwarding::ByInterface(why) => vec![NetworkFact::ForwardingByInterface(why)],
        Forwarding::Refused(why) => vec![NetworkFact::NoForwarding(why)],
    }
}
