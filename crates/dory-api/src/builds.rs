//! The engine as BuildKit sees it.

use std::io::Read;
use std::sync::Arc;

use dory_build::context::Context;
use dory_build::{BuildError, Cancel, ImagesError, Outcome, Progress, PullPolicy, Request};
use dory_buildkit::{BuildKit, CacheRecord, Host, PruneOptions, ResolvedImage, SessionCredentials, Worker};
use dory_engine::Engine;
use dory_registry::Platform;
use tokio::runtime::Handle;

/// An engine that lends its builder.
#[derive(Debug)]
struct EngineHost(Engine);

/// BuildKit over `engine`. Called on the runtime that serves it.
pub(crate) fn buildkit(engine: &Engine) -> BuildKit {
    BuildKit::new(Arc::new(EngineHost(engine.clone())), engine.data_root(), Handle::current())
}

impl Host for EngineHost {
    fn build(
        &self,
        _request: &Request,
        _credentials: Option<SessionCredentials>,
        _progress: &Arc<dyn Progress>,
        _cancel: &Cancel,
    ) -> Result<Outcome, BuildError> {
        Err(BuildError::Unsupported("building is not supported yet".to_owned()))
    }

    fn archive(&self, _source: Box<dyn Read + Send>) -> Result<Arc<dyn Context>, String> {
        Err("a build context that is piped in is not supported yet".to_owned())
    }

    fn resolve(
        &self,
        reference: &str,
        _platform: &Platform,
        _pull: PullPolicy,
        _credentials: Option<SessionCredentials>,
        _cancel: &Cancel,
    ) -> Result<ResolvedImage, ImagesError> {
        Err(ImagesError::NotFound { reference: reference.to_owned() })
    }

    fn worker(&self) -> Worker {
        let version = self.0.version();
        Worker {
            id: self.0.id().to_owned(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            version: version.version,
            host_gateway: None,
            platforms: vec![Platform::current()],
        }
    }

    fn cache(&self) -> Result<Vec<CacheRecord>, String> {
        Ok(Vec::new())
    }

    fn prune(&self, _options: &PruneOptions) -> Result<Vec<CacheRecord>, String> {
        Ok(Vec::new())
    }
}
