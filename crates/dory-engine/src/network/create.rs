//! `POST /networks/create`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dory_net::{
    BridgeConfig, BridgeError, BridgeNetwork, Driver, ParentError, ParentNetwork, Subnet, SubnetWish,
};
use dory_sys::fault_point;
use dory_types::{NetworkId, Timestamp};

use super::details::{NetworkCreate, NetworkIpam, NetworkIpamConfig};
use super::is_predefined;
use super::object::{Made, NetworkObject};
use super::options::DriverOptions;
use super::record::NetworkRecord;
use crate::container::random_bytes;
use crate::engine::{Engine, Inner, blocking};
use crate::{EngineError, ErrorKind, Result};

impl Engine {
    /// Makes a network; answers its id.
    ///
    /// # Errors
    /// `Invalid` for what cannot be, `Conflict` for a name that is taken, `Forbidden` for a subnet that is, `NotFound` for
    /// an unknown driver, `NotImplemented` for what belongs to swarm.
    pub async fn create_network(&self, request: NetworkCreate) -> Result<String> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.create_network(&request)).await
    }
}

impl Inner {
    fn create_network(&self, request: &NetworkCreate) -> Result<String> {
        let driver = check(request)?;
        let options = request.options.clone().unwrap_or_default();
        let parsed = DriverOptions::parse(driver, &options)?;
        let ipv6 = request.enable_ipv6.or(parsed.ipv6).unwrap_or(false);
        let ipam = request.ipam.clone().unwrap_or_default();
        let wishes = subnet_wishes(&ipam, request.enable_ipv4.unwrap_or(true), ipv6)?;
        let _change = self.networks.change();
        if self.networks.find(&request.name).is_ok_and(|other| other.record.name() == request.name) {
            return Err(EngineError::conflict(format!("network with name {} already exists", request.name)));
        }
        self.refuse_overlap(&wishes)?;
        let chosen = wishes.iter().filter(|wish| wish.subnet.is_some()).map(|wish| wish.ipv4).collect();
        let id = NetworkId::from_bytes(random_bytes());
        let interface = match driver {
            Driver::Macvlan | Driver::Ipvlan if parsed.parent.is_empty() => {
                return Err(EngineError::invalid(format!(
                    "the network driver {driver} needs the option parent=INTERFACE"
                )));
            }
            Driver::Macvlan | Driver::Ipvlan => parsed.parent.clone(),
            _ => parsed.bridge.clone().unwrap_or_else(|| format!("br-{}", id.short())),
        };
        let config = BridgeConfig {
            exact_name: parsed.bridge.is_some(),
            subnets: wishes,
            reserved: self.networks.subnets(),
            avoid: self.bridge.resolver_addresses(),
            mtu: parsed.mtu,
            internal: request.internal,
            intercontainer: parsed.intercontainer,
            masquerade: parsed.masquerade,
            options,
            ..BridgeConfig::new(id.clone(), &request.name, interface, self.identity.owner())
        };
        let config = self.bridge.with_pools(config);
        let (made, network) = match parsed.mode {
            Some(mode) => {
                let parent = ParentNetwork::ensure(&config, mode).map_err(parent_refusal)?;
                let network = parent.network().clone();
                (Made::Parent(Box::new(parent)), network)
            }
            None => {
                let bridge = BridgeNetwork::ensure(&config).map_err(refusal)?;
                fault_point!("network.bridge-made");
                for fact in bridge.facts() {
                    tracing::warn!(%fact, network = request.name, "Bridge network");
                }
                let network = bridge.network().clone();
                (Made::Bridge(Box::new(bridge)), network)
            }
        };
        let record = NetworkRecord {
            created: Timestamp::now(),
            enable_ipv4: network.ipv4().is_some(),
            enable_ipv6: ipv6,
            internal: request.internal,
            attachable: request.attachable,
            labels: request.labels.clone().unwrap_or_default(),
            ipam_options: ipam.options.unwrap_or_default(),
            chosen_subnets: chosen,
            network,
        };
        let object = Arc::new(NetworkObject::new(record, Some(made)));
        if let Err(error) = self.networks.insert(Arc::clone(&object)) {
            if let Some(Err(error)) = object.existing_bridge().map(|bridge| bridge.remove()) {
                tracing::warn!(error = dory_types::with_causes(&error), "Cannot remove a bridge");
            }
            return Err(error);
        }
        fault_point!("network.recorded");
        self.publish_network("create", &id, None);
        Ok(id.to_string())
    }

