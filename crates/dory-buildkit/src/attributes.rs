//! The attributes of the Dockerfile frontend: what `docker build`'s options become on their way.
//!
//! Source: BuildKit's frontend/dockerui (config.go, attr.go, context.go). An attribute that nobody knows is ignored, as there; one that
//! is known and cannot be followed is refused by its name.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;

use dory_build::{CacheLocation, NetworkMode, NoCache, Provenance, PullPolicy, RunLimits, Ulimit};
use dory_registry::Platform;
use dory_types::{Timestamp, parse_bool};
use serde::Deserialize;

/// An attribute that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// The value is not one that the attribute can have.
    #[error("invalid value `{value}` for `{name}`: {reason}")]
    Value {
        /// The attribute.
        name: String,
        /// What it says.
        value: String,
        /// What it should say.
        reason: String,
    },
    /// It asks for something that is not done here.
    #[error("{0} is not supported by dory yet")]
    Unsupported(String),
}

fn invalid(name: &str, value: &str, reason: impl Display) -> AttributeError {
    AttributeError::Value { name: name.to_owned(), value: value.to_owned(), reason: reason.to_string() }
}

/// Where files of a build come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory that the session serves under this name.
    Local(String),
    /// An address: git, an archive, a Dockerfile, or `http://buildkit-session/…` for what the client pipes in.
    Address(String),
    /// An image.
    Image(String),
    /// The result of another build of the same client.
    Input(String),
}

/// Attributes, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Path of the Dockerfile in its directory.
    pub filename: String,
    /// The directory of the Dockerfile, by the name that the session serves it under.
    pub dockerfile: String,
    /// The client said where the Dockerfile is: it is not in a context from elsewhere.
    pub explicit_dockerfile: bool,
    /// The build context; `None` for the session's.
    pub context: Option<Source>,
    /// The session's name of the build context.
    pub context_name: String,
    /// The stage to build.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, Option<String>>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--platform`.
    pub platforms: Vec<Platform>,
    /// `--no-cache` and `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--pull`.
    pub pull: PullPolicy,
    /// `--network`.
    pub network: NetworkMode,
    /// `--add-host`, `--shm-size`, `--ulimit`, `--cgroup-parent`.
    pub limits: RunLimits,
    /// `--cache-from`.
    pub cache_from: Vec<CacheLocation>,
    /// `--build-context`.
    pub named: BTreeMap<String, Source>,
    /// The time that everything gets.
    pub source_date_epoch: Option<Timestamp>,
    /// The cache goes along in the image.
    pub inline_cache: bool,
    /// How the result was made is told beside it.
    pub provenance: Option<Provenance>,
    /// Another question than a build: `frontend.outline`, `frontend.lint`, ….
    pub subrequest: Option<String>,
}

impl Attributes {
    /// Reads `attributes`.
    ///
    /// # Errors
    /// [`AttributeError`].
    pub fn read(attributes: &HashMap<String, String>) -> Result<Self, AttributeError> {
        let get = |name: &str| attributes.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let mut read = Self {
            filename: get("filename").unwrap_or("Dockerfile").to_owned(),
            dockerfile: get("dockerfilekey").unwrap_or("dockerfile").to_owned(),
            explicit_dockerfile: get("dockerfilekey").is_some(),
            context: get("context").map(|context| source("context", context)).transpose()?,
            context_name: get("contextkey").unwrap_or("context").to_owned(),
            target: get("target").map(str::to_owned),
            no_cache: attributes.get("no-cache").map_or(NoCache::Off, |stages| no_cache(stages)),
            pull: pull(get("image-resolve-mode"))?,
            network: network(get("force-network-mode"))?,
            limits: limits(&get)?,
            cache_from: cache_from(&get)?,
            subrequest: get("requestid").map(str::to_owned),
            ..Self::default()
        };
        if let Some(platforms) = get("platform") {
            let parse = |text: &str| text.parse().map_err(|_| invalid("platform", text, "no platform"));
            read.platforms = platforms.split(',').map(parse).collect::<Result<_, _>>()?;
        }
        for (name, value) in attributes {
            read.prefixed(name, value)?;
        }
        read.refuse(&get)?;
        Ok(read)
    }

