//! Endpoints: a container's place in a network, and the loopback that every container has.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use dory_sys::netlink::{NetlinkProtocol, in_network_namespace};
use dory_types::NetworkId;
use serde::{Deserialize, Serialize};

use crate::address::MacAddress;
use crate::netlink::{Connection, Message, NetlinkError};
use crate::network::{Network, NetworkSubnet};
use crate::route::{self, VethPeer};
use crate::subnet::Subnet;

/// How the host's ends of veth pairs begin; ten random digits follow. A name made from the container's id would still
/// be taken when a container starts again at once, because the kernel clears a dead namespace in its own time.
const HOST_INTERFACE_PREFIX: &str = "vdory";

/// A container could not be joined to a network.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// No random bytes for the interface's name.
    #[error("cannot choose an interface name")]
    Name(#[source] rustix::io::Errno),
    /// The veth pair could not be made.
    #[error("cannot join the container to the network `{0}`")]
    Join(String, #[source] NetlinkError),
    /// The container's network namespace could not be entered.
    #[error("cannot enter the container's network namespace")]
    Enter(#[source] std::io::Error),
    /// The container's end could not be set up.
    #[error("cannot set up `{0}` in the container")]
    SetUp(String, #[source] NetlinkError),
    /// The container's interface can have no IPv6 address.
    #[error("cannot enable IPv6 on `{0}` in the container")]
    NoIpv6(String, #[source] std::io::Error),
    /// A setting is none of a network's.
    #[error("invalid network setting `{0}`: a name that begins with `net.` is needed")]
    SysctlName(String),
    /// A setting could not be written.
    #[error("cannot write the network setting `{0}`")]
    Sysctl(String, #[source] std::io::Error),
}

/// What an endpoint is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Whose it is, for people: the container's short id.
    pub mark: String,
    /// The interface's name in the container, `eth0` for the first network.
    pub interface: String,
    /// The container's addresses: one for each of the network's subnets.
    pub addresses: Vec<IpAddr>,
    /// Link-local addresses that the interface has besides (`--link-local-ip`).
    pub link_local: Vec<IpAddr>,
    /// The MAC address; by default Docker's, made from the IPv4 address.
    pub mac: Option<MacAddress>,
    /// True where this network gives the container its default routes.
    pub default_route: bool,
    /// Settings to write in the container's namespace, such as `net.ipv4.conf.eth0.forwarding`.
    pub sysctls: Vec<(String, String)>,
}

/// An address of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointAddress {
    /// The container's address.
    pub address: IpAddr,
    /// The length of the subnet's prefix, in bits.
    pub prefix: u8,
    /// The way out of the network; none where it has no outside.
    pub gateway: Option<IpAddr>,
}

/// A container's place in a network, as it is kept in the container's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network.
    pub network: NetworkId,
    /// The interface's name in the container.
    pub interface: String,
    /// The interface's name on the engine's side, which [`crate::BridgeNetwork::sweep`] is told.
    pub host_interface: String,
    /// The container's IPv4 address, if the network has such.
    pub ipv4: Option<EndpointAddress>,
    /// The container's IPv6 address, if the network has such.
    pub ipv6: Option<EndpointAddress>,
    /// The container's MAC address.
    pub mac: MacAddress,
}

impl Endpoint {
    /// The addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = EndpointAddress> + use<> {
        self.ipv4.into_iter().chain(self.ipv6)
    }

    /// What `config` asks for in `network`; its interface on the engine's side is `host_interface`.
    pub(crate) fn new(
        network: &Network,
        internal: bool,
        config: &EndpointConfig,
        host_interface: String,
    ) -> Result<Self, EndpointError> {
        let of = |place: Option<&NetworkSubnet>| {
            let place = place?;
            let address = *config.addresses.iter().find(|address| place.subnet.contains(**address))?;
            let gateway = (!internal).then_some(place.gateway);
            Some(EndpointAddress { address, prefix: place.subnet.prefix(), gateway })
        };
        let (ipv4, ipv6) = (of(network.ipv4()), of(network.ipv6()));
        let mac = match (config.mac, ipv4.map(|it| it.address)) {
            (Some(mac), _) => mac,
            (None, Some(IpAddr::V4(address))) => MacAddress::from_ipv4(address),
            _ => MacAddress::random().map_err(EndpointError::Name)?,
        };
        Ok(Self {
            network: network.id.clone(),
            interface: config.interface.clone(),
            host_interface,
            ipv4,
            ipv6,
            mac,
        })
    }
}

/// How the host's end of a pair is made a port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Port<'a> {
    /// Index of the bridge.
    pub(crate) bridge: u32,
    /// The host interface's alias.
    pub(crate) alias: &'a str,
    /// True where neighbours on the bridge must not be reached.
    pub(crate) isolated: bool,
    /// True where the network has no outside.
    pub(crate) internal: bool,
}