    /// Refuses subnets that another network has: it may have no bridge at present.
    fn refuse_overlap(&self, wishes: &[SubnetWish]) -> Result<()> {
        let taken = self.networks.subnets();
        let overlaps = |wish: &SubnetWish| {
            wish.subnet.is_some_and(|wanted| taken.iter().any(|other| other.overlaps(wanted)))
        };
        match wishes.iter().any(overlaps) {
            true => Err(EngineError::new(
                ErrorKind::Forbidden,
                "Pool overlaps with other one on this address space",
            )),
            false => Ok(()),
        }
    }
}

/// Refuses what makes no network here; answers the driver.
fn check(request: &NetworkCreate) -> Result<Driver> {
    let name = request.name.as_str();
    if name.trim().is_empty() {
        return Err(EngineError::invalid("invalid network name: a name is required"));
    }
    let forbidden = |text: String| Err(EngineError::new(ErrorKind::Forbidden, text));
    if is_predefined(name) {
        return forbidden(format!("operation is not permitted on predefined {name} network"));
    }
    if request.ingress || request.config_only || request.config_from.is_some() || request.scope == "swarm" {
        return Err(EngineError::not_implemented("networks of a swarm are not supported"));
    }
    match request.driver.as_str() {
        "" | "bridge" | "default" => Ok(Driver::Bridge),
        driver @ ("host" | "null") => {
            forbidden(format!("only one instance of \"{driver}\" network is allowed"))
        }
        "macvlan" => Ok(Driver::Macvlan),
        "ipvlan" => Ok(Driver::Ipvlan),
        "overlay" => Err(EngineError::not_implemented("networks of a swarm are not supported")),
        driver => Err(EngineError::not_found(format!("plugin \"{driver}\" not found"))),
    }
}

/// What is wished of the addresses: at most one subnet for each family.
fn subnet_wishes(ipam: &NetworkIpam, ipv4: bool, ipv6: bool) -> Result<Vec<SubnetWish>> {
    if !matches!(ipam.driver.as_str(), "" | "default") {
        let driver = &ipam.driver;
        return Err(EngineError::not_found(format!("plugin \"{driver}\" not found")));
    }
    let mut wishes: Vec<SubnetWish> = Vec::new();
    for config in ipam.config.iter().flatten() {
        let wish = subnet_wish(config)?;
        if wishes.iter().any(|other| other.ipv4 == wish.ipv4) {
            return Err(EngineError::invalid("bridge driver doesn't support multiple subnets"));
        }
        if if wish.ipv4 { ipv4 } else { ipv6 } {
            wishes.push(wish);
        }
    }
    if ipv4 && !wishes.iter().any(|wish| wish.ipv4) {
        wishes.push(SubnetWish::ipv4());
    }
    if ipv6 && wishes.iter().all(|wish| wish.ipv4) {
        wishes.push(SubnetWish::ipv6());
    }
    wishes.sort_by_key(|wish| !wish.ipv4);
    match wishes.is_empty() {
        true => Err(EngineError::invalid("IPv4 or IPv6 must be enabled")),
        false => Ok(wishes),
    }
}

/// Reads one entry of `IPAM.Config`.
fn subnet_wish(config: &NetworkIpamConfig) -> Result<SubnetWish> {
    let subnet = parse_subnet("subnet", &config.subnet)?;
    let range = parse_subnet("ip-range", &config.ip_range)?;
    let gateway = match config.gateway.as_str() {
        "" => None,
        // Some clients write the gateway with its prefix.
        text => Some(parse_address("gateway", text.split('/').next().unwrap_or(text))?),
    };
    let auxiliary = config
        .auxiliary_addresses
        .iter()
        .flatten()
        .map(|(name, address)| Ok((name.clone(), parse_address("auxiliary", address)?)))
        .collect::<Result<BTreeMap<String, IpAddr>>>()?;
    let wish = SubnetWish {
        ipv4: subnet.or(range).map_or_else(|| gateway.is_none_or(|it| it.is_ipv4()), Subnet::is_ipv4),
        subnet,
        gateway,
        range,
        auxiliary,
    };
    check_within(&wish)?;
    Ok(wish)
}

