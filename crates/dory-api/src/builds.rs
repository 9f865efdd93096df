//! The engine as BuildKit sees it.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use dory_build::context::{ArchiveContext, Context};
use dory_build::{
    BuildError, CacheEntry, Cancel, ImagesError, Outcome, PlatformResult, Progress, PullPolicy, Request,
    Secrets,
};
use dory_buildkit::{BuildKit, CacheRecord, Host, PruneOptions, ResolvedImage, SessionCredentials, Worker};
use dory_engine::{CredentialSource, Engine};
use dory_registry::{Credentials, Platform};
use dory_store::View;
use dory_types::Digest;
use tokio::runtime::Handle;

/// An engine that lends its builder.
#[derive(Debug)]
struct EngineHost(Engine);

/// BuildKit over `engine`. Called on the runtime that serves it.
pub(crate) fn buildkit(engine: &Engine) -> BuildKit {
    BuildKit::new(Arc::new(EngineHost(engine.clone())), engine.data_root(), Handle::current())
}

/// A client's credentials, as the engine asks for them.
#[derive(Debug)]
struct ClientCredentials(SessionCredentials);

impl CredentialSource for ClientCredentials {
    fn credentials(&self, domain: &str) -> Credentials {
        self.0.of(domain).unwrap_or_else(|error| {
            tracing::info!(registry = domain, error = %error, "A client does not tell its credentials");
            Credentials::Anonymous
        })
    }
}

impl EngineHost {
    fn images(&self, credentials: Option<SessionCredentials>) -> Option<Arc<dyn dory_build::Images>> {
        credentials.map(|credentials| self.0.build_images(Arc::new(ClientCredentials(credentials))))
    }
}

impl Host for EngineHost {
    fn build(
        &self,
        request: &Request,
        credentials: Option<SessionCredentials>,
        progress: &Arc<dyn Progress>,
        cancel: &Cancel,
    ) -> Result<Outcome, BuildError> {
        let request = Request { images: self.images(credentials), ..request.clone() };
        self.0.builder().build(&request, progress, cancel)
    }

    fn files(&self, result: &PlatformResult) -> Result<View, String> {
        let builder = self.0.builder();
        View::of_layers(&builder.store().layer_directories(&result.layers)).map_err(|error| error.to_string())
    }

    fn remote(&self, address: &str, secrets: Arc<dyn Secrets>) -> Arc<dyn Context> {
        self.0.builder().remote_context(address, Some(secrets))
    }

    fn archive(&self, source: Box<dyn Read + Send>) -> Result<Arc<dyn Context>, String> {
        Ok(Arc::new(ArchiveContext::new(self.0.builder().store().clone(), source)))
    }

    fn resolve(
        &self,
        reference: &str,
        platform: &Platform,
        pull: PullPolicy,
        credentials: Option<SessionCredentials>,
        cancel: &Cancel,
    ) -> Result<ResolvedImage, ImagesError> {
        let failed = |error: &dyn std::fmt::Display| ImagesError::Failed(error.to_string());
        let images = self.images(credentials).ok_or_else(|| failed(&"nobody asks for the image"))?;
        let found = images.find(reference, platform, pull, &|_, _, _, _| {}, cancel)?;
        let image = self.0.builder().store().image(&found.id.to_string()).map_err(|error| failed(&error))?;
        let config = serde_json::to_vec(&image.config).map_err(|error| failed(&error))?;
        let digest = found.digest.unwrap_or_else(|| Digest::of(&config));
        Ok(ResolvedImage { digest, config })
    }

    fn worker(&self) -> Worker {
        Worker {
            id: self.0.id().to_owned(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            version: self.0.version().version,
            host_gateway: self.0.host_gateway().map(|address| address.to_string()),
            platforms: vec![Platform::current()],
        }
    }

    fn cache(&self) -> Result<Vec<CacheRecord>, String> {
        let entries = self.0.builder().cache().map_err(|error| error.to_string())?;
        Ok(entries.into_iter().map(shown).collect())
    }

    fn prune(&self, options: &PruneOptions) -> Result<Vec<CacheRecord>, String> {
        let mut records = self.cache()?;
        records.retain(|record| record.is_wanted(&options.filters));
        if records.is_empty() {
            return Ok(records);
        }
        let ids = match options.filters.is_empty() {
            true => Vec::new(),
            false => records.iter().map(|record| record.id.clone()).collect(),
        };
        let pruned = self.0.builder().prune(&dory_build::PruneOptions {
            all: options.all,
            unused_for: Some(options.unused_for).filter(|age| !age.is_zero()),
            keep_bytes: options.keep_bytes,
            ids,
        });
        let pruned: HashSet<String> = pruned.map_err(|error| error.to_string())?.keys.into_iter().collect();
        records.retain(|record| pruned.contains(&record.id));
        Ok(records)
    }
}

fn shown(entry: CacheEntry) -> CacheRecord {
    let CacheEntry { id, record, size, shared } = entry;
    CacheRecord {
        id: id.hex(),
        parents: Vec::new(),
        kind: record.kind,
        description: record.description,
        size,
        in_use: false,
        shared,
        created: record.created,
        used: Some(record.used),
        uses: record.uses,
    }
}
