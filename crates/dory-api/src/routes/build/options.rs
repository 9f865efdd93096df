//! The parameters of `POST /build` (API 1.51, `ImageBuild`).

use std::collections::HashMap;
use std::sync::Arc;

use dory_build::{
    DockerfileSource, Entitlements, NetworkMode, NoCache, Output, PruneOptions, PullPolicy, Request,
    RunLimits, Ulimit,
};
use dory_engine::{CredentialSource, Credentials};
use dory_types::{GoDuration, ImageReference};
use http::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::query::Query;

/// The header with all credentials that the client has: an object of `AuthConfig`s by registry.
const REGISTRY_CONFIG: &str = "x-registry-config";

/// A build, read.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) request: Request,
    pub(super) credentials: Arc<dyn CredentialSource>,
    /// `buildid`; empty where it is not given.
    pub(super) build_id: String,
    /// `q`: only the id is told.
    pub(super) quiet: bool,
    /// `cachefrom`: images of this engine whose steps count as cache, and no others; all do where it is empty.
    pub(super) cache_from: Vec<String>,
    /// The address that the context comes from, in place of the request's body.
    pub(super) remote: Option<String>,
}

/// `X-Registry-Config`, by registry as the client spells it.
#[derive(Debug, Default)]
struct ClientCredentials(HashMap<String, Credentials>);

impl CredentialSource for ClientCredentials {
    fn credentials(&self, domain: &str) -> Credentials {
        let spelled = |name: &str| {
            let name = name.trim_start_matches("https://").trim_start_matches("http://");
            name.split('/').next().unwrap_or_default().to_owned()
        };
        let same = |name: &str| match (spelled(name).as_str(), domain) {
            ("index.docker.io" | "registry-1.docker.io", "docker.io") => true,
            (name, domain) => name == domain,
        };
        let found = self.0.iter().find(|(name, _)| same(name));
        found.map(|(_, credentials)| credentials.clone()).unwrap_or_default()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireUlimit {
    name: String,
    #[serde(default)]
    soft: i64,
    #[serde(default)]
    hard: i64,
}

impl Options {
    /// Reads the parameters.
    pub(super) fn read(query: &Query, headers: &HeaderMap) -> Result<Self, ApiError> {
        let network = match query.text("networkmode") {
            None | Some("default" | "bridge") => NetworkMode::Default,
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            Some(name) => NetworkMode::Named(name.to_owned()),
        };
        let request = Request {
            dockerfile: DockerfileSource::File {
                path: query.text("dockerfile").unwrap_or("Dockerfile").to_owned(),
                context: None,
            },
            target: query.text("target").map(str::to_owned),
            build_args: json(query, "buildargs")?,
            labels: json(query, "labels")?,
            platforms: platforms(query)?,
            no_cache: if query.boolean("nocache") { NoCache::All } else { NoCache::Off },
            pull: if query.boolean("pull") { PullPolicy::Always } else { PullPolicy::Missing },
            // Asking for it is the grant: the parameter is of the whole build, and of whoever may use this engine.
            entitlements: Entitlements {
                network_host: network == NetworkMode::Host,
                security_insecure: false,
            },
            network,
            limits: limits(query)?,
            names: names(query)?,
            outputs: vec![Output::Image { names: Vec::new(), push: false, insecure: false }],
            squash: query.boolean("squash"),
            ..Request::default()
        };
        Ok(Self {
            request,
            credentials: Arc::new(credentials(headers)),
            build_id: query.text("buildid").unwrap_or_default().to_owned(),
            quiet: query.boolean("q"),
            cache_from: json(query, "cachefrom")?,
            remote: query.text("remote").filter(|remote| *remote != "client-session").map(str::to_owned),
        })
    }
}

/// A parameter in JSON; `null` and nothing are empty.
fn json<T: DeserializeOwned + Default>(query: &Query, name: &str) -> Result<T, ApiError> {
    let Some(text) = query.text(name) else { return Ok(T::default()) };
    let value: Option<T> = serde_json::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("error reading {name}: {error}")))?;
    Ok(value.unwrap_or_default())
}

fn platforms(query: &Query) -> Result<Vec<dory_registry::Platform>, ApiError> {
    let Some(text) = query.text("platform") else { return Ok(Vec::new()) };
    let platform = text.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    Ok(vec![platform])
}

fn limits(query: &Query) -> Result<RunLimits, ApiError> {
    let number = |name: &str| query.integer(name).map(Option::unwrap_or_default);
    let ulimits: Vec<WireUlimit> = json(query, "ulimits")?;
    let text = |name: &str| query.text(name).unwrap_or_default().to_owned();
    Ok(RunLimits {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        shm_size: number("shmsize")?,
        ulimits: ulimits
            .into_iter()
            .map(|limit| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
            .collect(),
        cgroup_parent: text("cgroupparent"),
        extra_hosts: query
            .all("extrahosts")
            .flat_map(|hosts| hosts.split(','))
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

fn names(query: &Query) -> Result<Vec<ImageReference>, ApiError> {
    let name = |text: &str| {
        let parsed = text.parse::<ImageReference>();
        let parsed = parsed.map_err(|error| ApiError::bad_request(error.to_string()))?;
        match parsed.digest() {
            Some(_) => Err(ApiError::bad_request("build tag cannot contain a digest")),
            None => Ok(parsed),
        }
    };
    let mut names = Vec::new();
    for text in query.all("t").filter(|text| !text.is_empty()) {
        let name = name(text)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// As with dockerd, a header that is none brings nothing.
fn credentials(headers: &HeaderMap) -> ClientCredentials {
    let header = headers.get(REGISTRY_CONFIG).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let read = header.and_then(|header| Credentials::from_config_header(&header).ok());
    ClientCredentials(read.unwrap_or_default())
}

/// The parameters of `/build/prune`.
pub(super) fn prune(query: &Query) -> Result<PruneOptions, ApiError> {
    let filters = query.filters()?;
    let mut options = PruneOptions { all: query.boolean("all"), ..PruneOptions::default() };
    for name in ["keep-storage", "reserved-space", "max-used-space"] {
        if let Some(bytes) = query.integer(name)? {
            options.keep_bytes = options.keep_bytes.max(u64::try_from(bytes).unwrap_or(0));
        }
    }
    for name in ["until", "unused-for"] {
        for value in filters.get(name) {
            let duration: GoDuration =
                value.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
            options.unused_for = duration.to_std();
        }
    }
    for value in filters.get("id") {
        options.ids.push(value.clone());
    }
    Ok(options)
}
