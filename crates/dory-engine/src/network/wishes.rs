//! Which networks a container is made for (moby `daemon.updateContainerNetworkSettings`).

use std::collections::BTreeMap;

use super::connect::wanted;
use super::{BRIDGE, HOST, NONE};
use crate::config::{ContainerConfig, EndpointSettings, HostConfig, NetworkingConfig};
use crate::engine::Inner;
use crate::spec::namespace::{Mode, Modes};
use crate::{EngineError, Result};

impl Inner {
    /// The networks of a new container, by name, with its wishes. A network that does not exist is the start's error.
    pub(crate) fn endpoint_wishes(
        &self,
        config: &ContainerConfig,
        host: &HostConfig,
        modes: &Modes,
        networking: NetworkingConfig,
    ) -> Result<BTreeMap<String, EndpointSettings>> {
        if modes.network.container().is_some() {
            return Ok(BTreeMap::new());
        }
        let own = match &modes.network {
            Mode::Private => BRIDGE,
            Mode::Host => HOST,
            Mode::None => NONE,
            _ => host.network_mode.as_str(),
        };
        let mut wishes = BTreeMap::new();
        for (name, wish) in networking.endpoints_config {
            let object = match name.as_str() {
                "default" => Ok(self.networks.find(BRIDGE)?),
                name => self.networks.find(name),
            };
            let wish = wanted(wish.unwrap_or_default());
            let name = match object {
                Ok(object) => {
                    self.check_endpoint(&object, &wish)?;
                    object.record.name().to_owned()
                }
                Err(_) => name,
            };
            wishes.insert(name, wish);
        }
        if wishes.is_empty() || modes.network == Mode::Host || modes.network == Mode::None {
            wishes.retain(|name, _| name == own);
            wishes.entry(own.to_owned()).or_default();
        }
        // Before API 1.44 the container had one MAC address, which is its first network's.
        if !config.mac_address.is_empty()
            && let Some(wish) = wishes.get_mut(own)
        {
            if !wish.mac_address.is_empty() && wish.mac_address != config.mac_address {
                return Err(EngineError::invalid(
                    "the container-wide MAC address must match the endpoint-specific MAC address for the main network",
                ));
            }
            super::attach::parse_mac(&config.mac_address)?;
            wish.mac_address.clone_from(&config.mac_address);
        }
        Ok(wishes)
    }
}
