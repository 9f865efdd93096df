//! Names: who is found under which on a network, and how containers' questions are answered.
//!
//! Containers on networks that people define ask the embedded DNS server; the default bridge has no names, as with
//! Docker. Nothing of this is kept on disk: an engine that opens makes it anew from the records of running containers.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dory_net::{
    DnsClient, DnsDirectory, DnsMember, DnsNetwork, DnsOrigin, DnsServer, DnsServerError, DnsUpstream,
    ResolvConf,
};
use dory_types::{ContainerId, NetworkId};

use super::is_predefined;
use super::names::dns_names;
use crate::container::{Container, Record, RunEndpoint};
use crate::engine::Inner;
use crate::{EngineError, Result};

/// The port of DNS.
const DNS_PORT: u16 = 53;

/// The embedded DNS server of the engine, and what it knows.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    directory: Arc<DnsDirectory>,
    /// Started when first needed.
    server: Mutex<Option<Arc<DnsServer>>>,
    /// The containers that are answered.
    attached: Mutex<HashSet<ContainerId>>,
}

impl Resolver {
    fn server(&self) -> Result<Arc<DnsServer>, DnsServerError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = &*server {
            return Ok(Arc::clone(server));
        }
        let started = Arc::new(DnsServer::start(Arc::clone(&self.directory))?);
        *server = Some(Arc::clone(&started));
        Ok(started)
    }

    fn attached(&self) -> MutexGuard<'_, HashSet<ContainerId>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn existing(&self) -> Option<Arc<DnsServer>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the container be found on `network` no more.
    pub(super) fn withdraw(&self, network: &NetworkId, container: &ContainerId) {
        self.directory.leave(network, container.as_str());
    }

    /// Answers the container no more.
    pub(super) fn detach(&self, container: &ContainerId) {
        if self.attached().remove(container)
            && let Some(server) = self.existing()
        {
            server.detach(container.as_str());
        }
    }
}

/// True where the container asks the embedded server.
pub(crate) fn uses_resolver(record: &Record) -> bool {
    record.endpoints.keys().any(|name| !is_predefined(name))
}

impl Inner {
    /// Lets the container be found on its networks, and answers its own questions in `netns`.
    pub(super) fn serve_names(&self, container: &Container, netns: BorrowedFd<'_>) -> Result<()> {
        let record = container.record();
        self.announce(&record);
        if !uses_resolver(&record) {
            return Ok(());
        }
        let failed = |error: DnsServerError| EngineError::failed(super::attach::SETUP_FAILED, error);
        let netns = netns.try_clone_to_owned().map_err(|error| failed(DnsServerError::Enter(error)))?;
        self.answer(&record, netns).map_err(failed)
    }

    /// Serves the names of a container that runs since before the engine opened.
    pub(super) fn serve_names_again(&self, container: &Container) {
        let record = container.record();
        self.announce(&record);
        if !uses_resolver(&record) {
            return;
        }
        let served = match container.shim().network(&[]) {
            Ok(Some(netns)) => self.answer(&record, netns).map_err(|error| dory_types::with_causes(&error)),
            Ok(None) => return,
            Err(error) => Err(dory_types::with_causes(&error)),
        };
        if let Err(error) = served {
            tracing::warn!(container.id = %record.id, error, "A running container has lost its name server");
        }
    }

    fn answer(&self, record: &Record, netns: OwnedFd) -> Result<(), DnsServerError> {
        self.resolver.server()?.attach(record.id.as_str(), netns, self.dns_client(record))?;
        self.resolver.attached().insert(record.id.clone());
        Ok(())
    }

    /// Lets a change of the container's networks or names be known. A container that asks nobody so far does from now on.
    pub(super) fn serve_change(&self, container: &Container, netns: &OwnedFd) -> Result<()> {
        let record = container.record();
        let attached = self.resolver.attached().contains(&record.id);
        match self.resolver.existing() {
            Some(server) if attached => {
                self.announce(&record);
                server.update(record.id.as_str(), self.dns_client(&record));
                Ok(())
            }
            _ => self.serve_names(container, netns.as_fd()),
        }
    }

