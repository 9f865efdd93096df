//! A network in memory.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dory_net::{
    BridgeConfig, BridgeNetwork, Driver, Endpoint, EndpointConfig, EndpointError, IpamError, ParentNetwork,
    SubnetWish,
};
use dory_types::ContainerId;

use super::BRIDGE;
use super::record::NetworkRecord;
use crate::engine::Inner;
use crate::{EngineError, Result};

/// A network.
#[derive(Debug)]
pub(crate) struct NetworkObject {
    pub(crate) record: NetworkRecord,
    /// The bridge, once somebody has needed it.
    bridge: Mutex<Option<Arc<BridgeNetwork>>>,
    /// The same for a network on a parent interface.
    parent: Mutex<Option<Arc<ParentNetwork>>>,
    members: Mutex<Members>,
}

/// Who is in a network now.
#[derive(Debug, Default)]
struct Members {
    containers: BTreeSet<ContainerId>,
    /// Nobody joins any more.
    removed: bool,
}

/// A network's bridge: the engine's default one, or the network's own.
pub(crate) enum BridgeRef<'a> {
    Default(&'a BridgeNetwork),
    Own(Arc<BridgeNetwork>),
}

impl Deref for BridgeRef<'_> {
    type Target = BridgeNetwork;

    fn deref(&self) -> &BridgeNetwork {
        match self {
            Self::Default(bridge) => bridge,
            Self::Own(bridge) => bridge,
        }
    }
}

/// A network that was just made in the kernel.
pub(crate) enum Made {
    Bridge(Box<BridgeNetwork>),
    Parent(Box<ParentNetwork>),
}

/// What gives containers their places: a bridge, or a parent interface.
pub(crate) enum Segment<'a> {
    Bridge(BridgeRef<'a>),
    Parent(Arc<ParentNetwork>),
}

impl Segment<'_> {
    pub(crate) fn allocate(&self, wished: &[IpAddr]) -> Result<Vec<IpAddr>, IpamError> {
        match self {
            Self::Bridge(bridge) => bridge.allocate(wished),
            Self::Parent(parent) => parent.allocate(wished),
        }
    }

    pub(crate) fn release(&self, addresses: &[IpAddr]) {
        match self {
            Self::Bridge(bridge) => bridge.release(addresses),
            Self::Parent(parent) => parent.release(addresses),
        }
    }

    pub(crate) fn connect(
        &self,
        netns: BorrowedFd<'_>,
        config: &EndpointConfig,
    ) -> Result<Endpoint, EndpointError> {
        match self {
            Self::Bridge(bridge) => bridge.connect(netns, config),
            Self::Parent(parent) => parent.connect(netns, config),
        }
    }
}

impl NetworkObject {
    pub(crate) fn new(record: NetworkRecord, made: Option<Made>) -> Self {
        let (bridge, parent) = match made {
            Some(Made::Bridge(bridge)) => (Some(Arc::new(*bridge)), None),
            Some(Made::Parent(parent)) => (None, Some(Arc::new(*parent))),
            None => (None, None),
        };
        Self { record, bridge: Mutex::new(bridge), parent: Mutex::new(parent), members: Mutex::default() }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the container in; from here on the network cannot be removed.
    pub(crate) fn join(&self, container: &ContainerId) -> Result<()> {
        let mut members = self.members();
        if members.removed {
            return Err(EngineError::not_found(format!("network {} not found", self.record.name())));
        }
        members.containers.insert(container.clone());
        Ok(())
    }

    /// Counts the container out.
    pub(crate) fn leave(&self, container: &ContainerId) {
        self.members().containers.remove(container);
    }

    /// True where no running container is in it.
    pub(crate) fn is_unused(&self) -> bool {
        self.members().containers.is_empty()
    }

    /// Lets nobody join from now on; false, and no change, where somebody is in it.
    pub(crate) fn close(&self) -> bool {
        let mut members = self.members();
        members.removed = members.containers.is_empty();
        members.removed
    }

    /// Takes [`Self::close`] back.
    pub(crate) fn reopen(&self) {
        self.members().removed = false;
    }

    /// The bridge, made where it is not there; blocks for some milliseconds then.
    pub(crate) fn bridge<'a>(&self, engine: &'a Inner) -> Result<BridgeRef<'a>> {
        if self.record.name() == BRIDGE {
            return engine.bridge.network().map(BridgeRef::Default);
        }
        let mut own = self.bridge.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bridge) = &*own {
            return Ok(BridgeRef::Own(Arc::clone(bridge)));
        }
        if self.record.driver() != Driver::Bridge {
            let name = self.record.name();
            return Err(EngineError::internal(format!("the network {name} has no bridge")));
        }
        let made = BridgeNetwork::ensure(&self.config(engine)).map_err(|error| {
            EngineError::failed(
                format!("cannot make the bridge of the network {}", self.record.name()),
                error,
            )
        })?;
        let made = Arc::new(made);
        *own = Some(Arc::clone(&made));
        Ok(BridgeRef::Own(made))
    }

    /// What gives containers their places; made where it is not there.
    pub(crate) fn segment<'a>(&self, engine: &'a Inner) -> Result<Segment<'a>> {
        match self.record.driver() {
            Driver::Macvlan | Driver::Ipvlan => self.parent(engine).map(Segment::Parent),
            _ => self.bridge(engine).map(Segment::Bridge),
        }
    }

    /// The network on a parent interface, which may be another one of that name than before.
    pub(super) fn parent(&self, engine: &Inner) -> Result<Arc<ParentNetwork>> {
        let mut own = self.parent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parent) = &*own {
            return Ok(Arc::clone(parent));
        }
        let name = self.record.name();
        let mode = self.record.driver_options().mode;
        let mode = mode.ok_or_else(|| EngineError::internal(format!("the network {name} has no mode")))?;
        let made = ParentNetwork::ensure(&self.config(engine), mode)
            .map_err(|error| EngineError::failed(format!("cannot make the network {name}"), error))?;
        let made = Arc::new(made);
        *own = Some(Arc::clone(&made));
        Ok(made)
    }

    /// The bridge, if it was needed since the engine opened.
    pub(crate) fn existing_bridge(&self) -> Option<Arc<BridgeNetwork>> {
        self.bridge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the bridge is made again from the record.
    fn config(&self, engine: &Inner) -> BridgeConfig {
        let network = &self.record.network;
        let options = self.record.driver_options();
        let owner = engine.identity.owner();
        BridgeConfig {
            exact_name: true,
            subnets: network.subnets.iter().map(SubnetWish::of).collect(),
            mtu: Some(network.mtu),
            internal: self.record.internal,
            intercontainer: options.intercontainer,
            masquerade: options.masquerade,
            options: network.options.clone(),
            ..BridgeConfig::new(network.id.clone(), &network.name, &network.bridge, owner)
        }
    }
}