/// Makes the pair with `port.alias` on the host's end, a port of the bridge, and sets the inner end up.
pub(crate) fn connect(
    network: &Network,
    port: Port<'_>,
    netns: BorrowedFd<'_>,
    config: &EndpointConfig,
) -> Result<Endpoint, EndpointError> {
    let sysctls = sysctl_files(&config.sysctls)?;
    let endpoint = Endpoint::new(network, port.internal, config, host_interface_name()?)?;
    let join = |error| EndpointError::Join(network.name.clone(), error);
    let mut connection = Connection::open(NetlinkProtocol::Route).map_err(join)?;
    let peer = VethPeer { name: &endpoint.interface, mac: endpoint.mac, netns };
    let host = endpoint.host_interface.as_str();
    let pair = [
        route::create_veth(host, port.bridge, network.mtu, &peer),
        route::set_port(host, port.alias, port.isolated),
        // A kernel without IPv6 refuses this one, and needs it not.
        route::disable_ipv6_autoconfiguration(host),
    ];
    let answers = connection.request_each(&pair).map_err(join)?;
    let made = answers.into_iter().take(2).collect::<Result<(), _>>().map_err(join).and_then(|()| {
        in_network_namespace(netns, || set_up_inside(&endpoint, config, &sysctls))
            .map_err(EndpointError::Enter)?
    });
    if made.is_err() {
        // The pair may or may not be there; the first error is the one to tell.
        let _ = connection.request(&[route::delete_link(host)]);
    }
    made.map(|()| endpoint)
}

/// Sets up loopback and the interface; runs in the container's namespace.
pub(crate) fn set_up_inside(
    endpoint: &Endpoint,
    config: &EndpointConfig,
    sysctls: &[SysctlFile<'_>],
) -> Result<(), EndpointError> {
    let interface = endpoint.interface.as_str();
    let failed = |error| EndpointError::SetUp(interface.to_owned(), error);
    let mut connection = Connection::open(NetlinkProtocol::Route).map_err(failed)?;
    let index = route::link(&mut connection, interface)
        .map_err(failed)?
        .map(|link| link.index)
        .ok_or_else(|| failed(NetlinkError::Malformed(format!("find the interface `{interface}`"))))?;
    let mut requests = Vec::new();
    if endpoint.ipv6.is_some() || config.link_local.iter().any(IpAddr::is_ipv6) {
        enable_ipv6(interface).map_err(|error| EndpointError::NoIpv6(interface.to_owned(), error))?;
    } else {
        // A kernel without IPv6 refuses this one, and needs it not.
        requests.push(route::disable_ipv6_autoconfiguration(interface));
    }
    let optional = requests.len();
    requests.push(route::set_up("lo"));
    for EndpointAddress { address, prefix, .. } in endpoint.addresses() {
        requests.push(route::add_address(index, address, Subnet::containing(address, prefix)));
    }
    let link_local = config.link_local.iter();
    requests.extend(link_local.map(|address| {
        route::add_address(index, *address, Subnet::containing(*address, link_prefix(*address)))
    }));
    requests.push(route::set_up(interface));
    if config.default_route {
        let gateways = endpoint.addresses().filter_map(|it| it.gateway);
        requests.extend(gateways.map(|gateway| route::set_default_route(index, gateway)));
    }
    let answers = connection.request_each(&requests).map_err(failed)?;
    answers.into_iter().skip(optional).collect::<Result<(), _>>().map_err(failed)?;
    for sysctl in sysctls {
        std::fs::write(&sysctl.path, sysctl.value)
            .map_err(|source| EndpointError::Sysctl(sysctl.name.to_owned(), source))?;
    }
    Ok(())
}

/// The length of the prefix that all addresses of a link share: RFC 3927 and RFC 4291, as Docker has it.
fn link_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 16 } else { 64 }
}

/// Lets the interface `name` of the thread's namespace have IPv6 addresses. An outer engine may have turned IPv6 off for
/// every interface to come (`net.ipv6.conf.default.disable_ipv6`).
pub(crate) fn enable_ipv6(name: &str) -> std::io::Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    match std::fs::read_to_string(&path)?.trim() {
        "0" => Ok(()),
        _ => std::fs::write(&path, "0"),
    }
}

/// Takes the container out of a network: deletes the pair, and with it the container's interface and its routes. Blocks
/// for a grace period of the kernel, some 17 ms. A pair that is gone is no error.
///
/// # Errors
/// The refusal of the kernel.
pub fn disconnect(endpoint: &Endpoint) -> Result<(), NetlinkError> {
    let mut connection = Connection::open(NetlinkProtocol::Route)?;
    match connection.request(&[route::delete_link(&endpoint.host_interface)]) {
        Err(error) if error.errno() == Some(rustix::io::Errno::NODEV) => Ok(()),
        result => result,
    }
}

/// Sends what has no other way, in `netns`, by the first of `endpoints` that has a gateway, for each family; where none
/// has, the default route goes.
///
/// # Errors
/// [`EndpointError::Enter`] and [`EndpointError::SetUp`].
pub fn set_default_routes(netns: BorrowedFd<'_>, endpoints: &[&Endpoint]) -> Result<(), EndpointError> {
    in_network_namespace(netns, || route_by(endpoints)).map_err(EndpointError::Enter)?
}

