//! What a build is asked to do, whichever door it came through.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use dory_registry::Platform;
use dory_types::{ImageReference, Timestamp};

use crate::context::Context;
use crate::grant::{Agents, Secrets};
use crate::images::Images;
use crate::outcome::Outcome;
use crate::output::{Attestor, Output, Provenance};

/// Where the Dockerfile comes from.
#[derive(Debug, Clone)]
pub enum DockerfileSource {
    /// Its text is given, with the name that messages show.
    Inline {
        /// Such as `Dockerfile`.
        name: String,
        /// The file.
        content: Vec<u8>,
    },
    /// A path in the build context, or in `context` where that is given (BuildKit's local source `dockerfile`).
    File {
        /// Relative to the context's root; `Dockerfile` by default, `dockerfile` is tried after it.
        path: String,
        /// Another context than the build's own.
        context: Option<Arc<dyn Context>>,
    },
}

impl Default for DockerfileSource {
    fn default() -> Self {
        Self::File { path: "Dockerfile".to_owned(), context: None }
    }
}

/// What a name in `FROM` or `--from` means instead of what the Dockerfile says (`--build-context`).
#[derive(Debug, Clone)]
pub enum NamedContext {
    /// Files.
    Files(Arc<dyn Context>),
    /// An image, by reference.
    Image(String),
    /// What another build made.
    Result(Arc<Outcome>),
}

/// Which cached results are not used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// All are used.
    #[default]
    Off,
    /// None is used (`--no-cache`).
    All,
    /// None of these stages' (`--no-cache-filter`).
    Stages(Vec<String>),
}

/// A place that cached results are taken from or brought to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheLocation {
    /// `registry`, `local`, `inline`, …; what the builder does not know fails the build, by name.
    pub kind: String,
    /// The attributes as they were given: `ref`, `src`, `dest`, `mode`, ….
    pub attributes: BTreeMap<String, String>,
}

/// What a build may do beyond an ordinary container; each needs an explicit grant (`--allow`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `RUN --network=host`, and `network.host` as the build's own mode.
    pub network_host: bool,
    /// `RUN --security=insecure`.
    pub security_insecure: bool,
}

/// The network of `RUN` where the line does not say (`--network`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// The engine's default.
    #[default]
    Default,
    /// None but the loopback interface.
    None,
    /// The machine's; needs [`Entitlements::network_host`].
    Host,
    /// One that somebody made, or `container:ID` (the classic door only).
    Named(String),
}

/// A limit of processes, with docker's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Such as `nofile`.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// What bounds and surrounds the commands of a build (the classic door's parameters; `--ulimit`, `--shm-size`,
/// `--add-host`, `--cgroup-parent` of the others).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// Bytes; 0 for none.
    pub memory: i64,
    /// Bytes of memory and swap; 0 for the default, -1 for no limit.
    pub memory_swap: i64,
    /// Relative weight; 0 for the default.
    pub cpu_shares: i64,
    /// Microseconds; 0 for the default.
    pub cpu_period: i64,
    /// Microseconds in each period; 0 for none.
    pub cpu_quota: i64,
    /// Such as `0-2`; empty for all.
    pub cpuset_cpus: String,
    /// Such as `0`; empty for all.
    pub cpuset_mems: String,
    /// Bytes of `/dev/shm`; 0 for the default.
    pub shm_size: i64,
    /// Limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// Cgroup below which those of the commands are made; empty for the engine's.
    pub cgroup_parent: String,
    /// Lines for `/etc/hosts`, each `NAME:ADDRESS`; an address may be `host-gateway`.
    pub extra_hosts: Vec<String>,
}

/// Whether base images are asked for at their registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only where the store has none.
    #[default]
    Missing,
    /// Always (`--pull`).
    Always,
}

/// A note about the image that a manifest or an index carries (OCI image-spec, annotations.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Where: `manifest` (the default), `index`, `manifest-descriptor`, `index-descriptor`.
    pub level: String,
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// One build.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// The build context; none for a Dockerfile alone.
    pub context: Option<Arc<dyn Context>>,
    /// Named contexts.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// The stage to build, by name or number; the last one where it is not given.
    pub target: Option<String>,
    /// `--build-arg`; `None` as value removes a default.
    pub build_args: BTreeMap<String, Option<String>>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// Notes for manifests.
    pub annotations: Vec<Annotation>,
    /// How much is attested of the build; nothing where it is not given.
    pub provenance: Option<Provenance>,
    /// Who attests what else, such as what software is in the image.
    pub attestors: Vec<Arc<dyn Attestor>>,
    /// For which machines; this one where the list is empty.
    pub platforms: Vec<Platform>,
    /// Which cached results are not used.
    pub no_cache: NoCache,
    /// Whether registries are asked for base images.
    pub pull: PullPolicy,
    /// Where else cached results are looked for.
    pub cache_from: Vec<CacheLocation>,
    /// Where cached results are brought to.
    pub cache_to: Vec<CacheLocation>,
    /// Secrets of `RUN --mount=type=secret`.
    pub secrets: Option<Arc<dyn Secrets>>,
    /// Agents of `RUN --mount=type=ssh`.
    pub agents: Option<Arc<dyn Agents>>,
    /// What the build may do.
    pub entitlements: Entitlements,
    /// Network of commands.
    pub network: NetworkMode,
    /// Limits of commands.
    pub limits: RunLimits,
    /// Finds and pushes images with this client's credentials; the builder's own where it is not given.
    pub images: Option<Arc<dyn Images>>,
    /// Where the result goes; nowhere but the cache where the list is empty.
    pub outputs: Vec<Output>,
    /// Names of the result, for outputs that have none of their own.
    pub names: Vec<ImageReference>,
    /// The time that everything gets (`SOURCE_DATE_EPOCH`); now where it is not given.
    pub source_date_epoch: Option<Timestamp>,
    /// All that the last stage adds becomes one layer (the classic door's `squash`).
    pub squash: bool,
    /// The directory of a `local` cache or the like is resolved against this one; the working directory otherwise.
    pub directory: Option<PathBuf>,
}
