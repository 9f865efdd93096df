//! Bridge networks in the kernel: made, adopted, joined, swept and removed.
//!
//! What is the engine's bears its mark in the interface's alias (`ip -d link` shows it): `dory:<owner>` on a bridge,
//! `dory:<owner>:<endpoint>` on the host's end of a veth pair. A bridge with another mark is another engine's, and the
//! next free name is taken instead, so that any number of engines share a network namespace.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dory_sys::netlink::NetlinkProtocol;
use dory_types::NetworkId;

use crate::address::{Ipv4Subnet, MacAddress};
use crate::dns::{DnsForwarder, ForwarderError};
use crate::endpoint::{Endpoint, EndpointConfig, EndpointError};
use crate::foreign::{self, ForeignFirewall};
use crate::forwarding::{self, Forwarding};
use crate::ipam::{Ipam, IpamError};
use crate::lock;
use crate::netlink::{Connection, NetlinkError};
use crate::network::{Driver, Network, NetworkSubnet};
use crate::nftables::Firewall;
use crate::route::{self, Ipv4Setting};
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
    /// Every subnet of the pools overlaps a route or an address.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoSubnet,
    /// The subnet that was asked for overlaps a route or an address.
    #[error("the subnet {wanted} overlaps {existing}, which is in use")]
    Overlap {
        /// The subnet that was asked for.
        wanted: Ipv4Subnet,
        /// What is there.
        existing: Ipv4Subnet,
    },
    /// The subnet has no room for a gateway.
    #[error("the subnet {0} is too small for a network")]
    TooSmall(Ipv4Subnet),
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

/// What a bridge network is to be.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// The network's id, which the engine keeps: together with `owner` it tells whose a bridge is.
    pub id: NetworkId,
    /// The network's name.
    pub name: String,
    /// The bridge's name; where another engine has it, the number at its end is raised. At most 15 bytes.
    pub bridge: String,
    /// The engine's mark, the same at each start of the engine on the same data.
    pub owner: String,
    /// The subnet; by default the first of Docker's pools that collides with nothing.
    pub subnet: Option<Ipv4Subnet>,
    /// Addresses that the subnet must not contain although no route tells of them: the resolvers.
    pub avoid: Vec<Ipv4Addr>,
    /// The size of the largest packet, in bytes; by default that of the interface of the default route.
    pub mtu: Option<u32>,
    /// Driver options, kept with the network.
    pub options: BTreeMap<String, String>,
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
    /// Containers reach their network, and nothing beyond.
    #[error("IPv4 forwarding cannot be enabled ({0}): containers reach each other, not the outside")]
    NoForwarding(String),
    /// An iptables chain drops what is forwarded; rules of ours now let our bridge's packets through.
    #[error("the iptables chain FORWARD drops by default: rules for `{0}` were appended to it")]
    ForwardPolicyDrop(String),
    /// Tables of the older kind exist, which the engine does not read.
    #[error(
        "legacy iptables rules exist in this network namespace and may drop what containers send (`iptables-legacy -S`)"
    )]
    LegacyTables,
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
    firewall: Firewall,
    foreign: ForeignFirewall,
    ipam: Mutex<Ipam>,
    facts: Vec<NetworkFact>,
}

