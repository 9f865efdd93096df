//! What exists in the engine's network namespace, and what a new network may therefore be.

use crate::bridge::{BridgeConfig, BridgeError, SubnetWish};
use crate::netlink::{Connection, NetlinkError};
use crate::network::NetworkSubnet;
use crate::pool;
use crate::route::{self, InterfaceAddress, Link, Route};
use crate::subnet::Subnet;

/// How many bridges of other engines are stepped over before giving up.
const NAMES_TRIED: u32 = 64;

/// What exists in the engine's network namespace.
pub(crate) struct Survey {
    pub(crate) links: Vec<Link>,
    addresses: Vec<InterfaceAddress>,
    routes: Vec<Route>,
}

/// Where a bridge is, or will be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: String,
    /// The bridge's index where it exists.
    pub(crate) existing: Option<u32>,
}

impl Survey {
    /// Looks around.
    pub(crate) fn new(connection: &mut Connection) -> Result<Self, NetlinkError> {
        Ok(Self {
            links: route::links(connection)?,
            addresses: route::addresses(connection)?,
            routes: route::routes(connection)?,
        })
    }

    /// The interface of the default route.
    pub(crate) fn outward(&self) -> Option<&Link> {
        let index = self.routes.iter().find(|it| it.destination.prefix() == 0)?.interface?;
        self.links.iter().find(|link| link.index == index)
    }

    /// The bridge that bears `mark`, or else the first free name, beginning at `wanted` and raising its number.
    ///
    /// An `exact` name is taken or refused: somebody asked for it.
    pub(crate) fn place(&self, wanted: &str, exact: bool, mark: &str) -> Result<Place, BridgeError> {
        if let Some(ours) = self.links.iter().find(|link| link.kind == "bridge" && link.alias == mark) {
            return Ok(Place { name: ours.name.clone(), existing: Some(ours.index) });
        }
        if exact {
            return match self.links.iter().any(|link| link.name == wanted) {
                true => Err(BridgeError::NameTaken(wanted.to_owned())),
                false => Ok(Place { name: wanted.to_owned(), existing: None }),
            };
        }
        let stem = wanted.trim_end_matches(|last: char| last.is_ascii_digit());
        let first: u32 = wanted[stem.len()..].parse().unwrap_or(0);
        let later = (1..NAMES_TRIED).map(|step| format!("{stem}{}", first.saturating_add(step)));
        std::iter::once(wanted.to_owned())
            .chain(later)
            .find(|name| !self.links.iter().any(|link| link.name == *name))
            .map(|name| Place { name, existing: None })
            .ok_or_else(|| BridgeError::NoName(wanted.to_owned()))
    }

    /// The place of the network in one family: that of the bridge that exists, what was asked for, or the first subnet
    /// that is free.
    pub(crate) fn place_of(
        &self,
        config: &BridgeConfig,
        wish: &SubnetWish,
        existing: Option<u32>,
    ) -> Result<NetworkSubnet, BridgeError> {
        let ipv4 = wish.ipv4;
        let of_family = |it: &&InterfaceAddress| Some(it.index) == existing && it.subnet.is_ipv4() == ipv4;
        let kept = self.addresses.iter().find(of_family);
        if let Some(kept) = kept
            && wish.subnet.is_none_or(|wanted| wanted == kept.subnet)
        {
            return Ok(wish.place(kept.subnet, wish.gateway.unwrap_or(kept.address)));
        }
        let mut in_use = self.in_use(existing);
        in_use.extend(config.reserved.iter().copied());
        let subnet = match wish.subnet {
            Some(wanted) => {
                let overlap = in_use.into_iter().find(|used| used.prefix() > 0 && used.overlaps(wanted));
                if let Some(existing) = overlap {
                    return Err(BridgeError::Overlap { wanted, existing });
                }
                wanted
            }
            None => {
                in_use.extend(config.avoid.iter().map(|address| Subnet::containing(*address, 128)));
                pool::first_free(&config.pools, ipv4, &in_use).ok_or(BridgeError::NoSubnet)?
            }
        };
        let first = || subnet.nth(1).filter(|gateway| !ipv4 || *gateway != subnet.last());
        match wish.gateway.or_else(first) {
            Some(gateway) => Ok(wish.place(subnet, gateway)),
            None => Err(BridgeError::TooSmall(subnet)),
        }
    }

