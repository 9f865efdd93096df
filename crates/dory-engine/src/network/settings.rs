//! A container's endpoints as the API shows them, and which of them leads out.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::names::dns_names;
use crate::config::{EndpointSettings, GoSlice};
use crate::container::{Record, RunEndpoint};
use crate::engine::Inner;

impl Inner {
    /// The endpoints of a container by network name.
    pub(crate) fn networks(&self, record: &Record) -> BTreeMap<String, EndpointSettings> {
        let run = record.present_run();
        let shown = |(name, wish): (&String, &EndpointSettings)| {
            let mut settings = wish.clone();
            settings.dns_names = GoSlice(Some(dns_names(record, name)).filter(|names| !names.is_empty()));
            let place = run.and_then(|run| run.endpoints.iter().find(|place| place.name == *name));
            match place {
                Some(place) => fill(&mut settings, place),
                // What is left of a run that ended, as with dockerd.
                None if !record.state.started_at.is_zero() => {
                    settings.network_id = self
                        .networks
                        .find(name)
                        .map(|network| network.record.id().to_string())
                        .unwrap_or_default();
                }
                None => {}
            }
            (name.clone(), settings)
        };
        record.endpoints.iter().map(shown).collect()
    }

    /// The endpoints of the present run, the ones before others that rather lead out, as libnetwork orders them: by
    /// priority, those with an outside, those of both families, and then by name.
    pub(crate) fn by_way_out<'a>(&self, record: &'a Record) -> Vec<&'a RunEndpoint> {
        let Some(run) = &record.run else { return Vec::new() };
        let mut endpoints: Vec<_> = run.endpoints.iter().filter(|place| place.endpoint.is_some()).collect();
        endpoints.sort_by_key(|place| {
            let priority = record.endpoints.get(&place.name).map_or(0, |wish| wish.gw_priority);
            let leads = |ipv4: bool| {
                let endpoint = place.endpoint.as_ref();
                let address = endpoint.and_then(|endpoint| if ipv4 { endpoint.ipv4 } else { endpoint.ipv6 });
                address.is_some_and(|address| address.gateway.is_some())
            };
            let (ipv4, ipv6) = (leads(true), leads(false));
            (Reverse(priority), Reverse(ipv4 || ipv6), Reverse(ipv4 && ipv6), place.name.clone())
        });
        endpoints
    }
}

/// Adds what came of the wish.
fn fill(settings: &mut EndpointSettings, place: &RunEndpoint) {
    settings.network_id = place.network.to_string();
    settings.endpoint_id.clone_from(&place.endpoint_id);
    let Some(endpoint) = &place.endpoint else { return };
    settings.mac_address = endpoint.mac.to_string();
    if let Some(ipv4) = endpoint.ipv4 {
        settings.gateway = ipv4.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        settings.ip_address = ipv4.address.to_string();
        settings.ip_prefix_len = ipv4.prefix;
    }
    if let Some(ipv6) = endpoint.ipv6 {
        settings.ipv6_gateway = ipv6.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        settings.global_ipv6_address = ipv6.address.to_string();
        settings.global_ipv6_prefix_len = ipv6.prefix;
    }
}
