//! `inspect` and `list`: read from records, without any lock of the lifecycle.

use std::sync::Arc;

use dory_runtime::protocol::LOG_NAME;
use dory_store::Snapshot;
use dory_types::Timestamp;

use super::details::{
    ContainerDetails, ContainerSummary, GraphDriver, NetworkSettings, PortSummary, SummaryHostConfig,
    SummaryNetworkSettings,
};
use super::object::Container;
use super::record::Record;
use super::request::ListOptions;
use crate::Result;
use crate::config::{PortBinding, PortMap};
use crate::engine::{Engine, Inner, blocking};
use crate::spec::port;
use crate::spec::security::SecurityOptions;

/// The storage driver's name: what it does is what Docker's overlay2 does, and clients ask for it by that name.
pub(crate) const STORAGE_DRIVER: &str = "overlay2";

impl Engine {
    /// Everything about a container.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn inspect_container(&self, reference: &str, size: bool) -> Result<ContainerDetails> {
        let container = self.inner.registry.find(reference)?;
        let sizes = match size {
            true => Some(self.sizes(&container).await?),
            false => None,
        };
        Ok(self.inner.details(&container, sizes))
    }

    /// Bytes of the writable layer, and of it with the image's.
    async fn sizes(&self, container: &Arc<Container>) -> Result<(i64, i64)> {
        let (inner, id, image) =
            (Arc::clone(&self.inner), container.id.clone(), container.record().image.clone());
        blocking(move || {
            let own = inner.writable_size(&id);
            let image = inner.store.image(image.as_str()).map_or(0, |image| image.size);
            Ok((i64::try_from(own).unwrap_or(i64::MAX), i64::try_from(own + image).unwrap_or(i64::MAX)))
        })
        .await
    }

    /// The containers that the options choose, newest first.
    ///
    /// # Errors
    /// `Invalid` for a filter that makes no sense.
    pub async fn list_containers(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        let chosen = super::list::choose(&self.inner, &options)?;
        let now = Timestamp::now();
        let mut summaries = Vec::with_capacity(chosen.len());
        for (container, record) in chosen {
            let sizes = match options.size {
                true => Some(self.sizes(&container).await?),
                false => None,
            };
            summaries.push(self.inner.summary(&record, sizes, now));
        }
        Ok(summaries)
    }
}

impl Inner {
    fn details(&self, container: &Container, sizes: Option<(i64, i64)>) -> ContainerDetails {
        let record = container.record();
        // As with dockerd, there is nothing to name before the first start, and the files stay after the end.
        let ran = record.run.is_some() || !record.state.started_at.is_zero();
        let path = |name: &str| match ran {
            true => container.directory.join(name).to_string_lossy().into_owned(),
            false => String::new(),
        };
        let log_path = match record.log.driver {
            dory_log::LogDriver::JsonFile(_) => path(LOG_NAME),
            // As dockerd: the form of its files is nobody else's business.
            dory_log::LogDriver::Local(_) | dory_log::LogDriver::None => String::new(),
        };
        let execs = self.unfinished_execs(container);
        ContainerDetails {
            id: record.id.clone(),
            created: record.created,
            path: record.path.clone(),
            args: record.args.clone(),
            state: record.state.clone(),
            image: format!("sha256:{}", record.image),
            resolv_conf_path: path("resolv.conf"),
            hostname_path: path("hostname"),
            hosts_path: path("hosts"),
            log_path,
            name: record.name.with_slash(),
            restart_count: record.restart_count,
            driver: STORAGE_DRIVER.to_owned(),
            platform: "linux".to_owned(),
            mount_label: String::new(),
            process_label: String::new(),
            app_armor_profile: self.apparmor_profile(&record),
            exec_ids: Some(execs).filter(|execs| !execs.is_empty()),
            host_config: Arc::clone(&record.host_config),
            graph_driver: self
                .store
                .snapshot(&record.id)
                .map(|snapshot| graph_driver(&snapshot))
                .unwrap_or_default(),
            size_rw: sizes.map(|(own, _)| own),
            size_root_fs: sizes.map(|(_, all)| all),
            mounts: record.points.iter().map(|point| point.summary()).collect(),
            config: Arc::clone(&record.config),
            network_settings: self.network_settings(&record),
        }
    }

