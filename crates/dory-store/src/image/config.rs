//! An image's configuration: the OCI form with Docker's additional fields.
//!
//! Sources: OCI image-spec, config.md; Docker image specification 1.2 and 1.3 (`Healthcheck`, `OnBuild`, `Shell`,
//! `ArgsEscaped`). What other tools add is not lost: the stored bytes stay as they came, this type is only a view.

use std::collections::BTreeMap;

use dory_types::{Digest, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

/// Go writes `null` for an empty list or map.
fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Docker's healthcheck; durations in nanoseconds, 0 for "inherited".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthcheckConfig {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", …]`, or empty to inherit.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a check has failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time during which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks during the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// How many failures in a row mean unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// True for what Go's `omitempty` leaves out.
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// What containers run with unless they say otherwise: the configuration's `config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// User and group, by name or number.
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    /// Ports with protocol, such as `80/tcp`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, BTreeMap<String, String>>,
    /// Environment, each `NAME=value`.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    pub entrypoint: Option<Vec<String>>,
    /// The default arguments, or the whole command without an entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Docker for Windows: the command is one escaped line.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Paths at which containers get an anonymous volume.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, BTreeMap<String, String>>,
    /// The directory in which the command starts; empty means `/`.
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops a container, by name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds between that signal and SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The command that tells whether a container works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthcheckConfig>,
    /// Instructions for builds that start from this image.
    #[serde(deserialize_with = "null_as_default")]
    pub on_build: Vec<String>,
    /// The shell of instructions in shell form.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// The layers: the configuration's `rootfs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFilesystem {
    /// Always `layers`.
    #[serde(rename = "type", default = "layers_type")]
    pub kind: String,
    /// Digests of the uncompressed layers, the lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

/// The only value of `rootfs.type`.
fn layers_type() -> String {
    "layers".to_owned()
}

impl Default for RootFilesystem {
    fn default() -> Self {
        Self { kind: layers_type(), diff_ids: Vec::new() }
    }
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// By which instruction or command.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What was said about it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// True where the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// An image's configuration, whose bytes' digest is the image's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// By whom.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Go's name of the processor architecture.
    #[serde(default, deserialize_with = "null_as_default")]
    pub architecture: String,
    /// Which one of that architecture, such as `v8`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Go's name of the operating system.
    #[serde(default, deserialize_with = "null_as_default")]
    pub os: String,
    /// The operating system's version, on Windows.
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// What was said when the image was committed or imported (Docker).
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The version of the engine that made the image (Docker).
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    /// What containers run with.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: RunConfig,
    /// The layers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rootfs: RootFilesystem,
    /// The steps, the oldest first; those that are not `empty_layer` belong to the layers in their order.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Where `bytes` is not JSON, or a known field has another type than the specification gives it.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Chain ids, the lowest layer's first: the digest of a layer together with all below it (OCI image-spec,
    /// config.md "Layer ChainID").
    pub fn chain_ids(&self) -> Vec<Digest> {
        chain_ids(&self.rootfs.diff_ids)
    }
}

/// The chain ids of layers, the lowest first.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => *diff_id,
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_and_others_write() {
        let docker = br#"{"architecture":"amd64","config":{"Hostname":"","Env":["A=b"],"Cmd":["sh"],"Entrypoint":null,
            "Volumes":null,"Labels":null,"OnBuild":null,"ExposedPorts":{"80/tcp":{}},"ArgsEscaped":true,
            "Healthcheck":{"Test":["NONE"]},"StopSignal":"SIGQUIT"},"container":"x","created":"2024-01-01T00:00:00Z",
            "docker_version":"20.10","history":[{"created":"2024-01-01T00:00:00Z","empty_layer":true}],
            "os":"linux","rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(docker).unwrap();
        assert_eq!(config.config.env, ["A=b"]);
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert!(config.config.args_escaped && config.config.exposed_ports.contains_key("80/tcp"));
        assert!(config.history[0].empty_layer && config.rootfs.diff_ids.is_empty());
        assert_eq!(ImageConfig::parse(b"{}").unwrap(), ImageConfig::default());
        assert!(ImageConfig::parse(br#"{"rootfs":{"diff_ids":["sha256:12"]}}"#).is_err());
        assert!(ImageConfig::parse(br#"{"config":{"Env":"A=b"}}"#).is_err());
    }

    #[test]
    fn chains_as_the_specification_does() {
        let mut config = ImageConfig::default();
        let (first, second) = (Digest::of(b"1"), Digest::of(b"2"));
        config.rootfs.diff_ids = vec![first, second];
        let expected = Digest::of(format!("{first} {second}").as_bytes());
        assert_eq!(config.chain_ids(), [first, expected]);
    }
}
