//! Manifests of a repository (distribution-spec, "Pulling manifests").

use std::sync::Arc;

use bytes::Bytes;
use dory_types::{Digest, ImageReference};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use super::Remote;
use super::endpoint::{Endpoint, Refusal};
use crate::error::RegistryError;
use crate::http::Exchange;
use crate::manifest::{Document, MANIFEST_LENGTH_MAX, MediaType};

/// What a registry says that a manifest's digest is.
const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a registry says about a manifest, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest; some registries do not say.
    pub digest: Option<Digest>,
    /// Its type.
    pub media_type: MediaType,
    /// Its length in bytes; 0 where the registry does not say.
    pub size: u64,
}

/// A manifest or an index, whose digest is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its type, from the registry or from the document itself.
    pub media_type: MediaType,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it says.
    pub document: Document,
}

impl Remote {
    /// What the registry says about the manifest of `reference`, which Docker Hub does not count against anybody.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn head(&self, reference: &ImageReference) -> Result<ManifestHead, RegistryError> {
        self.ask_sources(|endpoint| async move { self.head_at(&endpoint, reference).await }).await
    }

    async fn head_at(
        &self,
        endpoint: &Endpoint,
        reference: &ImageReference,
    ) -> Result<ManifestHead, RegistryError> {
        let exchange = accepting(Method::HEAD);
        let answer = endpoint.ask(self.claim(endpoint), &exchange, &self.manifest_path(reference)).await?;
        if !answer.response.status().is_success() {
            let refusal = endpoint.refusal(answer).await;
            return Err(self.manifest_error(reference, refusal));
        }
        let headers = answer.response.headers();
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(ManifestHead {
            digest: stated_digest(headers),
            media_type: content_type(headers),
            size: length.unwrap_or_default(),
        })
    }

    /// The manifest or the index of `reference`, checked against the digest that is asked for.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn manifest(&self, reference: &ImageReference) -> Result<FetchedManifest, RegistryError> {
        self.ask_sources(|endpoint| self.manifest_at(endpoint, reference)).await
    }

    async fn manifest_at(
        &self,
        endpoint: Arc<Endpoint>,
        reference: &ImageReference,
    ) -> Result<FetchedManifest, RegistryError> {
        let exchange = accepting(Method::GET);
        let answer = endpoint.ask(self.claim(&endpoint), &exchange, &self.manifest_path(reference)).await?;
        if !answer.response.status().is_success() {
            let refusal = endpoint.refusal(answer).await;
            return Err(self.manifest_error(reference, refusal));
        }
        let (method, location) = (answer.method, answer.location);
        let stated = stated_digest(answer.response.headers());
        let content_type = content_type(answer.response.headers());
        let bytes = endpoint
            .transport
            .read(answer.response.into_body(), MANIFEST_LENGTH_MAX)
            .await
            .map_err(|error| RegistryError::exchange(&method, &location, error))?;
        let what = || format!("the manifest of {}", reference.familiar());
        let bytes =
            bytes.ok_or_else(|| RegistryError::TooLong { what: what(), limit: MANIFEST_LENGTH_MAX })?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = reference.digest().copied().or(stated).filter(|expected| *expected != digest)
        {
            return Err(RegistryError::DigestMismatch { what: what(), expected, found: digest });
        }
        let document = Document::parse(&bytes, &content_type)
            .map_err(|source| RegistryError::manifest(reference, source))?;
        let media_type = document.media_type(&content_type);
        Ok(FetchedManifest { digest, media_type, bytes, document })
    }

    pub(super) fn manifest_path(&self, reference: &ImageReference) -> String {
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_string(),
            (None, None) => dory_types::Tag::default().to_string(),
        };
        self.path(&format!("manifests/{name}"))
    }

    /// A refusal in dockerd's words.
    fn manifest_error(&self, reference: &ImageReference, refusal: Refusal) -> RegistryError {
        let message = refusal.message.to_string();
        let repository = self.repository.familiar();
        match refusal {
            refusal if refusal.is_denied() => RegistryError::Denied { repository, message },
            refusal if refusal.message.has("NAME_UNKNOWN") => {
                RegistryError::RepositoryUnknown { repository, message }
            }
            refusal if refusal.is_not_found() => {
                // An answer to HEAD has no words.
                let known = refusal.message.has("MANIFEST_UNKNOWN");
                let message = if known { message } else { "manifest unknown: manifest unknown".to_owned() };
                RegistryError::ManifestUnknown { reference: reference.familiar(), message }
            }
            refusal => refusal.into_error(),
        }
    }
}

/// A request for a manifest of any kind that we know.
fn accepting(method: Method) -> Exchange {
    MediaType::ACCEPTED.into_iter().fold(Exchange::new(method), |exchange, accepted| {
        exchange.header(ACCEPT, HeaderValue::from_static(accepted))
    })
}

fn stated_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DIGEST_HEADER)?.to_str().ok()?.parse().ok()
}

fn content_type(headers: &HeaderMap) -> MediaType {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(MediaType::new).unwrap_or_default()
}
