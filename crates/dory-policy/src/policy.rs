//! The policy: one typed value, written in TOML.
//!
//! A file may name a preset to start from; what else it says replaces that preset's settings one by one, and unknown
//! settings are errors. There is no way to a policy that allows more by leaving something out: every default refuses.

use std::collections::BTreeSet;
use std::time::Duration;

use dory_types::{ByteSize, GoDuration};
use serde::Deserialize;

use crate::pattern::Pattern;
use crate::preset;

/// Groups of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// `_ping`, `version`, `info`, `events`.
    System,
    /// Lists, inspect, logs, top, stats, changes, wait.
    ContainersRead,
    /// create, start, stop, restart, kill, pause, update, rename, resize, rm, prune.
    ContainersWrite,
    /// Attach to a container.
    Attach,
    /// Run commands in containers.
    Exec,
    /// Copy files out of containers: archive and export.
    FilesRead,
    /// Copy files into containers.
    FilesWrite,
    /// Lists, inspect, history.
    ImagesRead,
    /// Pull.
    ImagesPull,
    /// Tag, remove and prune own images; commit own containers.
    ImagesWrite,
    /// Push own tags.
    ImagesPush,
    /// The classic builder.
    Build,
    /// Lists and inspect.
    NetworksRead,
    /// create, connect, disconnect, rm, prune.
    NetworksWrite,
    /// Lists and inspect.
    VolumesRead,
    /// create, rm, prune.
    VolumesWrite,
}

/// What becomes of a wish that is not on any list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// It is granted.
    Allow,
    /// It is taken out of the request, and the answer warns of it.
    Drop,
    /// The request is refused.
    #[default]
    Refuse,
}

/// Whose objects the session sees and touches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objects {
    /// Its own.
    #[default]
    Own,
    /// Everybody's.
    All,
}

/// The whole policy of one session or listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Policy {
    /// How refusals call it; the preset's name where the file gives none.
    #[serde(default)]
    pub name: String,
    /// Endpoints that may be used.
    #[serde(default)]
    pub allow: BTreeSet<Group>,
    /// Whose objects.
    #[serde(default)]
    pub objects: Objects,
    /// What a session made is removed with it.
    #[serde(default)]
    pub cleanup: bool,
    /// How long a session lives, `1h30m`; none means until it is removed.
    #[serde(default)]
    pub ttl: Option<TimeSpan>,
    /// Containers.
    #[serde(default)]
    pub containers: ContainerRules,
    /// Where from the host's files may be mounted.
    #[serde(default)]
    pub binds: BindRules,
    /// Images and registries.
    #[serde(default)]
    pub images: ImageRules,
    /// Networks.
    #[serde(default)]
    pub networks: NetworkRules,
    /// Volumes.
    #[serde(default)]
    pub volumes: VolumeRules,
    /// How much of everything.
    #[serde(default)]
    pub limits: Limits,
}

/// What containers may be given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ContainerRules {
    /// `Privileged`, of containers and of exec.
    pub privileged: Choice,
    /// Capabilities that may be added, without `CAP_`; `ALL` only where it stands here.
    pub capabilities: Vec<Pattern>,
    /// What becomes of other capabilities.
    pub other_capabilities: Choice,
    /// Devices of the host, by path.
    pub devices: Vec<Pattern>,
    /// Device requests and CDI.
    pub device_requests: Choice,
    /// Namespaces of the host that may be shared: `pid`, `ipc`, `uts`, `network`, `user`, `cgroup`.
    pub host_namespaces: BTreeSet<HostNamespace>,
    /// Security options, as `--security-opt` takes them.
    pub security_options: Vec<Pattern>,
    /// Sysctls by name.
    pub sysctls: Vec<Pattern>,
    /// Runtimes by name.
    pub runtimes: Vec<Pattern>,
    /// Annotations by key.
    pub annotations: Vec<Pattern>,
    /// Parent groups that may be named.
    pub cgroup_parents: Vec<Pattern>,
    /// Log drivers by name.
    pub log_drivers: Vec<Pattern>,
    /// Options of log drivers by name.
    pub log_options: Vec<Pattern>,
    /// Restart policies.
    pub restart: Vec<Pattern>,
    /// What becomes of other restart policies.
    pub other_restart: Choice,
    /// Users, as `--user` takes them; an empty user (the image's) counts as written in the image.
    pub users: Option<Vec<Pattern>>,
    /// A mount of the engine's socket becomes a mount of the session's own.
    pub socket: Choice,
}