    /// Attributes whose names have a part that is the client's.
    fn prefixed(&mut self, name: &str, value: &str) -> Result<(), AttributeError> {
        if let Some(argument) = name.strip_prefix("build-arg:") {
            match argument {
                "BUILDKIT_SYNTAX" => check_frontend(value)?,
                "BUILDKIT_INLINE_CACHE" => self.inline_cache = parse_bool(value).unwrap_or_default(),
                "SOURCE_DATE_EPOCH" if !value.is_empty() => {
                    self.source_date_epoch = Some(epoch(name, value)?)
                }
                _ => {}
            }
            self.build_args.insert(argument.to_owned(), Some(value.to_owned()));
        } else if let Some(label) = name.strip_prefix("label:") {
            self.labels.insert(label.to_owned(), value.to_owned());
        } else if let Some(context) = name.strip_prefix("context:") {
            self.named.insert(context.to_owned(), source(name, value)?);
        } else if let Some(kind) = name.strip_prefix("attest:") {
            let is_off = value.split(',').any(|part| part == "disabled=true");
            match kind {
                _ if is_off => {}
                "provenance" => self.provenance = provenance(name, value)?,
                other => {
                    return Err(AttributeError::Unsupported(format!("an attestation of type {other}")));
                }
            }
        }
        Ok(())
    }

    /// Refuses what changes the meaning of a build and is not done.
    fn refuse<'a>(&self, get: &impl Fn(&str) -> Option<&'a str>) -> Result<(), AttributeError> {
        for name in ["hostname", "contextsubdir", "device", "proxy-network"] {
            if get(name).is_some() {
                return Err(AttributeError::Unsupported(format!("the build option `{name}`")));
            }
        }
        Ok(())
    }
}

/// Whether `image` is the Dockerfile frontend, which is our own, whatever the version.
///
/// # Errors
/// Another frontend, by its name.
pub fn check_frontend(image: &str) -> Result<(), AttributeError> {
    let name = image.split_whitespace().next().unwrap_or_default();
    let name = name.split('@').next().unwrap_or_default();
    let (path, _) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((name, ""));
    let path = path.strip_prefix("docker.io/").unwrap_or(path);
    match path {
        "docker/dockerfile" | "docker/dockerfile-upstream" => Ok(()),
        _ => Err(AttributeError::Unsupported(format!("the frontend image `{image}`"))),
    }
}

/// What clients ask for by themselves (`inline-only`) is for exporters that put it into the result: there is none here.
fn provenance(name: &str, value: &str) -> Result<Option<Provenance>, AttributeError> {
    let fields = || value.split(',').filter_map(|field| field.split_once('='));
    if fields().any(|field| field == ("inline-only", "true")) {
        return Ok(None);
    }
    match fields().find(|(key, _)| *key == "mode").map(|(_, mode)| mode) {
        None | Some("min") => Ok(Some(Provenance::Min)),
        Some("max") => Err(AttributeError::Unsupported("provenance of mode `max`".to_owned())),
        Some(other) => Err(invalid(name, other, "`min` or `max`")),
    }
}

fn source(name: &str, value: &str) -> Result<Source, AttributeError> {
    if let Some(image) = value.strip_prefix("docker-image://") {
        return Ok(Source::Image(image.to_owned()));
    }
    match value.split_once(':') {
        Some(("local", directory)) => Ok(Source::Local(directory.to_owned())),
        Some(("input", input)) => Ok(Source::Input(input.to_owned())),
        Some(("oci-layout", _)) => {
            Err(AttributeError::Unsupported(format!("the OCI layout `{value}` as `{name}`")))
        }
        _ => Ok(Source::Address(value.to_owned())),
    }
}

