//! Who is called what on which network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dory_types::NetworkId;

/// A container on a network, as its neighbours may call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsMember {
    /// The container's name: what its address is called.
    pub name: String,
    /// Every name under which it is found: its name, aliases, short id. Case does not count.
    pub names: Vec<String>,
    /// Its addresses on this network.
    pub addresses: Vec<IpAddr>,
}

/// The names of every network, shared between the engine, which changes them, and the server, which looks them up. A
/// change costs the same however many containers there are.
#[derive(Debug, Default)]
pub struct DnsDirectory {
    zones: RwLock<HashMap<NetworkId, Zone>>,
}

/// One network.
#[derive(Debug, Default)]
struct Zone {
    /// By endpoint, which the engine names.
    members: HashMap<String, DnsMember>,
    /// The endpoints that bear a name (in lower case), in the order in which they came.
    names: HashMap<String, Vec<String>>,
    /// The container's name for each address.
    addresses: HashMap<IpAddr, String>,
}

impl DnsDirectory {
    /// Lets `member` be found on `network`, in place of what `endpoint` was before.
    pub fn join(&self, network: &NetworkId, endpoint: &str, member: DnsMember) {
        let mut zones = self.write();
        let zone = zones.entry(network.clone()).or_default();
        zone.remove(endpoint);
        zone.insert(endpoint, member);
    }

    /// Lets `endpoint` be found no more.
    pub fn leave(&self, network: &NetworkId, endpoint: &str) {
        let mut zones = self.write();
        if let Some(zone) = zones.get_mut(network) {
            zone.remove(endpoint);
            if zone.members.is_empty() {
                zones.remove(network);
            }
        }
    }

    /// The addresses of those who bear `name` (in lower case) on `network`; none where nobody does.
    pub(super) fn addresses(&self, network: &NetworkId, name: &str) -> Option<Vec<IpAddr>> {
        let zones = self.read();
        let zone = zones.get(network)?;
        let members = zone.names.get(name)?.iter().filter_map(|endpoint| zone.members.get(endpoint));
        Some(members.flat_map(|member| member.addresses.iter().copied()).collect())
    }

    /// The name of the container that has `address` on `network`.
    pub(super) fn name(&self, network: &NetworkId, address: IpAddr) -> Option<String> {
        self.read().get(network)?.addresses.get(&address).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<NetworkId, Zone>> {
        self.zones.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<NetworkId, Zone>> {
        self.zones.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Zone {
    fn insert(&mut self, endpoint: &str, member: DnsMember) {
        for name in &member.names {
            let bearers = self.names.entry(name.to_ascii_lowercase()).or_default();
            if !bearers.iter().any(|bearer| bearer == endpoint) {
                bearers.push(endpoint.to_owned());
            }
        }
        for address in &member.addresses {
            self.addresses.insert(*address, member.name.clone());
        }
        self.members.insert(endpoint.to_owned(), member);
    }

    fn remove(&mut self, endpoint: &str) {
        let Some(member) = self.members.remove(endpoint) else { return };
        for name in &member.names {
            let name = name.to_ascii_lowercase();
            if let Some(bearers) = self.names.get_mut(&name) {
                bearers.retain(|bearer| bearer != endpoint);
                if bearers.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for address in &member.addresses {
            // Another container may have the address by now.
            if self.addresses.get(address) == Some(&member.name) {
                self.addresses.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, names: &[&str], last: u8) -> DnsMember {
        DnsMember {
            name: name.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: vec![IpAddr::from([172, 18, 0, last])],
        }
    }

    #[test]
    fn names_come_and_go_with_their_bearers() {
        let directory = DnsDirectory::default();
        let network = NetworkId::from_bytes([1; 32]);
        directory.join(&network, "e1", member("a", &["a", "Web"], 2));
        directory.join(&network, "e2", member("b", &["b", "web", "web"], 3));
        let found = |name| directory.addresses(&network, name).map(|addresses| addresses.len());
        assert_eq!((found("a"), found("web"), found("c")), (Some(1), Some(2), None));
        assert_eq!(directory.name(&network, IpAddr::from([172, 18, 0, 3])), Some("b".to_owned()));
        directory.join(&network, "e2", member("renamed", &["renamed"], 3));
        assert_eq!((found("b"), found("web"), found("renamed")), (None, Some(1), Some(1)));
        assert_eq!(directory.name(&network, IpAddr::from([172, 18, 0, 3])), Some("renamed".to_owned()));
        let other = NetworkId::from_bytes([2; 32]);
        assert_eq!(directory.addresses(&other, "a"), None, "no network knows another's names");
        directory.leave(&network, "e1");
        directory.leave(&network, "e2");
        assert!(directory.read().is_empty());
    }
}
