//! What a registry is asked without anything being moved: login, what stands behind a name, what there is.

use dory_registry::{
    Access, Credentials, Document, ImageManifest, MediaType, Platform, RegistryErrorKind, Remote,
};
use dory_types::ImageReference;
use serde::{Deserialize, Serialize};

use super::registry_error;
use crate::engine::Engine;
use crate::{EngineError, ErrorKind, Result};

/// What Docker Hub and its search service are called; the service speaks a protocol of its own.
const HUB: &str = "docker.io";
/// How many results a search gives that names no number; dockerd's.
const SEARCH_LIMIT: usize = 25;

/// API 1.51, the answer of `POST /auth`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LoginResult {
    /// `Login Succeeded`.
    pub status: String,
    /// May be kept in place of the password; empty where the registry has no such.
    pub identity_token: String,
}

/// API 1.51, `OCIDescriptor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DistributionDescriptor {
    /// Of a manifest or an index.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// API 1.51, `DistributionInspect`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DistributionInspect {
    /// What the name stands for.
    pub descriptor: DistributionDescriptor,
    /// For which machines it is.
    pub platforms: Vec<Platform>,
}

/// API 1.51, one of the results of `GET /images/search`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SearchResult {
    /// Stars; registries count none.
    pub star_count: u64,
    /// False: only Docker Hub has such.
    pub is_official: bool,
    /// The repository, with its registry.
    pub name: String,
    /// False.
    pub is_automated: bool,
    /// Empty: registries have none.
    pub description: String,
}

/// What of a configuration says for which machine an image is.
#[derive(Deserialize)]
struct ConfigPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    #[serde(default, rename = "os.version")]
    os_version: String,
}

impl Engine {
    /// Asks a registry whether it takes the credentials.
    ///
    /// # Errors
    /// `Unauthorized` where it does not, `Internal` where it cannot be asked.
    pub async fn login(&self, address: &str, credentials: &Credentials) -> Result<LoginResult> {
        let outcome = self.inner.registries.login(address, credentials).await.map_err(|error| {
            let refused = error.kind() == RegistryErrorKind::Unauthorized;
            let error = registry_error(error);
            if refused { EngineError::new(ErrorKind::Unauthorized, error.message()) } else { error }
        })?;
        let identity_token =
            outcome.identity_token.map(|token| token.expose().to_owned()).unwrap_or_default();
        Ok(LoginResult { status: "Login Succeeded".to_owned(), identity_token })
    }

    /// What stands behind a name in its registry.
    ///
    /// # Errors
    /// `Invalid` for what is no name, `NotFound` where the registry has nothing for us, `Internal` for everything else.
    pub async fn inspect_distribution(
        &self,
        reference: &str,
        credentials: Credentials,
    ) -> Result<DistributionInspect> {
        let reference: ImageReference = reference
            .parse()
            .map_err(|error: dory_types::ReferenceError| EngineError::invalid(error.to_string()))?;
        let repository = reference.repository().clone();
        let remote = self.inner.registries.remote(repository, Access::Pull, credentials);
        let manifest = remote.manifest(&reference).await.map_err(registry_error)?;
        let descriptor = DistributionDescriptor {
            media_type: manifest.media_type.to_string(),
            digest: manifest.digest.to_string(),
            size: manifest.bytes.len() as u64,
        };
        let platforms = match manifest.document {
            Document::Index(index) => {
                index.manifests.into_iter().filter_map(|entry| entry.platform).collect()
            }
            Document::Manifest(manifest) => platform(&remote, &manifest).await?.into_iter().collect(),
        };
        Ok(DistributionInspect { descriptor, platforms })
    }

    /// Searches the registry that `term` begins with, which must list what it has; Docker Hub's service is not asked.
    ///
    /// # Errors
    /// `NotImplemented` for Docker Hub and for registries without a list.
    pub async fn search_images(
        &self,
        term: &str,
        limit: Option<usize>,
        credentials: &Credentials,
    ) -> Result<Vec<SearchResult>> {
        let (domain, term) = match term.split_once('/') {
            Some((domain, term)) if domain.contains(['.', ':']) || domain == "localhost" => (domain, term),
            _ => (HUB, term),
        };
        if domain == HUB {
            return Err(EngineError::not_implemented(
                "searching Docker Hub is not supported by dory: use its web site, or name a registry as in \
                 `docker search localhost:5000/term`",
            ));
        }
        let names = self.inner.registries.catalog(domain, credentials).await.map_err(|error| {
            let error = registry_error(error);
            EngineError::not_implemented(format!("`{domain}` cannot be searched: {}", error.message()))
        })?;
        let found = names.iter().filter(|name| name.contains(term)).map(|name| SearchResult {
            star_count: 0,
            is_official: false,
            name: format!("{domain}/{name}"),
            is_automated: false,
            description: String::new(),
        });
        Ok(found.take(limit.unwrap_or(SEARCH_LIMIT)).collect())
    }
}

/// For which machine an image is, as its configuration says; `None` for what is no container image.
async fn platform(remote: &Remote, manifest: &ImageManifest) -> Result<Option<Platform>> {
    let media_type: &MediaType = &manifest.config.media_type;
    if !media_type.is_image_config() {
        return Ok(None);
    }
    let config = remote.blob_bytes(&manifest.config, 8 << 20).await.map_err(registry_error)?;
    let parsed: Option<ConfigPlatform> = serde_json::from_slice(&config).ok();
    Ok(parsed.map(|config| Platform {
        os: config.os,
        architecture: config.architecture,
        variant: config.variant,
        os_version: config.os_version,
    }))
}