    /// The subnets of addresses and routes, except those of the interface `own`.
    fn in_use(&self, own: Option<u32>) -> Vec<Subnet> {
        let addresses = self.addresses.iter().filter(|it| Some(it.index) != own).map(|it| it.subnet);
        let routes = self.routes.iter().filter(|it| own.is_none() || it.interface != own);
        addresses.chain(routes.map(|it| it.destination)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str, alias: &str) -> Link {
        let (name, kind, alias) = (name.to_owned(), kind.to_owned(), alias.to_owned());
        Link { index, name, kind, alias, mtu: 1400, loopback: false }
    }

    /// An uplink in 10.0.0.0/24, our bridge in 172.20.0.0/16, another engine's in 172.17.0.0/16.
    fn survey() -> Survey {
        let address = |index, address: &str, prefix| {
            let address = address.parse().unwrap();
            InterfaceAddress { index, address, subnet: Subnet::containing(address, prefix) }
        };
        let route = |destination: &str, interface| Route {
            destination: destination.parse().unwrap(),
            interface: Some(interface),
        };
        Survey {
            links: vec![
                link(2, "eth0", "", ""),
                link(3, "dory0", "bridge", "dory:other:net"),
                link(4, "dory7", "bridge", "dory:ours:net"),
            ],
            addresses: vec![
                address(2, "10.0.0.5", 24),
                address(3, "172.17.0.1", 16),
                address(4, "172.20.0.1", 16),
            ],
            routes: vec![route("0.0.0.0/0", 2), route("172.17.0.0/16", 3), route("172.20.0.0/16", 4)],
        }
    }

    fn config() -> BridgeConfig {
        let id = dory_types::NetworkId::from_bytes([1; 32]);
        let avoid = vec!["172.18.0.53".parse().unwrap()];
        BridgeConfig { avoid, ..BridgeConfig::new(id, "bridge", "dory0", "ours") }
    }

    fn wish(subnet: Option<&str>) -> SubnetWish {
        SubnetWish { subnet: subnet.map(|text| text.parse().unwrap()), ..SubnetWish::ipv4() }
    }

    #[test]
    fn names_step_over_what_is_not_ours() {
        let survey = survey();
        for (wanted, mark, name, existing) in [
            ("dory0", "dory:ours:net", "dory7", Some(4)),
            ("dory0", "dory:new:net", "dory1", None),
            ("free0", "dory:new:net", "free0", None),
            ("eth0", "dory:new:net", "eth1", None),
        ] {
            assert_eq!(survey.place(wanted, false, mark).unwrap(), Place { name: name.to_owned(), existing });
        }
        assert!(matches!(survey.place("eth0", true, "dory:new:net"), Err(BridgeError::NameTaken(_))));
    }

    #[test]
    fn subnets_are_kept_or_asked_for_or_chosen() {
        let survey = survey();
        for (wanted, existing, expected) in [
            (None, None, "172.19.0.0/16"),
            (None, Some(4), "172.20.0.0/16"),
            (Some("172.20.0.0/16"), Some(4), "172.20.0.0/16"),
            (Some("172.20.0.0/24"), Some(4), "172.20.0.0/24"),
            (Some("192.168.7.0/24"), None, "192.168.7.0/24"),
        ] {
            let place = survey.place_of(&config(), &wish(wanted), existing).unwrap();
            assert_eq!(place.subnet.to_string(), expected);
        }
        let overlap = survey.place_of(&config(), &wish(Some("172.17.3.0/24")), None);
        assert!(matches!(overlap, Err(BridgeError::Overlap { .. })));
        for small in ["192.168.7.0/31", "192.168.7.0/32"] {
            assert!(
                matches!(survey.place_of(&config(), &wish(Some(small)), None), Err(BridgeError::TooSmall(_))),
                "{small}"
            );
        }
    }

    #[test]
    fn outward_is_where_the_default_route_leads() {
        assert_eq!(survey().outward().unwrap().name, "eth0");
    }
}