/// A namespace that containers may share with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostNamespace {
    /// Processes.
    Pid,
    /// System V and POSIX IPC.
    Ipc,
    /// Host name.
    Uts,
    /// Network.
    Network,
    /// Users: no remapping.
    User,
    /// Control groups.
    Cgroup,
}

/// Directories of the host that may be mounted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BindRules {
    /// These, and what is below them, symbolic links resolved.
    pub allow: Vec<BindRoot>,
    /// Everything.
    pub any: bool,
    /// Shared propagation.
    pub propagation: Choice,
}

/// A directory of the host.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BindRoot {
    /// Absolute.
    pub source: String,
    /// Mounts below it are made read-only.
    #[serde(default)]
    pub read_only: bool,
}

/// Images. Patterns match the full familiar name, tag included: `alpine:*`, `ghcr.io/us/*`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ImageRules {
    /// May be run, and are listed; the session's own always may.
    pub run: Vec<Pattern>,
    /// May be pulled.
    pub pull: Vec<Pattern>,
    /// May be given as names to own images, where nobody else's image has the name.
    pub tag: Vec<Pattern>,
    /// May be pushed.
    pub push: Vec<Pattern>,
}

/// Networks, and what is published.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct NetworkRules {
    /// Networks of the operator that containers may join, by name.
    pub join: Vec<Pattern>,
    /// Drivers that networks may be made with.
    pub drivers: Vec<Pattern>,
    /// Addresses of the host that ports may be published on.
    pub publish_addresses: Vec<Pattern>,
    /// Where ports go that name no address, or one that is not on the list; nothing refuses them.
    pub publish_default: Option<String>,
    /// Ports of the host, both included; ephemeral ones always may.
    pub publish_ports: Option<(u16, u16)>,
    /// `host-gateway` in extra hosts.
    pub host_gateway: Choice,
}

/// Volumes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct VolumeRules {
    /// Drivers that volumes may be made with.
    pub drivers: Vec<Pattern>,
    /// Options of drivers (`type`, `device`, `o`).
    pub options: Choice,
}

/// How much. What is absent is not limited.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Containers at a time, stopped ones included.
    pub containers: Option<usize>,
    /// Networks.
    pub networks: Option<usize>,
    /// Named volumes.
    pub volumes: Option<usize>,
    /// Memory of each container, which is also its default: `512m`.
    pub memory: Option<Bytes>,
    /// CPUs of each container, which is also its default.
    pub cpus: Option<f64>,
    /// Tasks of each container, which is also its default.
    pub pids: Option<i64>,
    /// Requests per second, in bursts of twice as many.
    pub requests_per_second: Option<u32>,
    /// Longest archive that may be uploaded.
    pub upload: Option<Bytes>,
}

/// A size in bytes, written as Docker's command line writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Bytes(pub i64);

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let size: ByteSize = text.parse().map_err(|error| format!("{error}"))?;
        i64::try_from(size.0).map(Self).map_err(|_| format!("`{text}` is too large"))
    }
}

/// A time span, written as Go does: `90m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeSpan(pub Duration);

impl TryFrom<String> for TimeSpan {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let duration: GoDuration = text.parse().map_err(|error| format!("{error}"))?;
        duration.to_std().map(Self).ok_or_else(|| format!("`{text}` is negative"))
    }
}