fn no_cache(stages: &str) -> NoCache {
    match stages {
        "" => NoCache::All,
        stages => NoCache::Stages(stages.split(',').map(str::to_owned).collect()),
    }
}

fn pull(mode: Option<&str>) -> Result<PullPolicy, AttributeError> {
    match mode {
        None | Some("default" | "local") => Ok(PullPolicy::Missing),
        Some("pull") => Ok(PullPolicy::Always),
        Some(other) => Err(invalid("image-resolve-mode", other, "`default`, `local` or `pull`")),
    }
}

fn network(mode: Option<&str>) -> Result<NetworkMode, AttributeError> {
    match mode {
        None | Some("sandbox" | "default") => Ok(NetworkMode::Default),
        Some("none") => Ok(NetworkMode::None),
        Some("host") => Ok(NetworkMode::Host),
        Some(other) => Err(AttributeError::Unsupported(format!("network mode `{other}` in a build"))),
    }
}

fn limits<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Result<RunLimits, AttributeError> {
    let number = |name: &str| match get(name) {
        None => Ok(0),
        Some(value) => value.parse::<i64>().map_err(|error| invalid(name, value, error)),
    };
    let text = |name: &str| get(name).unwrap_or_default().to_owned();
    Ok(RunLimits {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        shm_size: number("shm-size")?,
        ulimits: fields("ulimit", get("ulimit"))?
            .iter()
            .map(|text| ulimit(text))
            .collect::<Result<_, _>>()?,
        cgroup_parent: text("cgroup-parent"),
        extra_hosts: fields("add-hosts", get("add-hosts"))?
            .iter()
            .map(|text| extra_host(text))
            .collect::<Result<_, _>>()?,
    })
}

fn fields(name: &str, value: Option<&str>) -> Result<Vec<String>, AttributeError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    dory_dockerfile::csv_fields(value).ok_or_else(|| invalid(name, value, "a quote is out of place"))
}

fn ulimit(text: &str) -> Result<Ulimit, AttributeError> {
    let failed = || invalid("ulimit", text, "not NAME=SOFT[:HARD]");
    let (name, values) = text.split_once('=').ok_or_else(failed)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |value: &str| value.parse::<i64>().map_err(|_| failed());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

/// `NAME=ADDRESS`, as the builder has it: `NAME:ADDRESS`.
fn extra_host(text: &str) -> Result<String, AttributeError> {
    let failed = || invalid("add-hosts", text, "not NAME=ADDRESS");
    let (name, address) = text.split_once('=').ok_or_else(failed)?;
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return Err(failed());
    }
    Ok(format!("{name}:{address}"))
}

fn epoch(name: &str, value: &str) -> Result<Timestamp, AttributeError> {
    let seconds = value.parse().map_err(|error: std::num::ParseIntError| invalid(name, value, error))?;
    Timestamp::from_unix(seconds, 0).ok_or_else(|| invalid(name, value, "not seconds since 1970"))
}

#[derive(Deserialize)]
struct CacheImport {
    #[serde(alias = "type", rename = "Type")]
    kind: String,
    #[serde(alias = "attrs", rename = "Attrs", default)]
    attributes: BTreeMap<String, String>,
}

