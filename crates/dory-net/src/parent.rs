//! Networks on a parent interface: each container has a link of its own there, and nothing is translated.
//!
//! `macvlan` gives each link a MAC address of its own, `ipvlan` lets all share the parent's. A link exists in the container's
//! namespace alone and goes with it, so that there is nothing to mark and nothing to sweep.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use dory_sys::netlink::{NetlinkProtocol, in_network_namespace};

use crate::bridge::{BridgeConfig, BridgeError};
use crate::endpoint::{self, Endpoint, EndpointConfig, EndpointError};
use crate::ipam::{self, Ipam, IpamError};
use crate::netlink::{Connection, NetlinkError};
use crate::network::{Driver, Network};
use crate::route;
use crate::survey::Survey;

/// What links of one parent may say to each other (`include/uapi/linux/if_link.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentMode {
    /// `MACVLAN_MODE_*`.
    Macvlan(u32),
    /// `IPVLAN_MODE_*`.
    Ipvlan(u16),
}

impl ParentMode {
    /// Reads the option `macvlan_mode` or `ipvlan_mode`; none for an unknown mode, or a driver without any.
    pub fn parse(driver: Driver, text: &str) -> Option<Self> {
        match (driver, text) {
            (Driver::Macvlan, "" | "bridge") => Some(Self::Macvlan(4)),
            (Driver::Macvlan, "private") => Some(Self::Macvlan(1)),
            (Driver::Macvlan, "vepa") => Some(Self::Macvlan(2)),
            (Driver::Macvlan, "passthru") => Some(Self::Macvlan(8)),
            (Driver::Ipvlan, "" | "l2") => Some(Self::Ipvlan(0)),
            (Driver::Ipvlan, "l3") => Some(Self::Ipvlan(1)),
            (Driver::Ipvlan, "l3s") => Some(Self::Ipvlan(2)),
            _ => None,
        }
    }

    fn driver(self) -> Driver {
        match self {
            Self::Macvlan(_) => Driver::Macvlan,
            Self::Ipvlan(_) => Driver::Ipvlan,
        }
    }
}

/// A network on a parent interface could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ParentError {
    /// The subnets could not be chosen.
    #[error(transparent)]
    Subnet(#[from] BridgeError),
    /// There is no such interface.
    #[error("the parent interface `{0}` does not exist")]
    NoParent(String),
    /// The parent takes no such link, or the kernel has none of that kind.
    #[error("cannot make {driver} links on `{parent}`")]
    Refused {
        /// The driver.
        driver: Driver,
        /// The parent interface.
        parent: String,
        /// The kernel's refusal.
        #[source]
        source: NetlinkError,
    },
}

/// A network on a parent interface. Shared by the engine's threads.
#[derive(Debug)]
pub struct ParentNetwork {
    network: Network,
    parent: u32,
    mode: ParentMode,
    internal: bool,
    ipam: Mutex<Vec<Ipam>>,
}

impl ParentNetwork {
    /// The network of `config` on the interface `parent`, whose name it has in place of a bridge's. A subnet that is asked
    /// for may be the parent's own. The kernel is tried: a link is made and deleted.
    ///
    /// # Errors
    /// [`ParentError`].
    pub fn ensure(config: &BridgeConfig, mode: ParentMode) -> Result<Self, ParentError> {
        let mut connection = Connection::open(NetlinkProtocol::Route).map_err(BridgeError::Survey)?;
        let survey = Survey::new(&mut connection).map_err(BridgeError::Survey)?;
        let parent = survey
            .links
            .iter()
            .find(|link| link.name == config.bridge)
            .ok_or_else(|| ParentError::NoParent(config.bridge.clone()))?;
        let place = |wish: &crate::SubnetWish| match (wish.subnet, wish.gateway) {
            (Some(subnet), Some(gateway)) => Ok(wish.place(subnet, gateway)),
            (Some(subnet), None) => {
                subnet.nth(1).map(|gateway| wish.place(subnet, gateway)).ok_or(BridgeError::TooSmall(subnet))
            }
            (None, _) => survey.place_of(config, wish, None),
        };
        let subnets = config.subnets.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        try_kernel(&mut connection, parent.index, mode).map_err(|source| ParentError::Refused {
            driver: mode.driver(),
            parent: config.bridge.clone(),
            source,
        })?;
        let ipam = subnets.iter().map(|place| Ipam::new(config.id.clone(), &config.name, place)).collect();
        let network = Network {
            id: config.id.clone(),
            name: config.name.clone(),
            driver: mode.driver(),
            subnets,
            bridge: config.bridge.clone(),
            mtu: config.mtu.unwrap_or(parent.mtu),
            options: config.options.clone(),
        };
        let (parent, internal) = (parent.index, config.internal);
        Ok(Self { network, parent, mode, internal, ipam: Mutex::new(ipam) })
    }

