//! Base images out of the store and from registries.

use std::sync::{Arc, Weak};

use dory_build::{Cancel, Depot, FoundImage, Images, ImagesError, PullPolicy, TransferProgress};
use dory_registry::{Access, Platform};
use dory_store::Image;
use dory_types::{Digest, ImageReference};

use super::CredentialSource;
use super::depot::RegistryDepot;
use crate::distribution::{ProgressMessage, ProgressStream, PullImage, PushImage};
use crate::engine::{Engine, Inner};

/// Images by way of an engine.
#[derive(Debug)]
pub(super) struct EngineImages {
    inner: Weak<Inner>,
    credentials: Arc<dyn CredentialSource>,
}

fn failed(error: &dyn std::fmt::Display) -> ImagesError {
    ImagesError::Failed(error.to_string())
}

impl EngineImages {
    pub(super) fn new(inner: Weak<Inner>, credentials: Arc<dyn CredentialSource>) -> Self {
        Self { inner, credentials }
    }

    fn engine(&self) -> Result<Engine, ImagesError> {
        let inner = self.inner.upgrade().ok_or_else(|| failed(&"the engine is gone"))?;
        Ok(Engine { inner })
    }

    /// Reads a transfer's messages to their end; the `aux` of the last one that has any.
    fn follow(
        &self,
        engine: &Engine,
        mut stream: ProgressStream,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<Option<serde_json::Value>, ImagesError> {
        let mut facts = None;
        engine.inner.runtime().block_on(async {
            while let Some(ProgressMessage { id, status, progress_detail, error, aux, .. }) =
                stream.next().await
            {
                if cancel.is_cancelled() {
                    return Err(ImagesError::Cancelled);
                }
                if !error.is_empty() {
                    return Err(failed(&error));
                }
                facts = aux.or(facts.take());
                if id.is_empty() {
                    continue;
                }
                let detail = progress_detail.unwrap_or_default();
                let done = matches!(status.as_str(), "Pull complete" | "Already exists" | "Pushed");
                progress(&format!("{status} {id}"), detail.current, detail.total, done);
            }
            Ok(facts)
        })
    }
}

/// Whether an image in the store is for `platform`.
fn fits(image: &Image, platform: &Platform) -> bool {
    let config = &image.config;
    // What an image does not say fits, as old ones say nothing.
    (config.os.is_empty() && config.architecture.is_empty())
        || platform.accepts(&Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os_version: String::new(),
        })
}

fn found(image: &Image, reference: Option<&ImageReference>) -> FoundImage {
    let own =
        |name: &&ImageReference| reference.is_some_and(|wanted| wanted.repository() == name.repository());
    let digest = image.references.iter().filter(own).find_map(|name| name.digest().copied());
    FoundImage { id: image.id.clone(), digest }
}

impl Images for EngineImages {
    fn find(
        &self,
        reference: &str,
        platform: &Platform,
        pull: PullPolicy,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<FoundImage, ImagesError> {
        let engine = self.engine()?;
        let store = &engine.inner.store;
        let parsed = reference.parse::<ImageReference>();
        let here = || store.image(reference).ok().filter(|image| fits(image, platform));
        if let Some(image) = here().filter(|_| pull == PullPolicy::Missing || parsed.is_err()) {
            return Ok(found(&image, parsed.as_ref().ok()));
        }
        let parsed = parsed.map_err(|error| ImagesError::Reference {
            reference: reference.to_owned(),
            message: error.to_string(),
        })?;
        let request = PullImage {
            image: parsed.to_string(),
            tag: String::new(),
            platform: platform.to_string(),
            credentials: self.credentials.credentials(parsed.repository().domain()),
        };
        let stream = engine.inner.runtime().block_on(engine.pull_image(request));
        let stream = stream.map_err(|error| match error.kind() {
            crate::ErrorKind::NotFound => ImagesError::Failed(format!("{reference}: {}", error.message())),
            _ => failed(&error.message()),
        })?;
        self.follow(&engine, stream, progress, cancel)?;
        let image = here().ok_or_else(|| ImagesError::NotFound { reference: reference.to_owned() })?;
        Ok(found(&image, Some(&parsed)))
    }

    fn depot(&self, reference: &ImageReference, write: bool) -> Result<Box<dyn Depot>, ImagesError> {
        let inner = self.engine()?.inner;
        let access = if write { Access::Push } else { Access::Pull };
        let repository = reference.repository().clone();
        let credentials = self.credentials.credentials(repository.domain());
        let remote = inner.registries.remote(repository, access, credentials);
        Ok(Box::new(RegistryDepot { inner, remote, reference: reference.clone() }))
    }

    fn push(
        &self,
        reference: &ImageReference,
        insecure: bool,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<Digest, ImagesError> {
        if insecure {
            return Err(failed(&"which registries are insecure is the engine's configuration to say"));
        }
        let engine = self.engine()?;
        let request = PushImage {
            image: reference.repository().to_string(),
            tag: reference.tag().map(ToString::to_string).unwrap_or_default(),
            credentials: self.credentials.credentials(reference.repository().domain()),
        };
        let stream = engine.inner.runtime().block_on(engine.push_image(request));
        let stream = stream.map_err(|error| failed(&error.message()))?;
        let facts = self.follow(&engine, stream, progress, cancel)?;
        let digest = facts.as_ref().and_then(|facts| facts.get("Digest")).and_then(|digest| digest.as_str());
        digest
            .and_then(|digest| digest.parse().ok())
            .ok_or_else(|| failed(&"the registry did not say what it calls the image"))
    }
}