    /// Lets the container's present names be found in place of those before.
    pub(crate) fn announce(&self, record: &Record) {
        for place in record.run.iter().flat_map(|run| &run.endpoints) {
            let names = dns_names(record, &place.name);
            if !names.is_empty() {
                let name = record.name.as_str().to_owned();
                let member = DnsMember { name, names, addresses: place.addresses.clone() };
                self.resolver.directory.join(&place.network, record.id.as_str(), member);
            }
        }
    }

    /// How the container's questions are answered.
    fn dns_client(&self, record: &Record) -> DnsClient {
        let places = record.run.iter().flat_map(|run| &run.endpoints);
        let named = places.filter(|place| !is_predefined(&place.name));
        let networks = named.map(|place| DnsNetwork {
            id: place.network.clone(),
            name: place.name.clone(),
            links: self.resolver_links(record, place),
        });
        let host = self.bridge.existing().and_then(|bridge| bridge.gateway()).map(IpAddr::V4);
        DnsClient {
            networks: networks.collect(),
            upstreams: if self.leads_outside(record) { self.upstreams(record) } else { Vec::new() },
            keeps_single_labels: self.options_of(record).iter().any(|option| {
                option
                    .strip_prefix("ndots:")
                    .and_then(|dots| dots.parse::<u32>().ok())
                    .is_some_and(|dots| dots > 0)
            }),
            host,
        }
    }

    /// The links of a place (`container:word`), with the names that containers bear now.
    fn resolver_links(&self, record: &Record, place: &RunEndpoint) -> Vec<(String, String)> {
        let wish = record.endpoints.get(&place.name);
        let links = wish.iter().flat_map(|wish| wish.links.iter());
        links
            .map(|link| {
                let (target, word) = link.split_once(':').unwrap_or((link, link));
                // One that is not there yet will be found by the name that the link says.
                let found = self.registry.find(target).ok();
                let name = found.map(|container| container.record().name.as_str().to_owned());
                (word.to_owned(), name.unwrap_or_else(|| target.to_owned()))
            })
            .collect()
    }

    /// True where one of the container's networks has an outside: names of containers alone are answered elsewhere
    /// (CVE-2024-29018).
    fn leads_outside(&self, record: &Record) -> bool {
        let mut places = record.run.iter().flat_map(|run| &run.endpoints);
        places.any(|place| self.networks.by_id(&place.network).is_some_and(|object| !object.record.internal))
    }

    /// Who is asked for what is no container's name: those that the container names, as it reaches them itself; else the
    /// engine's own, of which those on its loopback are reached by the engine alone, and those of IPv6 by it at least.
    fn upstreams(&self, record: &Record) -> Vec<DnsUpstream> {
        let upstream =
            |address: IpAddr, origin| DnsUpstream { address: SocketAddr::new(address, DNS_PORT), origin };
        let wished: Vec<IpAddr> =
            record.host_config.dns.iter().filter_map(|text| text.parse().ok()).collect();
        if !wished.is_empty() {
            return wished.into_iter().map(|address| upstream(address, DnsOrigin::Container)).collect();
        }
        let configured = &self.options.dns;
        let addresses = if configured.is_empty() {
            crate::link::host_resolvers().nameservers
        } else {
            configured.clone()
        };
        addresses
            .into_iter()
            .map(|address| {
                let direct = address.is_ipv4() && !address.is_loopback();
                upstream(address, if direct { DnsOrigin::Container } else { DnsOrigin::Engine })
            })
            .collect()
    }

    /// The resolver's options that hold for the container.
    fn options_of(&self, record: &Record) -> Vec<String> {
        match record.host_config.dns_options.is_empty() {
            true => crate::link::host_resolvers().options,
            false => record.host_config.dns_options.to_vec(),
        }
    }
}

/// A container's resolv.conf where it asks the embedded server, given the host's and its own wishes.
pub(crate) fn embedded_resolv_conf(host: &ResolvConf, wishes: &ResolvConf) -> ResolvConf {
    let mut file = host.for_container(wishes, None);
    file.nameservers = vec![IpAddr::V4(dory_net::RESOLVER)];
    // So that a container's name is asked for as it stands, before any search domain.
    if !file.options.iter().any(|option| option.starts_with("ndots:")) {
        file.options.push("ndots:0".to_owned());
    }
    file
}
