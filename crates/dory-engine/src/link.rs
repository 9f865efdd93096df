//! The default bridge: made when first needed, with its DNS forwarder.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use dory_net::{AddressPool, BridgeConfig, BridgeNetwork, ResolvConf, Subnet, SubnetWish};
use dory_types::NetworkId;

use crate::identity::Identity;
use crate::options::{BridgeOptions, EngineConfig};
use crate::{EngineError, ErrorKind, Result};

/// The bridge network, or why there is none.
#[derive(Debug)]
pub(crate) struct Bridge {
    options: Option<BridgeOptions>,
    id: NetworkId,
    owner: String,
    dns: Vec<IpAddr>,
    pools: Vec<AddressPool>,
    /// Subnets of the networks that people made.
    reserved: Vec<Subnet>,
    network: OnceLock<std::result::Result<Linked, String>>,
}

#[derive(Debug)]
struct Linked {
    network: BridgeNetwork,
    /// The engine's resolvers, and the forwarder's address where no container could reach any of them.
    resolvers: ResolvConf,
    forwarder: Option<IpAddr>,
    /// Closed when the engine goes away, which ends the forwarder.
    _stop: Option<OwnedFd>,
}

impl Bridge {
    pub(crate) fn new(config: &EngineConfig, identity: &Identity, reserved: Vec<Subnet>) -> Self {
        Self {
            options: config.bridge.clone(),
            id: identity.bridge.clone(),
            owner: identity.owner().to_owned(),
            dns: config.dns.clone(),
            pools: config.address_pools.clone(),
            reserved,
            network: OnceLock::new(),
        }
    }

    /// `config` with the pools of the engine's configuration in place of Docker's.
    pub(crate) fn with_pools(&self, config: BridgeConfig) -> BridgeConfig {
        match self.pools.is_empty() {
            true => config,
            false => {
                let family = |ipv4| self.pools.iter().any(|pool| pool.base.is_ipv4() == ipv4);
                // A family that the configuration says nothing of keeps its default.
                let kept = config.pools.iter().filter(|pool| !family(pool.base.is_ipv4()));
                BridgeConfig { pools: self.pools.iter().chain(kept).copied().collect(), ..config }
            }
        }
    }

    /// The addresses of resolvers, which no chosen subnet may contain.
    pub(crate) fn resolver_addresses(&self) -> Vec<IpAddr> {
        let configured = self.dns.iter().copied();
        configured.chain(host_resolvers().nameservers).collect()
    }

    /// The network; made by the first call, which blocks for a few milliseconds.
    pub(crate) fn network(&self) -> Result<&BridgeNetwork> {
        self.linked().map(|linked| &linked.network)
    }

    /// The network, if it has been made.
    pub(crate) fn existing(&self) -> Option<&BridgeNetwork> {
        self.network.get()?.as_ref().ok().map(|linked| &linked.network)
    }

    /// What a container's resolv.conf says, given its own wishes.
    pub(crate) fn resolv_conf(&self, wishes: &ResolvConf) -> Result<ResolvConf> {
        let linked = self.linked()?;
        Ok(linked.resolvers.for_container(wishes, linked.forwarder))
    }

    fn linked(&self) -> Result<&Linked> {
        let linked = self.network.get_or_init(|| self.make().map_err(|error| error.message().to_owned()));
        linked.as_ref().map_err(|message| EngineError::new(ErrorKind::Internal, message.clone()))
    }

    fn make(&self) -> Result<Linked> {
        let options = self.options.as_ref().ok_or_else(|| {
            EngineError::new(
                ErrorKind::Forbidden,
                "this engine has no bridge network: use --network none or host",
            )
        })?;
        let mut resolvers = host_resolvers();
        if !self.dns.is_empty() {
            resolvers.nameservers.clone_from(&self.dns);
        }
        let config = BridgeConfig {
            subnets: vec![options.address.as_deref().map_or(Ok(SubnetWish::ipv4()), parse_address)?],
            avoid: resolvers.nameservers.clone(),
            reserved: self.reserved.clone(),
            mtu: (options.mtu != 0).then_some(options.mtu),
            masquerade: options.masquerade,
            options: driver_options(options),
            ..BridgeConfig::new(self.id.clone(), "bridge", &options.name, &self.owner)
        };
        let config = self.with_pools(config);
        let network = BridgeNetwork::ensure(&config)
            .map_err(|error| EngineError::failed("cannot make the default bridge", error))?;
        for fact in network.facts() {
            tracing::warn!(%fact, "Bridge network");
        }
        let (forwarder, stop) = forward(&network, resolvers.forwarder_upstreams());
        Ok(Linked { network, resolvers, forwarder, _stop: stop })
    }
}

/// The engine's own resolvers; a file that cannot be read counts as empty.
pub(crate) fn host_resolvers() -> ResolvConf {
    ResolvConf::of_host().unwrap_or_else(|error| {
        tracing::warn!(%error, "Cannot read resolv.conf");
        ResolvConf::default()
    })
}

/// The wish for the bridge's own address and its subnet, from `--bip`.
fn parse_address(address: &str) -> Result<SubnetWish> {
    let invalid = |error: &dyn std::fmt::Display| {
        EngineError::invalid(format!("invalid address of the bridge `{address}`: {error}"))
    };
    let subnet: Subnet = address.parse().map_err(|error: dory_net::SubnetError| invalid(&error))?;
    let own = address.split('/').next().unwrap_or_default();
    let own = own.parse().map_err(|error: std::net::AddrParseError| invalid(&error))?;
    let gateway = Some(own).filter(|own| *own != subnet.base());
    Ok(SubnetWish { subnet: Some(subnet), gateway, ..SubnetWish::ipv4() })
}

/// The options that dockerd shows for its own bridge, with our values.
fn driver_options(options: &BridgeOptions) -> BTreeMap<String, String> {
    [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", "true".to_owned()),
        ("com.docker.network.bridge.enable_ip_masquerade", options.masquerade.to_string()),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
        ("com.docker.network.bridge.name", options.name.clone()),
        (
            "com.docker.network.driver.mtu",
            if options.mtu == 0 { "1500".to_owned() } else { options.mtu.to_string() },
        ),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Runs a forwarder where containers need one: its address, and what ends it when closed.
fn forward(network: &BridgeNetwork, upstreams: Vec<IpAddr>) -> (Option<IpAddr>, Option<OwnedFd>) {
    if upstreams.is_empty() {
        return (None, None);
    }
    let upstreams = upstreams.into_iter().map(|address| SocketAddr::new(address, 53)).collect();
    let warn = |error: &dyn std::error::Error| {
        tracing::warn!(
            error = dory_types::with_causes(error),
            "Containers have no way to the engine's resolvers"
        );
    };
    let forwarder = match network.dns_forwarder(upstreams) {
        Ok(forwarder) => forwarder,
        Err(error) => {
            warn(&error);
            return (None, None);
        }
    };
    let (ours, theirs) = match std::os::unix::net::UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => {
            warn(&error);
            return (None, None);
        }
    };
    let run = move || {
        if let Err(error) = forwarder.run(std::os::fd::AsFd::as_fd(&theirs)) {
            tracing::warn!(%error, "The DNS forwarder ended");
        }
    };
    match std::thread::Builder::new().name("dns-forwarder".to_owned()).spawn(run) {
        Ok(_) => (network.gateway().map(IpAddr::V4), Some(ours.into())),
        Err(error) => {
            warn(&error);
            (None, None)
        }
    }
}
