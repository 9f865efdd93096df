//! Endpoints: a container's place in a network, and the loopback that every container has.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use dory_sys::netlink::{NetlinkProtocol, in_network_namespace};
use dory_types::NetworkId;
use serde::{Deserialize, Serialize};

use crate::address::{Ipv4Subnet, MacAddress};
use crate::netlink::{Connection, Message, NetlinkError};
use crate::network::Network;
use crate::route::{self, VethPeer};

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
    /// The container's address.
    pub address: Ipv4Addr,
    /// The MAC address; by default Docker's, made from the address.
    pub mac: Option<MacAddress>,
    /// True where this network gives the container its default route.
    pub default_route: bool,
    /// Settings to write in the container's namespace, such as `net.ipv4.conf.eth0.forwarding`.
    pub sysctls: Vec<(String, String)>,
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
    /// The container's address.
    pub address: Ipv4Addr,
    /// The network's subnet.
    pub subnet: Ipv4Subnet,
    /// The network's gateway.
    pub gateway: Ipv4Addr,
    /// The container's MAC address.
    pub mac: MacAddress,
}

/// Makes the pair with `alias` on the host's end, a port of the bridge `bridge`, and sets the inner end up.
pub(crate) fn connect(
    network: &Network,
    bridge: u32,
    alias: &str,
    netns: BorrowedFd<'_>,
    config: &EndpointConfig,
) -> Result<Endpoint, EndpointError> {
    let sysctls = sysctl_files(&config.sysctls)?;
    let place = network.subnets[0];
    let endpoint = Endpoint {
        network: network.id.clone(),
        interface: config.interface.clone(),
        host_interface: host_interface_name()?,
        address: config.address,
        subnet: place.subnet,
        gateway: place.gateway,
        mac: config.mac.unwrap_or_else(|| MacAddress::from_ipv4(config.address)),
    };
    let join = |error| EndpointError::Join(network.name.clone(), error);
    let mut connection = Connection::open(NetlinkProtocol::Route).map_err(join)?;
    let peer = VethPeer { name: &endpoint.interface, mac: endpoint.mac, netns };
    let host = endpoint.host_interface.as_str();
    let pair = [route::create_veth(host, bridge, network.mtu, &peer), route::set_port(host, alias)];
    let made = connection.request(&pair).map_err(join).and_then(|()| {
        in_network_namespace(netns, || set_up_inside(&endpoint, config.default_route, &sysctls))
            .map_err(EndpointError::Enter)?
    });
    if made.is_err() {
        // The pair may or may not be there; the first error is the one to tell.
        let _ = connection.request(&[route::delete_link(host)]);
    }
    made.map(|()| endpoint)
}

/// Sets up loopback and the interface; runs in the container's namespace.
fn set_up_inside(
    endpoint: &Endpoint,
    default_route: bool,
    sysctls: &[SysctlFile<'_>],
) -> Result<(), EndpointError> {
    let interface = endpoint.interface.as_str();
    let failed = |error| EndpointError::SetUp(interface.to_owned(), error);
    let mut connection = Connection::open(NetlinkProtocol::Route).map_err(failed)?;
    let index = route::link(&mut connection, interface)
        .map_err(failed)?
        .map(|link| link.index)
        .ok_or_else(|| failed(NetlinkError::Malformed(format!("find the interface `{interface}`"))))?;
    let mut requests = vec![
        // A kernel without IPv6 refuses this one, and needs it not.
        route::disable_ipv6_autoconfiguration(interface),
        route::set_up("lo"),
        route::add_address(index, endpoint.address, endpoint.subnet),
        route::set_up(interface),
    ];
    if default_route {
        requests.push(route::add_default_route(endpoint.gateway));
    }
    let answers = connection.request_each(&requests).map_err(failed)?;
    answers.into_iter().skip(1).collect::<Result<(), _>>().map_err(failed)?;
    for sysctl in sysctls {
        std::fs::write(&sysctl.path, sysctl.value)
            .map_err(|source| EndpointError::Sysctl(sysctl.name.to_owned(), source))?;
    }
    Ok(())
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
fn host_interface_name() -> Result<String, EndpointError> {
    let mut bytes = [0; 5];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(EndpointError::Name)?;
    Ok(bytes.iter().fold(HOST_INTERFACE_PREFIX.to_owned(), |name, byte| format!("{name}{byte:02x}")))
}

/// A setting's file under `/proc/sys/net`.
#[derive(Debug, PartialEq, Eq)]
struct SysctlFile<'a> {
    name: &'a str,
    path: String,
    value: &'a str,
}

/// The files of `sysctls`. Only names below `net` are taken, since those alone belong to a network namespace, and only
/// such characters as cannot leave that directory.
fn sysctl_files(sysctls: &[(String, String)]) -> Result<Vec<SysctlFile<'_>>, EndpointError> {
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