fn cache_from<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Result<Vec<CacheLocation>, AttributeError> {
    let mut locations = Vec::new();
    if let Some(json) = get("cache-imports") {
        let imports: Vec<CacheImport> =
            serde_json::from_str(json).map_err(|error| invalid("cache-imports", json, error))?;
        let location =
            |import: CacheImport| CacheLocation { kind: import.kind, attributes: import.attributes };
        locations.extend(imports.into_iter().map(location));
    }
    for reference in get("cache-from").into_iter().flat_map(|list| list.split(',')) {
        let attributes = BTreeMap::from([("ref".to_owned(), reference.to_owned())]);
        locations.push(CacheLocation { kind: "registry".to_owned(), attributes });
    }
    Ok(locations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Attributes, AttributeError> {
        Attributes::read(
            &pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        )
    }

    #[test]
    fn what_docker_build_sends() {
        let attributes = read(&[
            ("filename", "docker/Dockerfile"),
            ("target", "final"),
            ("build-arg:A", "1"),
            ("build-arg:SOURCE_DATE_EPOCH", "0"),
            ("label:a.b", "c"),
            ("no-cache", ""),
            ("image-resolve-mode", "pull"),
            ("platform", "linux/amd64,linux/arm64"),
            ("add-hosts", "one=1.2.3.4,two=::1,three=host-gateway"),
            ("force-network-mode", "none"),
            ("ulimit", "nofile=10:20,nproc=5"),
            ("shm-size", "1024"),
            ("cache-imports", r#"[{"Type":"registry","Attrs":{"ref":"a/b"}}]"#),
            ("context:base", "docker-image://busybox:1"),
            ("context:files", "local:files"),
            ("context:code", "https://example.com/a.git#main"),
            ("attest:provenance", "mode=min,inline-only=true"),
            ("frontend.caps", "moby.buildkit.frontend.inputs"),
        ])
        .unwrap();
        assert_eq!(attributes.filename, "docker/Dockerfile");
        assert_eq!(
            (attributes.dockerfile.as_str(), attributes.context_name.as_str()),
            ("dockerfile", "context")
        );
        assert_eq!(attributes.no_cache, NoCache::All);
        assert_eq!(attributes.pull, PullPolicy::Always);
        assert_eq!(attributes.platforms.len(), 2);
        assert_eq!(attributes.limits.extra_hosts, ["one:1.2.3.4", "two:::1", "three:host-gateway"]);
        assert_eq!(attributes.limits.ulimits[1], Ulimit { name: "nproc".to_owned(), soft: 5, hard: 5 });
        assert_eq!(attributes.network, NetworkMode::None);
        assert_eq!(attributes.cache_from[0].attributes["ref"], "a/b");
        assert_eq!(attributes.named["base"], Source::Image("busybox:1".to_owned()));
        assert_eq!(attributes.named["files"], Source::Local("files".to_owned()));
        assert_eq!(attributes.named["code"], Source::Address("https://example.com/a.git#main".to_owned()));
        assert_eq!(attributes.source_date_epoch, Timestamp::from_unix(0, 0));
        assert_eq!(attributes.build_args["A"].as_deref(), Some("1"));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        for (name, value, expected) in [
            ("platform", "a/b/c/d", "invalid value `a/b/c/d` for `platform`"),
            ("image-resolve-mode", "never", "invalid value `never` for `image-resolve-mode`"),
            ("force-network-mode", "mine", "network mode `mine` in a build is not supported"),
            ("add-hosts", "a", "invalid value `a` for `add-hosts`"),
            ("ulimit", "nofile=x", "invalid value `nofile=x` for `ulimit`"),
            ("shm-size", "x", "invalid value `x` for `shm-size`"),
            ("cache-imports", "{", "invalid value `{` for `cache-imports`"),
            ("build-arg:SOURCE_DATE_EPOCH", "x", "invalid value `x` for `build-arg:SOURCE_DATE_EPOCH`"),
            ("build-arg:BUILDKIT_SYNTAX", "other/frontend:1", "the frontend image `other/frontend:1` is not"),
            ("attest:sbom", "generator=x", "an attestation of type sbom is not supported"),
            (
                "context:x",
                "oci-layout://a",
                "the OCI layout `oci-layout://a` as `context:x` is not supported",
            ),
            ("hostname", "x", "the build option `hostname` is not supported"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn our_own_frontend_has_many_names() {
        for image in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker.io/docker/dockerfile:1.7-labs",
            "docker/dockerfile:1@sha256:00",
        ] {
            assert_eq!(check_frontend(image), Ok(()), "{image}");
        }
        for image in ["", "localhost:5000/docker/dockerfile", "my/docker/dockerfile", "ghcr.io/x/y:1"] {
            assert!(check_frontend(image).is_err(), "{image}");
        }
    }
}
