//! Registries, and what is in them.

mod blob;
mod download;
mod endpoint;
mod image;
mod login;
mod manifest;
mod retry;
mod tags;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dory_types::Repository;

use crate::auth::{Credentials, TokenService};
use crate::config::{EndpointConfig, RegistryConfig};
use crate::error::RegistryError;
use crate::http::{Proxies, Transport};
use endpoint::{Claim, Endpoint};

pub use blob::BlobStream;
pub use download::{Download, FileRequest};
pub use image::ResolvedImage;
pub use login::LoginOutcome;
pub use manifest::{FetchedManifest, ManifestHead};
pub use upload::{Mounted, UploadSession, UploadStream};

/// How many times a request is tried that broke for a reason which passes.
const ATTEMPTS_MAX: u32 = 3;

/// What is to be done with a repository: what its token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// To read from it.
    Pull,
    /// To write to it too.
    Push,
}

/// All registries, by one configuration: connections, tokens and what was found out about them are shared.
#[derive(Debug)]
pub struct Registries {
    config: RegistryConfig,
    proxies: Arc<Proxies>,
    tokens: TokenService,
    /// By the first origin's text and whether it is a mirror's: what is a mirror here may be a registry there.
    endpoints: Mutex<HashMap<(String, bool), Arc<Endpoint>>>,
}

impl Registries {
    /// Registries by `config`, which is checked.
    ///
    /// # Errors
    /// [`RegistryError::Config`].
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        config.validate()?;
        let proxies = Arc::new(config.proxies()?);
        Ok(Self { config, proxies, tokens: TokenService::default(), endpoints: Mutex::default() })
    }

    /// The configuration.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// A repository, as `credentials` see it.
    pub fn remote(
        self: &Arc<Self>,
        repository: Repository,
        access: Access,
        credentials: Credentials,
    ) -> Remote {
        let verbs = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let scope = format!("repository:{}:{verbs}", repository.path());
        Remote { registries: Arc::clone(self), repository, credentials, scope }
    }

    /// The endpoint with this configuration, made once while nothing of it changes.
    fn endpoint(&self, registry: &str, config: EndpointConfig) -> Result<Arc<Endpoint>, RegistryError> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let first = config.origins.first().expect("an endpoint has at least one origin").clone();
        let key = (first.to_string(), config.mirror);
        // Certificates may come and be renewed while we run.
        let certificates = config.tls.stamps();
        if let Some(endpoint) = endpoints.get(&key)
            && endpoint.is_made_of(&config, &certificates)
        {
            return Ok(Arc::clone(endpoint));
        }
        let transport =
            Transport::new(&first, &config.tls, Arc::clone(&self.proxies), self.config.patience()).map_err(
                |source| RegistryError::Setup { registry: registry.to_owned(), source: source.into() },
            )?;
        let endpoint = Arc::new(Endpoint::new(config, certificates, transport));
        endpoints.insert(key, Arc::clone(&endpoint));
        Ok(endpoint)
    }

    /// The registry `domain` itself.
    fn registry(&self, domain: &str) -> Result<Arc<Endpoint>, RegistryError> {
        self.endpoint(domain, self.config.endpoint(domain)?)
    }
}

/// One repository of a registry, as somebody sees it.
#[derive(Debug, Clone)]
pub struct Remote {
    registries: Arc<Registries>,
    repository: Repository,
    credentials: Credentials,
    scope: String,
}

impl Remote {
    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Where to read from, in this order: mirrors, and the registry itself at the end.
    fn sources(&self) -> Result<Vec<Arc<Endpoint>>, RegistryError> {
        let domain = self.repository.domain();
        let configs = self.registries.config.endpoints(domain)?;
        configs.into_iter().map(|config| self.registries.endpoint(domain, config)).collect()
    }

    /// Where to write to: never a mirror.
    fn target(&self) -> Result<Arc<Endpoint>, RegistryError> {
        self.registries.registry(self.repository.domain())
    }

    /// Who asks at `endpoint`: nobody in particular where it is a mirror, for the credentials are the registry's.
    fn claim<'a>(&'a self, endpoint: &Endpoint) -> Claim<'a> {
        const NOBODY: &Credentials = &Credentials::Anonymous;
        let credentials = if endpoint.mirror { NOBODY } else { &self.credentials };
        Claim { credentials, scope: Some(&self.scope), tokens: &self.registries.tokens }
    }

    /// The address of something in the repository.
    fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.repository.path())
    }

    /// Asks one source after the other; the registry's own failure is the one that counts.
    async fn ask_sources<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        ask: impl Fn(Arc<Endpoint>) -> F,
    ) -> Result<T, RegistryError> {
        let mut sources = self.sources()?;
        let own = sources.pop().expect("the registry itself is the last source");
        for mirror in sources {
            match ask(Arc::clone(&mirror)).await {
                Err(error) => tracing::debug!(%error, "Mirror failed"),
                found => return found,
            }
        }
        retry::retrying(ATTEMPTS_MAX, || ask(Arc::clone(&own))).await
    }
}