/// Refuses gateways, ranges and addresses outside their subnet.
fn check_within(wish: &SubnetWish) -> Result<()> {
    let Some(subnet) = wish.subnet else {
        return match wish.gateway.is_some() || wish.range.is_some() || !wish.auxiliary.is_empty() {
            true => Err(EngineError::invalid("invalid network config: a gateway or range needs its subnet")),
            false => Ok(()),
        };
    };
    let refuse = |what: &str, value: String| {
        Err(EngineError::invalid(format!(
            "invalid network config: invalid {what} {value}: parent subnet is {subnet}"
        )))
    };
    if let Some(gateway) = wish.gateway.filter(|gateway| !subnet.contains(*gateway)) {
        return refuse("gateway", gateway.to_string());
    }
    if let Some(range) = wish.range.filter(|range| !subnet.covers(*range)) {
        return refuse("ip-range", range.to_string());
    }
    match wish.auxiliary.values().find(|address| !subnet.contains(**address)) {
        Some(address) => refuse("auxiliary address", address.to_string()),
        None => Ok(()),
    }
}

fn parse_subnet(what: &str, text: &str) -> Result<Option<Subnet>> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|error| {
            EngineError::invalid(format!("invalid network config: invalid {what} {text}: {error}"))
        }),
    }
}

fn parse_address(what: &str, text: &str) -> Result<IpAddr> {
    text.parse()
        .map_err(|_| EngineError::invalid(format!("invalid network config: invalid {what} address {text}")))
}

/// dockerd's status for what keeps a bridge from being made.
fn refusal(error: BridgeError) -> EngineError {
    let kind = match error {
        BridgeError::Overlap { .. } | BridgeError::NameTaken(_) => ErrorKind::Forbidden,
        BridgeError::NoSubnet => ErrorKind::NotFound,
        BridgeError::TooSmall(_) => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    EngineError::new(kind, dory_types::with_causes(&error)).caused_by(error)
}

/// dockerd's status for what keeps a parent interface from being used.
fn parent_refusal(error: ParentError) -> EngineError {
    match error {
        ParentError::Subnet(error) => refusal(error),
        ParentError::NoParent(_) => EngineError::invalid(error.to_string()),
        ParentError::Refused { .. } => EngineError::invalid(dory_types::with_causes(&error)).caused_by(error),
    }
}

impl NetworkRecord {
    /// True where somebody chose the subnet of the family.
    pub(crate) fn has_chosen_subnet(&self, ipv4: bool) -> bool {
        self.chosen_subnets.contains(&ipv4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(subnet: &str, gateway: &str, range: &str) -> NetworkIpamConfig {
        NetworkIpamConfig {
            subnet: subnet.to_owned(),
            gateway: gateway.to_owned(),
            ip_range: range.to_owned(),
            auxiliary_addresses: None,
        }
    }

    fn wishes(configs: &[NetworkIpamConfig], ipv6: bool) -> Result<Vec<SubnetWish>> {
        let ipam = NetworkIpam { config: Some(configs.to_vec()), ..NetworkIpam::default() };
        subnet_wishes(&ipam, true, ipv6)
    }

    #[test]
    fn one_subnet_for_each_family() {
        let four = config("10.1.0.0/16", "10.1.0.9", "10.1.2.0/24");
        let six = config("fd00::/64", "", "");
        let both = wishes(&[six.clone(), four.clone()], true).unwrap();
        assert_eq!(both.iter().map(|wish| wish.ipv4).collect::<Vec<_>>(), [true, false]);
        assert_eq!(wishes(&[four.clone(), six], false).unwrap().len(), 1);
        assert_eq!(wishes(&[], true).unwrap(), [SubnetWish::ipv4(), SubnetWish::ipv6()]);
        assert!(wishes(&[four.clone(), four], false).unwrap_err().message().contains("multiple subnets"));
    }

    #[test]
    fn refuses_what_lies_outside() {
        for wrong in [
            config("10.1.0.0/16", "10.2.0.1", ""),
            config("10.1.0.0/16", "", "10.2.0.0/24"),
            config("10.1.0.0/33", "", ""),
            config("", "10.1.0.1", ""),
            config("10.1.0.0/16", "x", ""),
        ] {
            assert!(wishes(std::slice::from_ref(&wrong), false).is_err(), "{wrong:?}");
        }
    }
}