impl BridgeNetwork {
    /// Makes the network that `config` asks for in the calling thread's network namespace, or adopts the one that an
    /// earlier engine made with the same mark and id: its subnet and its published ports stay as they are.
    ///
    /// # Errors
    /// [`BridgeError`], one variant for each step; a bridge that was made is removed again.
    pub fn ensure(config: &BridgeConfig) -> Result<Self, BridgeError> {
        let _lock = lock::acquire();
        let mut connection = Connection::open(NetlinkProtocol::Route).map_err(BridgeError::Survey)?;
        let survey = Survey::new(&mut connection).map_err(BridgeError::Survey)?;
        let mark = bridge_mark(&config.owner, config.id.short());
        let place = survey.place(&config.bridge, &mark)?;
        let subnet = survey.subnet(config, place.existing)?;
        let mtu = config.mtu.unwrap_or_else(|| survey.outward().map_or(DEFAULT_MTU, |link| link.mtu));
        let bridge = place.name.as_str();
        let firewall = Firewall::new(bridge);
        let made = make_bridge(&mut connection, &place, &mark, subnet, mtu).and_then(|index| {
            let installed = firewall.install(bridge, subnet.subnet);
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
        facts.extend(foreign.open());
        if foreign::legacy_tables_exist() {
            facts.push(NetworkFact::LegacyTables);
        }
        let ipam = Ipam::new(config.id.clone(), &config.name, subnet.subnet, subnet.gateway);
        let network = Network {
            id: config.id.clone(),
            name: config.name.clone(),
            driver: Driver::Bridge,
            subnets: vec![subnet],
            bridge: place.name,
            mtu,
            options: config.options.clone(),
        };
        let (owner, ipam) = (config.owner.clone(), Mutex::new(ipam));
        Ok(Self { network, owner, index, firewall, foreign, ipam, facts })
    }

    /// The network as a value.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What the operator should know.
    pub fn facts(&self) -> &[NetworkFact] {
        &self.facts
    }

    /// The subnet and the bridge's own address in it.
    pub fn subnet(&self) -> NetworkSubnet {
        self.network.subnets[0]
    }

    /// Takes an address for a container: `requested`, or the lowest that is free.
    ///
    /// # Errors
    /// As [`Ipam::allocate`].
    pub fn allocate(&self, requested: Option<Ipv4Addr>) -> Result<Ipv4Addr, IpamError> {
        self.ipam().allocate(requested)
    }

    /// Gives a container's address back.
    pub fn release(&self, address: Ipv4Addr) {
        self.ipam().release(address);
    }

    /// Takes the addresses that running containers hold; returns those that are not of this subnet.
    pub fn restore(&self, addresses: impl IntoIterator<Item = Ipv4Addr>) -> Vec<Ipv4Addr> {
        self.ipam().restore(addresses)
    }

    /// Joins `netns` to the network by a veth pair whose inner end is set up with its address and the default route.
    /// The address is the caller's, from [`Self::allocate`].
    ///
    /// There is no counterpart for a container that ends: the pair goes with the namespace. Deleting it by hand makes
    /// the caller wait for a grace period of the kernel, some 17 ms.
    ///
    /// # Errors
    /// [`EndpointError`]; nothing is left behind.
    pub fn connect(&self, netns: BorrowedFd<'_>, config: &EndpointConfig) -> Result<Endpoint, EndpointError> {
        // A firewall that came after the engine (a dockerd, say) may have begun to drop what is forwarded.
        if let Some(fact @ NetworkFact::ForwardPolicyStays(_)) = self.foreign.open() {
            tracing::warn!(%fact, network = %self.network.name, "Packets of the network may be dropped");
        }
        let mark = endpoint_mark(&self.owner, self.network.id.short(), &config.mark);
        crate::endpoint::connect(&self.network, self.index, &mark, netns, config)
    }

    /// A DNS forwarder on the bridge's address, to which port 53 of that address is sent from now on. It is to be run by
    /// the caller, and takes the place of an earlier engine's. `upstreams` are tried in order.
    ///
    /// # Errors
    /// [`ForwarderError::Listen`] and [`ForwarderError::Redirect`].
    pub fn dns_forwarder(&self, upstreams: Vec<SocketAddr>) -> Result<DnsForwarder, ForwarderError> {
        let NetworkSubnet { subnet, gateway } = self.subnet();
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
        crate::endpoint::delete_all(&mut connection, &dead)?;
        Ok(dead)
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

    fn ipam(&self) -> MutexGuard<'_, Ipam> {
        // A panic elsewhere leaves a set of addresses, which is always whole.
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    NetworkSubnet { subnet, gateway }: NetworkSubnet,
    mtu: u32,
) -> Result<u32, BridgeError> {
    let name = place.name.as_str();
    let failed = |error| BridgeError::SetUp(name.to_owned(), error);
    let index = match place.existing {
        Some(index) => index,
        None => {
            let mac = MacAddress::from_ipv4(gateway);
            let requests = [route::create_bridge(name, mac, mtu), route::set_alias(name, mark)];
            connection.request(&requests).map_err(failed)?;
            let link = route::link(connection, name).map_err(failed)?;
            link.ok_or_else(|| failed(NetlinkError::Malformed(format!("find the interface `{name}`"))))?.index
        }
    };
    let requests = [
        // A kernel without IPv6 refuses this one, and needs it not.
        route::disable_ipv6_autoconfiguration(name),
        route::add_address(index, gateway, subnet),
        route::set_up(name),
        route::set_ipv4(name, &[(Ipv4Setting::RouteLocalnet, 1)]),
    ];
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
