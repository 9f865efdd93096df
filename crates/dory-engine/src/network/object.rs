//! A network in memory.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dory_net::{BridgeConfig, BridgeNetwork, Driver, SubnetWish};
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

impl NetworkObject {
    pub(crate) fn new(record: NetworkRecord, bridge: Option<BridgeNetwork>) -> Self {
        Self { record, bridge: Mutex::new(bridge.map(Arc::new)), members: Mutex::default() }
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
