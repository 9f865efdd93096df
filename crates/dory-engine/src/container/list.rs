//! Which containers a list shows (moby `daemon/list.go`).

use std::sync::Arc;

use dory_types::Timestamp;

use super::object::Container;
use super::record::Record;
use super::request::ListOptions;
use super::state::Status;
use crate::Result;
use crate::engine::Inner;
use crate::filters::{FilterError, Filters, Patterns};
use crate::spec::port::{Port, parse_port};

/// What `docker ps --filter` knows.
const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
/// The values of `status`.
const STATES: [&str; 7] = ["created", "dead", "exited", "paused", "removing", "restarting", "running"];
/// The values of `health`.
const HEALTH: [&str; 4] = ["healthy", "none", "starting", "unhealthy"];

/// The containers that the options choose, newest first, with the version of their record that was looked at.
pub(super) fn choose(engine: &Inner, options: &ListOptions) -> Result<Vec<(Arc<Container>, Arc<Record>)>> {
    let filters = &options.filters;
    filters.validate(FILTERS)?;
    let query = Query::new(engine, filters)?;
    let mut all: Vec<_> = engine
        .registry
        .all()
        .into_iter()
        .map(|container| (Arc::clone(&container), container.record()))
        .collect();
    all.sort_by(|(_, one), (_, other)| other.created.cmp(&one.created).then_with(|| one.id.cmp(&other.id)));
    // Only `status` and a limit include those that do not run, as with dockerd: `exited` needs `all`.
    let ended_too = options.all || options.limit.is_some() || filters.contains("status");
    let chosen = all
        .into_iter()
        .filter(|(_, record)| (ended_too || record.state.running) && query.accepts(engine, filters, record));
    Ok(match options.limit {
        Some(limit) => chosen.take(limit).collect(),
        None => chosen.collect(),
    })
}

/// Filters whose values were looked up.
struct Query {
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    exited: Vec<i32>,
    publish: Vec<PortRange>,
    expose: Vec<PortRange>,
    ancestors: Vec<dory_types::ImageId>,
    has_ancestor: bool,
    names: Patterns,
    ids: Patterns,
    /// Swarm's tasks are asked for, and there are none.
    tasks: bool,
}

/// `80`, `80/tcp`, `8000-8010/udp`.
struct PortRange {
    first: Port,
    last: u16,
}

impl Query {
    fn new(engine: &Inner, filters: &Filters) -> Result<Self> {
        for (name, known) in [("status", &STATES[..]), ("health", &HEALTH[..])] {
            if let Some(value) = filters.get(name).iter().find(|value| !known.contains(&value.as_str())) {
                return Err(FilterError::Value { name: name.to_owned(), value: value.clone() }.into());
            }
        }
        let created = |name: &str| -> Result<Option<Timestamp>> {
            let mut created = None;
            for reference in filters.get(name) {
                created = Some(engine.registry.find(reference)?.record().created);
            }
            Ok(created)
        };
        let number = |value: &String| {
            value.parse().map_err(|_| FilterError::Value { name: "exited".to_owned(), value: value.clone() })
        };
        let ports = |name: &str| -> Result<Vec<PortRange>> {
            filters.get(name).iter().map(|text| port_range(text)).collect()
        };
        Ok(Self {
            before: created("before")?,
            since: created("since")?,
            exited: filters.get("exited").iter().map(number).collect::<std::result::Result<_, _>>()?,
            publish: ports("publish")?,
            expose: ports("expose")?,
            // An image that does not exist has no containers.
            ancestors: filters
                .get("ancestor")
                .iter()
                .filter_map(|name| engine.store.resolve(name).ok())
                .collect(),
            has_ancestor: filters.contains("ancestor"),
            names: filters.patterns("name"),
            ids: filters.patterns("id"),
            tasks: filters.boolean("is-task")? == Some(true),
        })
    }

    fn accepts(&self, engine: &Inner, filters: &Filters, record: &Record) -> bool {
        self.accepts_own(filters, record) && self.accepts_related(engine, filters, record)
    }

    fn accepts_own(&self, filters: &Filters, record: &Record) -> bool {
        let state = &record.state;
        let health = state.health.as_ref().map_or("none", |health| health.status.as_str());
        let name = record.name.as_str();
        !self.tasks
            && self.ids.accept(record.id.as_str())
            && (self.names.accept(name) || self.names.accept(&record.name.with_slash()))
            && filters.labels("label", &record.config.labels)
            && filters.exact("status", state.status.as_str())
            && filters.exact("health", health)
            && self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
            && (self.exited.is_empty()
                || (!state.running
                    && state.status != Status::Created
                    && self.exited.contains(&state.exit_code)))
    }

    fn accepts_related(&self, engine: &Inner, filters: &Filters, record: &Record) -> bool {
        filters.any("volume", |volume| {
            record.points.iter().any(|point| {
                point.volume == *volume || point.source == *volume || point.destination == *volume
            })
        }) && filters.any("network", |network| {
            let of = |(name, settings): (&String, &crate::config::EndpointSettings)| {
                name == network
                    || (!settings.network_id.is_empty() && settings.network_id.starts_with(network.as_str()))
            };
            engine.networks(record).iter().any(of)
        }) && self.accepts_ports(record)
            && (!self.has_ancestor
                || self.ancestors.iter().any(|image| engine.descends(&record.image, image)))
    }

    fn accepts_ports(&self, record: &Record) -> bool {
        let published = |range: &PortRange| {
            record
                .present_run()
                .into_iter()
                .flat_map(|run| &run.ports)
                .any(|mapping| range.contains(mapping.host_port, mapping.protocol))
        };
        // What a container exposes is known while it runs only, as with dockerd.
        let exposed = |range: &PortRange| {
            super::inspect::ports(record)
                .keys()
                .filter_map(|key| parse_port(key).ok())
                .any(|port| range.contains(port.number, port.protocol))
        };
        (self.publish.is_empty() || self.publish.iter().any(published))
            && (self.expose.is_empty() || self.expose.iter().any(exposed))
    }
}

impl PortRange {
    fn contains(&self, port: u16, protocol: dory_net::Protocol) -> bool {
        protocol == self.first.protocol && (self.first.number..=self.last).contains(&port)
    }
}

fn port_range(text: &str) -> Result<PortRange> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let first = parse_port(&format!("{first}/{protocol}"))?;
    Ok(PortRange { first, last: parse_port(last)?.number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_port_ranges() {
        let range = port_range("8000-8010/udp").unwrap();
        assert!(
            range.contains(8005, dory_net::Protocol::Udp) && !range.contains(8005, dory_net::Protocol::Tcp)
        );
        assert!(port_range("80").unwrap().contains(80, dory_net::Protocol::Tcp));
        assert!(port_range("x").is_err());
    }
}