/// The text is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is not TOML, or a setting is unknown or of the wrong type.
    #[error("cannot read the policy: {0}")]
    Syntax(#[from] toml::de::Error),
    /// There is no such preset.
    #[error("there is no preset `{0}`; there are {presets}", presets = preset::NAMES.join(", "))]
    Preset(String),
    /// `preset` is not a string.
    #[error("`preset` is not a string")]
    PresetType,
    /// A path that has to be absolute is not, or has `..` in it.
    #[error("the bind source `{0}` is not an absolute path without `..`")]
    BindSource(String),
    /// An address that is none.
    #[error("`publish-default` is not an address: `{0}`")]
    Address(String),
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`PolicyError`]; nothing is guessed.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut table: toml::Table = text.parse()?;
        let mut base = match table.remove("preset") {
            None => toml::Table::new(),
            Some(toml::Value::String(name)) => {
                preset::text(&name).ok_or(PolicyError::Preset(name))?.parse()?
            }
            Some(_) => return Err(PolicyError::PresetType),
        };
        merge(&mut base, table);
        let policy: Self = base.try_into()?;
        policy.checked()
    }

    /// One of [`preset::NAMES`].
    ///
    /// # Errors
    /// [`PolicyError::Preset`] for any other name.
    pub fn preset(name: &str) -> Result<Self, PolicyError> {
        let text = preset::text(name).ok_or_else(|| PolicyError::Preset(name.to_owned()))?;
        Self::parse(text)
    }

    fn checked(self) -> Result<Self, PolicyError> {
        for root in &self.binds.allow {
            if !root.source.starts_with('/') || root.source.split('/').any(|part| part == "..") {
                return Err(PolicyError::BindSource(root.source.clone()));
            }
        }
        match &self.networks.publish_default {
            Some(address) if address.parse::<std::net::IpAddr>().is_err() => {
                Err(PolicyError::Address(address.clone()))
            }
            _ => Ok(self),
        }
    }
}

/// Puts `over` on top of `base`: tables setting by setting, everything else as a whole.
fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_policy() {
        for name in preset::NAMES {
            let policy = Policy::preset(name).unwrap();
            assert_eq!(policy.name, *name);
            assert!(policy.allow.contains(&Group::System), "{name}");
        }
    }

    #[test]
    fn a_file_replaces_settings_of_its_preset() {
        let policy = Policy::parse(
            "preset = \"ci\"\nname = \"mine\"\nttl = \"5m\"\n[limits]\ncontainers = 3\nmemory = \"1g\"\n",
        )
        .unwrap();
        assert_eq!((policy.name.as_str(), policy.limits.containers), ("mine", Some(3)));
        assert_eq!(policy.limits.memory, Some(Bytes(1 << 30)));
        assert_eq!(policy.ttl, Some(TimeSpan(Duration::from_secs(300))));
        assert_eq!(policy.limits.pids, Policy::preset("ci").unwrap().limits.pids);
        assert!(policy.allow.contains(&Group::Exec));
    }

    #[test]
    fn an_empty_file_allows_nothing() {
        let policy = Policy::parse("").unwrap();
        assert!(policy.allow.is_empty() && policy.images.run.is_empty() && !policy.binds.any);
        assert_eq!(policy.containers.privileged, Choice::Refuse);
    }

    #[test]
    fn mistakes_are_errors() {
        for text in [
            "preset = \"nothing\"",
            "preset = 1",
            "alow = []",
            "allow = [\"everything\"]",
            "[containers]\nprivilege = \"allow\"",
            "[containers]\nprivileged = true",
            "[limits]\nmemory = \"much\"",
            "[limits]\ncontainers = -1",
            "ttl = \"-1s\"",
            "[[binds.allow]]\nsource = \"relative\"",
            "[[binds.allow]]\nsource = \"/a/../b\"",
            "[networks]\npublish-default = \"localhost\"",
            "not toml",
        ] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }
}
