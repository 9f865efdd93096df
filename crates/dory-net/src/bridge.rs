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
use crate::netlink::{Connection, NetlinkError};
use crate::network::{Driver, Network, NetworkSubnet};
use crate::nftables::Firewall;
use crate::pool;
use crate::route::{self, InterfaceAddress, Ipv4Setting, Link, Route};

/// How many bridges of other engines are stepped over before giving up.
const NAMES_TRIED: u32 = 64;

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
    /// The network's id.
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

/// What exists in the engine's network namespace.
struct Survey {
    links: Vec<Link>,
    addresses: Vec<InterfaceAddress>,
    routes: Vec<Route>,
}

impl Survey {
    fn new(connection: &mut Connection) -> Result<Self, NetlinkError> {
        Ok(Self {
            links: route::links(connection)?,
            addresses: route::addresses(connection)?,
            routes: route::routes(connection)?,
        })
    }

    /// The subnets of addresses and routes, except those of the interface `own`.
    fn in_use(&self, own: Option<u32>) -> Vec<Ipv4Subnet> {
        let addresses = self.addresses.iter().filter(|it| Some(it.index) != own).map(|it| it.subnet);
        let routes = self.routes.iter().filter(|it| own.is_none() || it.interface != own);
        addresses.chain(routes.map(|it| it.destination)).collect()
    }

    /// The interface of the default route.
    fn outward(&self) -> Option<&Link> {
        let index = self.routes.iter().find(|it| it.destination.prefix() == 0)?.interface?;
        self.links.iter().find(|link| link.index == index)
    }

    /// The name to use, beginning at `wanted`, and our bridge where it exists under that name.
    fn bridge(&self, wanted: &str, mark: &str) -> Option<(String, Option<&Link>)> {
        if let Some(ours) = self.links.iter().find(|link| link.kind == "bridge" && link.alias == mark) {
            return Some((ours.name.clone(), Some(ours)));
        }
        let stem = wanted.trim_end_matches(|last: char| last.is_ascii_digit());
        let first: u32 = wanted[stem.len()..].parse().unwrap_or(0);
        let later = (1..NAMES_TRIED).map(|step| format!("{stem}{}", first.saturating_add(step)));
        std::iter::once(wanted.to_owned())
            .chain(later)
            .find(|name| !self.links.iter().any(|link| link.name == *name))
            .map(|name| (name, None))
    }
}

impl BridgeNetwork {
    /// Makes the network that `config` asks for in the calling thread's network namespace, or adopts the one that an
    /// earlier engine with the same mark made: its subnet and its published ports stay as they are.
    ///
    /// # Errors
    /// [`BridgeError`], one variant for each step.
    pub fn ensure(config: &BridgeConfig) -> Result<Self, BridgeError> {
        let mut connection = Connection::open(NetlinkProtocol::Route).map_err(BridgeError::Survey)?;
        let survey = Survey::new(&mut connection).map_err(BridgeError::Survey)?;
        let mark = bridge_mark(&config.owner, config.id.short());
        let (bridge, existing) =
            survey.bridge(&config.bridge, &mark).ok_or_else(|| BridgeError::NoName(config.bridge.clone()))?;
        let existing_index = existing.map(|link| link.index);
        let NetworkSubnet { subnet, gateway } = choose_subnet(config, &survey, existing_index)?;
        let mtu = config.mtu.unwrap_or_else(|| survey.outward().map_or(1500, |link| link.mtu));

        let set_up = |error| BridgeError::SetUp(bridge.clone(), error);
        if existing.is_none() {
            let requests = [route::create_bridge(&bridge, MacAddress::from_ipv4(gateway), mtu)];
            connection.request(&requests).map_err(set_up)?;
        }
        let index = match existing_index {
            Some(index) => index,
            None => index_of(&mut connection, &bridge).map_err(set_up)?,
        };
        let requests = [
            route::set_alias(&bridge, &mark),
            route::disable_ipv6_autoconfiguration(&bridge),
            route::add_address(index, gateway, subnet),
            route::set_up(&bridge),
            route::set_ipv4(&bridge, &[(Ipv4Setting::RouteLocalnet, 1)]),
        ];
        // A kernel without IPv6 refuses the second request, and needs none.
        for (number, answer) in connection.request_each(&requests).map_err(set_up)?.into_iter().enumerate() {
            if number != 1 {
                answer.map_err(set_up)?;
            }
        }

        let firewall = Firewall::new(&bridge);
        firewall.install(&bridge, subnet).map_err(|error| BridgeError::Firewall(bridge.clone(), error))?;
        let foreign = ForeignFirewall::new(&bridge);
        let mut facts = forwarding_facts(&mut connection, &survey, &bridge);
        facts.extend(foreign.open());
        if foreign::legacy_tables_exist() {
            facts.push(NetworkFact::LegacyTables);
        }
        let network = Network {
            id: config.id.clone(),
            name: config.name.clone(),
            driver: Driver::Bridge,
            subnets: vec![NetworkSubnet { subnet, gateway }],
            bridge,
            mtu,
            options: config.options.clone(),
        };
        let ipam = Mutex::new(Ipam::new(config.id.clone(), &config.name, subnet, gateway));
        Ok(Self { network, owner: config.owner.clone(), index, firewall, foreign, ipam, facts })
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

/// The index of the interface `name`, which was just made.
fn index_of(connection: &mut Connection, name: &str) -> Result<u32, NetlinkError> {
    let link = route::link(connection, name)?;
    link.map(|link| link.index).ok_or_else(|| NetlinkError::Malformed(format!("find the interface `{name}`")))
}

/// The subnet of the network and the bridge's address: those of the bridge that exists, those that were asked for, or
/// the first that are free.
fn choose_subnet(
    config: &BridgeConfig,
    survey: &Survey,
    existing: Option<u32>,
) -> Result<NetworkSubnet, BridgeError> {
    let kept = survey.addresses.iter().find(|address| Some(address.index) == existing);
    if let Some(kept) = kept
        && config.subnet.is_none_or(|wanted| wanted == kept.subnet)
    {
        return Ok(NetworkSubnet { subnet: kept.subnet, gateway: kept.address });
    }
    let mut in_use = survey.in_use(existing);
    let subnet = match config.subnet {
        Some(wanted) => {
            let overlap = in_use.into_iter().find(|used| used.prefix() > 0 && used.overlaps(wanted));
            if let Some(existing) = overlap {
                return Err(BridgeError::Overlap { wanted, existing });
            }
            wanted
        }
        None => {
            in_use.extend(config.avoid.iter().map(|address| Ipv4Subnet::containing(*address, 32)));
            pool::first_free(&in_use).ok_or(BridgeError::NoSubnet)?
        }
    };
    match subnet.nth(1).filter(|gateway| *gateway != subnet.broadcast()) {
        Some(gateway) => Ok(NetworkSubnet { subnet, gateway }),
        None => Err(BridgeError::TooSmall(subnet)),
    }
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