    /// The network as a value.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// As [`crate::BridgeNetwork::allocate`].
    ///
    /// # Errors
    /// As [`Ipam::allocate`]; then none is taken.
    pub fn allocate(&self, requested: &[IpAddr]) -> Result<Vec<IpAddr>, IpamError> {
        ipam::allocate_all(&mut self.ipam.lock().unwrap_or_else(PoisonError::into_inner), requested)
    }

    /// Gives a container's addresses back.
    pub fn release(&self, addresses: &[IpAddr]) {
        ipam::release_all(&mut self.ipam.lock().unwrap_or_else(PoisonError::into_inner), addresses);
    }

    /// Takes the addresses that running containers hold; returns those that are of none of the subnets.
    pub fn restore(&self, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        let mut all = self.ipam.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter_mut().fold(addresses, |rest, ipam| ipam.restore(rest))
    }

    /// Joins `netns` to the network by a link that is set up with its addresses and, where asked for, the default routes.
    ///
    /// # Errors
    /// [`EndpointError`]; nothing is left behind.
    pub fn connect(&self, netns: BorrowedFd<'_>, config: &EndpointConfig) -> Result<Endpoint, EndpointError> {
        let sysctls = endpoint::sysctl_files(&config.sysctls)?;
        let endpoint = Endpoint::new(&self.network, self.internal, config, String::new())?;
        let join = |error| EndpointError::Join(self.network.name.clone(), error);
        let mac = matches!(self.mode, ParentMode::Macvlan(_)).then_some(endpoint.mac);
        let link = route::Child {
            name: &endpoint.interface,
            parent: self.parent,
            mode: self.mode,
            mac,
            mtu: Some(self.network.mtu),
            netns: Some(netns),
        };
        Connection::open(NetlinkProtocol::Route)
            .and_then(|mut connection| connection.request(&[route::create_child(&link)]))
            .map_err(join)?;
        let made = in_network_namespace(netns, || endpoint::set_up_inside(&endpoint, config, &sysctls))
            .map_err(EndpointError::Enter)
            .and_then(|result| result);
        if made.is_err() {
            // The first error is the one to tell.
            let _ = remove_interface(netns, &endpoint);
        }
        made.map(|()| endpoint)
    }
}

/// Deletes the container's own link in `netns`. One that is gone is no error.
///
/// # Errors
/// [`EndpointError::Enter`] and [`EndpointError::SetUp`].
pub fn remove_interface(netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), EndpointError> {
    let name = endpoint.interface.as_str();
    let delete = || match Connection::open(NetlinkProtocol::Route)?.request(&[route::delete_link(name)]) {
        Err(error) if error.errno() == Some(rustix::io::Errno::NODEV) => Ok(()),
        result => result,
    };
    in_network_namespace(netns, delete)
        .map_err(EndpointError::Enter)?
        .map_err(|error| EndpointError::SetUp(name.to_owned(), error))
}

/// Makes a link that nobody uses, and deletes it.
fn try_kernel(connection: &mut Connection, parent: u32, mode: ParentMode) -> Result<(), NetlinkError> {
    let name = endpoint::host_interface_name().map_err(|error| match error {
        EndpointError::Name(errno) => NetlinkError::Open(errno.into()),
        other => NetlinkError::Open(std::io::Error::other(other)),
    })?;
    let link = route::Child { name: &name, parent, mode, mac: None, mtu: None, netns: None };
    connection.request(&[route::create_child(&link)])?;
    connection.request(&[route::delete_link(&name)])
}