    fn network_settings(&self, record: &Record) -> NetworkSettings {
        let run = record.present_run();
        let sandbox_id = run.map(|run| run.sandbox_id.clone()).unwrap_or_default();
        let sandbox_key = match record.state.pid {
            0 => String::new(),
            pid => format!("/proc/{pid}/ns/net"),
        };
        NetworkSettings {
            bridge: String::new(),
            sandbox_id,
            sandbox_key,
            ports: ports(record),
            networks: self.networks(record),
        }
    }

    fn summary(&self, record: &Record, sizes: Option<(i64, i64)>, now: Timestamp) -> ContainerSummary {
        ContainerSummary {
            id: record.id.clone(),
            names: vec![record.name.with_slash()],
            image: self.image_name(record),
            image_id: format!("sha256:{}", record.image),
            command: command(record),
            created: record.created.unix_seconds(),
            ports: port_summaries(record),
            size_rw: sizes.map(|(own, _)| own).filter(|size| *size != 0),
            size_root_fs: sizes.map(|(_, all)| all),
            labels: record.config.labels.clone(),
            state: record.state.status.as_str().to_owned(),
            status: record.state.summary(now),
            host_config: SummaryHostConfig {
                network_mode: record.host_config.network_mode.clone(),
                annotations: record.host_config.annotations.clone(),
            },
            network_settings: SummaryNetworkSettings { networks: self.networks(record) },
            mounts: record.points.iter().map(|point| point.listed()).collect(),
        }
    }

    /// What the request named, else the engine's default; nothing is confined where the engine has no profile.
    fn apparmor_profile(&self, record: &Record) -> String {
        let options = SecurityOptions::parse(&record.host_config);
        let named = options.ok().and_then(|options| options.apparmor);
        match (named, self.default_profile.present(), record.host_config.privileged) {
            (Some(name), ..) => name,
            (None, Some(_), true) => "unconfined".to_owned(),
            (None, Some(name), false) => name.to_owned(),
            (None, None, _) => String::new(),
        }
    }

    /// The image as it was named, or its id where that name means another one by now.
    fn image_name(&self, record: &Record) -> String {
        match self.store.resolve(&record.config.image) {
            Ok(id) if id == record.image => record.config.image.clone(),
            _ => format!("sha256:{}", record.image),
        }
    }
}

/// Program and arguments; those with a blank are quoted, as dockerd does.
fn command(record: &Record) -> String {
    let words = std::iter::once(&record.path).chain(&record.args);
    let quoted = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Where overlayfs finds everything, in Docker's words.
pub(crate) fn graph_driver(snapshot: &Snapshot) -> GraphDriver {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let lower: Vec<String> = snapshot.layers.iter().map(|layer| text(layer)).collect();
    let data = [
        ("LowerDir", lower.join(":")),
        ("MergedDir", text(&snapshot.directory.join("merged"))),
        ("UpperDir", text(&snapshot.upper)),
        ("WorkDir", text(&snapshot.work)),
    ];
    GraphDriver {
        name: STORAGE_DRIVER.to_owned(),
        data: data.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// Exposed ports, each with where it is published.
pub(super) fn ports(record: &Record) -> PortMap {
    let Some(run) = record.present_run() else { return PortMap::new() };
    let mut ports = PortMap::new();
    for exposed in port::exposed(&record.config, &record.host_config).unwrap_or_default() {
        ports.insert(exposed.to_string(), None);
    }
    for mapping in &run.ports {
        let key = format!("{}/{}", mapping.container_port, mapping.protocol);
        let binding = PortBinding {
            host_ip: mapping.host_address.to_string(),
            host_port: mapping.host_port.to_string(),
        };
        ports.entry(key).or_default().get_or_insert_default().push(binding);
    }
    ports
}

fn port_summaries(record: &Record) -> Vec<PortSummary> {
    let mut summaries = Vec::new();
    for (key, bindings) in ports(record) {
        let Ok(port) = port::parse_port(&key) else { continue };
        let kind = port.protocol.to_string();
        let Some(bindings) = bindings.filter(|bindings| !bindings.is_empty()) else {
            summaries.push(PortSummary { ip: None, private_port: port.number, public_port: None, kind });
            continue;
        };
        summaries.extend(bindings.iter().map(|binding| PortSummary {
            ip: Some(binding.host_ip.clone()),
            private_port: port.number,
            public_port: binding.host_port.parse().ok(),
            kind: kind.clone(),
        }));
    }
    summaries.sort();
    summaries
}