/// As [`set_default_routes`], in the container's namespace.
fn route_by(endpoints: &[&Endpoint]) -> Result<(), EndpointError> {
    let failed = |error| EndpointError::SetUp("default route".to_owned(), error);
    let mut connection = Connection::open(NetlinkProtocol::Route).map_err(failed)?;
    let links = route::links(&mut connection).map_err(failed)?;
    let index = |name: &str| links.iter().find(|link| link.name == name).map(|link| link.index);
    let there = route::routes(&mut connection).map_err(failed)?;
    let mut requests = Vec::new();
    for ipv4 in [true, false] {
        let gateway = |endpoint: &&Endpoint| {
            let address = if ipv4 { endpoint.ipv4 } else { endpoint.ipv6 };
            Some((index(&endpoint.interface)?, address?.gateway?))
        };
        if let Some((index, gateway)) = endpoints.iter().find_map(gateway) {
            requests.push(route::set_default_route(index, gateway));
            continue;
        }
        let of_family =
            |route: &&route::Route| route.destination.prefix() == 0 && route.destination.is_ipv4() == ipv4;
        let old = there.iter().filter(of_family).filter_map(|route| route.interface);
        requests.extend(old.map(|index| route::delete_default_route(index, ipv4)));
    }
    connection.request(&requests).map_err(failed)
}

/// Sets up the loopback interface in `netns`, which is all that the network `none` has.
///
/// # Errors
/// [`EndpointError::Enter`] and [`EndpointError::SetUp`].
pub fn configure_loopback(netns: BorrowedFd<'_>) -> Result<(), EndpointError> {
    let failed = |error| EndpointError::SetUp("lo".to_owned(), error);
    let mut connection = Connection::open_in(netns, NetlinkProtocol::Route).map_err(failed)?;
    connection.request(&[route::set_up("lo")]).map_err(failed)
}

/// Deletes the interfaces `names` in one go. One that is gone already is no error.
pub(crate) fn delete_all(connection: &mut Connection, names: &[String]) -> Result<(), NetlinkError> {
    if names.is_empty() {
        return Ok(());
    }
    let group = random_group().map_err(|errno| NetlinkError::Open(errno.into()))?;
    let mut requests: Vec<Message> = names.iter().map(|name| route::set_group(name, group)).collect();
    requests.push(route::delete_group(group));
    let gone = |error: &NetlinkError| error.errno() == Some(rustix::io::Errno::NODEV);
    connection
        .request_each(&requests)?
        .into_iter()
        .find_map(|answer| answer.err().filter(|error| !gone(error)))
        .map_or(Ok(()), Err)
}

/// An interface group that nobody else uses: groups are small numbers that administrators give.
fn random_group() -> Result<u32, rustix::io::Errno> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // Neither the default group 0 nor one that reads as a negative number.
    Ok(u32::from_ne_bytes(bytes) >> 1 | 0x4000_0000)
}

/// A name for the host's end of a pair: fifteen bytes, the most that an interface's name may have.
pub(crate) fn host_interface_name() -> Result<String, EndpointError> {
    let mut bytes = [0; 5];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(EndpointError::Name)?;
    Ok(bytes.iter().fold(HOST_INTERFACE_PREFIX.to_owned(), |name, byte| format!("{name}{byte:02x}")))
}

/// A setting's file under `/proc/sys/net`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SysctlFile<'a> {
    name: &'a str,
    path: String,
    value: &'a str,
}

/// The files of `sysctls`. Only names below `net` are taken, since those alone belong to a network namespace, and only
/// such characters as cannot leave that directory.
pub(crate) fn sysctl_files(sysctls: &[(String, String)]) -> Result<Vec<SysctlFile<'_>>, EndpointError> {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    sysctls
        .iter()
        .map(|(name, value)| {
            if !name.starts_with("net.") || !name.split('.').all(plain) {
                return Err(EndpointError::SysctlName(name.clone()));
            }
            Ok(SysctlFile { name, path: format!("/proc/sys/{}", name.replace('.', "/")), value })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stay_below_net() {
        let files = |name: &str| {
            sysctl_files(&[(name.to_owned(), "1".to_owned())]).map(|files| files[0].path.clone())
        };
        assert_eq!(
            files("net.ipv4.conf.eth0.forwarding").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0/forwarding"
        );
        for wrong in ["kernel.core_pattern", "net", "net.", "net..x", "net.ipv4/../x", "net.ipv4. x", ""] {
            assert!(matches!(files(wrong), Err(EndpointError::SysctlName(_))), "{wrong}");
        }
    }

    #[test]
    fn interface_names_are_as_long_as_they_may_be() {
        let (one, other) = (host_interface_name().unwrap(), host_interface_name().unwrap());
        assert_eq!(one.len(), 15);
        assert_ne!(one, other);
    }
}
