//! What the engine lends: its builder, its images and what it knows of itself.

use std::borrow::Cow;
use std::fmt::Debug;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use dory_build::context::Context;
use dory_build::{
    BuildError, Cancel, ImagesError, Outcome, PlatformResult, Progress, PullPolicy, Request, Secrets,
};
use dory_registry::Platform;
use dory_store::View;
use dory_types::{Digest, Timestamp};

use crate::filter::Filters;
use crate::session::SessionCredentials;

/// An image's configuration, as a client asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The digest of its manifest, or of its configuration where it came from no registry.
    pub digest: Digest,
    /// Its configuration.
    pub config: Vec<u8>,
}

/// The machine that builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Worker {
    /// The engine's id.
    pub id: String,
    /// The machine's name.
    pub hostname: String,
    /// The engine's version.
    pub version: String,
    /// What `host-gateway` means; none where containers reach no gateway.
    pub host_gateway: Option<String>,
    /// What it builds for; its own platform comes first.
    pub platforms: Vec<Platform>,
}

/// Something in the build cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecord {
    /// Names it.
    pub id: String,
    /// Those that it was made from.
    pub parents: Vec<String>,
    /// `regular`, `source.local`, `exec.cachemount`, …: BuildKit's names.
    pub kind: String,
    /// What it is, such as the instruction.
    pub description: String,
    /// Bytes.
    pub size: u64,
    /// A build has it now.
    pub in_use: bool,
    /// An image has it too.
    pub shared: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When a build used it last.
    pub used: Option<Timestamp>,
    /// How often.
    pub uses: u64,
}

/// What of the cache goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Everything that nobody uses, not only what no image has.
    pub all: bool,
    /// Only what was not used for so long.
    pub unused_for: Duration,
    /// Bytes that may stay.
    pub keep_bytes: u64,
    /// Only these.
    pub filters: Filters,
}

/// What filters may ask about a [`CacheRecord`] (BuildKit's `adaptUsageInfo`).
pub const CACHE_FIELDS: [&str; 9] =
    ["id", "parents", "description", "inuse", "mutable", "immutable", "type", "shared", "private"];

impl CacheRecord {
    /// Whether `filters` want it.
    pub fn is_wanted(&self, filters: &Filters) -> bool {
        let flag = |set: bool| set.then_some(Cow::Borrowed("true"));
        filters.matches(|name| match name {
            "id" => Some(Cow::Borrowed(self.id.as_str())),
            "parents" => Some(Cow::Owned(self.parents.join(";"))),
            "description" => Some(Cow::Borrowed(self.description.as_str())),
            "inuse" => flag(self.in_use),
            "immutable" => flag(true),
            "type" => Some(Cow::Borrowed(self.kind.as_str())),
            "shared" => flag(self.shared),
            "private" => flag(!self.shared),
            _ => None,
        })
    }
}

/// The engine, as builds see it. All calls block.
pub trait Host: Debug + Send + Sync {
    /// Builds, with a client's credentials for registries.
    ///
    /// # Errors
    /// [`BuildError`].
    fn build(
        &self,
        request: &Request,
        credentials: Option<SessionCredentials>,
        progress: &Arc<dyn Progress>,
        cancel: &Cancel,
    ) -> Result<Outcome, BuildError>;

    /// The files of a result.
    ///
    /// # Errors
    /// In words, where its layers cannot be opened.
    fn files(&self, result: &PlatformResult) -> Result<View, String>;

    /// The archive that `source` has, compressed or not, as a build context.
    ///
    /// # Errors
    /// In words, where archives cannot be had.
    fn archive(&self, source: Box<dyn Read + Send>) -> Result<Arc<dyn Context>, String>;

    /// What an address has, as a build context: a repository, an archive, a Dockerfile. `secrets` may open repositories.
    fn remote(&self, address: &str, secrets: Arc<dyn Secrets>) -> Arc<dyn Context>;

    /// Finds an image, pulled where `pull` asks for that.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn resolve(
        &self,
        reference: &str,
        platform: &Platform,
        pull: PullPolicy,
        credentials: Option<SessionCredentials>,
        cancel: &Cancel,
    ) -> Result<ResolvedImage, ImagesError>;

    /// The machine.
    fn worker(&self) -> Worker;

    /// What is in the cache.
    ///
    /// # Errors
    /// In words, where it cannot be read.
    fn cache(&self) -> Result<Vec<CacheRecord>, String>;

    /// Removes of the cache what `options` say, and tells what.
    ///
    /// # Errors
    /// In words, where it cannot be removed.
    fn prune(&self, options: &PruneOptions) -> Result<Vec<CacheRecord>, String>;
}
