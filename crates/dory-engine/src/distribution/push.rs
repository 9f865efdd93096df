//! `docker push`.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dory_registry::{
    Access, Credentials, Descriptor, MediaType, Mounted, Remote, UploadSession, write_manifest,
};
use dory_store::{Distribution, LayerLease, NewImage};
use dory_types::{Digest, ImageId, ImageReference, Repository};
use futures_util::future::try_join_all;
use tokio::sync::{Semaphore, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::compress::compress;
use super::progress::{ProgressMessage, ProgressSender, ProgressStream};
use super::pull::short;
use super::registry_error;
use crate::engine::{Engine, Inner, blocking};
use crate::image::store_error;
use crate::{EngineError, Result};

/// How often a client is told how far a layer is.
const TICK: Duration = Duration::from_millis(100);
/// How many of the repositories are tried that may have a layer already.
const CANDIDATES_MAX: usize = 4;
/// Pieces that wait to be sent.
const QUEUE: usize = 8;

/// `POST /images/{name}/push`.
#[derive(Debug, Clone, Default)]
pub struct PushImage {
    /// The repository; may carry a tag.
    pub image: String,
    /// `tag`; empty for what `image` says, and for all tags where that says none.
    pub tag: String,
    /// `X-Registry-Auth`.
    pub credentials: Credentials,
}

impl PushImage {
    fn reference(&self) -> Result<ImageReference> {
        let text = match self.tag.as_str() {
            "" => self.image.clone(),
            tag => {
                let named = ImageReference::parse_untagged(&self.image)
                    .map_err(|error| EngineError::invalid(error.to_string()))?;
                format!("{}:{tag}", named.repository())
            }
        };
        let reference =
            ImageReference::parse_untagged(&text).map_err(|error| EngineError::invalid(error.to_string()))?;
        match reference.digest() {
            Some(_) => Err(EngineError::invalid("cannot push a digest reference")),
            None => Ok(reference),
        }
    }
}

impl Engine {
    /// Uploads the image of a tag, or those of all tags of a repository. What is not here is told in the stream, as
    /// dockerd does.
    ///
    /// # Errors
    /// `Invalid` for what is no name, or one with a digest.
    pub async fn push_image(&self, request: PushImage) -> Result<ProgressStream> {
        let reference = request.reference()?;
        let repository = reference.repository().clone();
        let remote = self.inner.registries.remote(repository.clone(), Access::Push, request.credentials);
        let push = Push { inner: Arc::clone(&self.inner), remote };
        Ok(ProgressStream::run(|sender| async move {
            let status = format!("The push refers to repository [{repository}]");
            sender.send(ProgressMessage::status(status)).await;
            let tags = push.tags(&reference)?;
            for tag in tags {
                push.image(&tag, &sender).await?;
            }
            Ok(())
        }))
    }
}

/// Uploads to one repository.
pub(crate) struct Push {
    pub(crate) inner: Arc<Inner>,
    pub(crate) remote: Remote,
}

impl Push {
    /// The tags that are meant by `reference`, all of which are here.
    fn tags(&self, reference: &ImageReference) -> Result<Vec<ImageReference>> {
        if reference.tag().is_some() {
            return match self.inner.store.resolve(&reference.to_string()) {
                Ok(_) => Ok(vec![reference.clone()]),
                Err(_) => Err(EngineError::not_found(format!(
                    "An image does not exist locally with the tag: {}",
                    reference.repository().familiar()
                ))),
            };
        }
        let images = self.inner.store.images().map_err(store_error)?;
        let names = images.into_iter().flat_map(|image| image.references);
        let mut tags: Vec<_> = names
            .filter(|name| name.repository() == reference.repository() && name.digest().is_none())
            .collect();
        if tags.is_empty() {
            return Err(EngineError::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.repository().familiar()
            )));
        }
        tags.sort();
        Ok(tags)
    }

    async fn image(&self, reference: &ImageReference, sender: &ProgressSender) -> Result<()> {
        let (inner, name) = (Arc::clone(&self.inner), reference.to_string());
        let (id, config, leases) = blocking(move || {
            let id = inner.store.resolve(&name).map_err(store_error)?;
            let config = inner.store.config_bytes(&id).map_err(store_error)?;
            let leases = inner.store.lease_layers(&id).map_err(store_error)?;
            Ok((id, Bytes::from(config), leases))
        })
        .await?;
        for lease in leases.iter().rev() {
            sender.send(ProgressMessage::of(&short(&lease.diff_id()), "Preparing")).await;
        }
        let layers = self.layers(&leases, sender).await?;
        let config_blob = Descriptor::of(MediaType::DOCKER_CONFIG, &config);
        if !self.remote.has_blob(&config_blob.digest).await.map_err(registry_error)? {
            self.remote.push_bytes(&config_blob, &config).await.map_err(registry_error)?;
        }
        let (media_type, manifest) = write_manifest(&config_blob, &layers);
        let (manifest, size) = (Bytes::from(manifest.clone()), manifest.len());
        let digest = Digest::of(&manifest);
        self.remote.push_manifest(reference, media_type.as_str(), &manifest).await.map_err(registry_error)?;
        self.remember(reference, &id, digest, config, leases, layers).await?;
        self.inner.publish_image("push", &id, &reference.familiar());
        let tag = reference.tag().cloned().unwrap_or_default().to_string();
        let summary = format!("{tag}: digest: {digest} size: {size}");
        sender.send(ProgressMessage::status(summary)).await;
        let aux = serde_json::json!({"Tag": tag, "Digest": digest.to_string(), "Size": size});
        sender.send(ProgressMessage { aux: Some(aux), ..ProgressMessage::default() }).await;
        Ok(())
    }

    /// Gets every layer into the registry, several at once; what it has them as, in their order.
    async fn layers(&self, leases: &[LayerLease], sender: &ProgressSender) -> Result<Vec<Descriptor>> {
        let mut unique: Vec<&LayerLease> = Vec::new();
        for lease in leases {
            if !unique.iter().any(|known| known.diff_id() == lease.diff_id()) {
                unique.push(lease);
            }
        }
        let slots = Semaphore::new(self.inner.registries.config().max_concurrent_uploads.max(1));
        let slots = &slots;
        let pushing = unique.into_iter().map(|lease| async move {
            let _slot = slots.acquire().await.map_err(|error| EngineError::failed("cannot upload", error))?;
            Ok::<_, EngineError>((lease.diff_id(), self.layer(lease, sender).await?))
        });
        let pushed: Vec<(Digest, Descriptor)> = try_join_all(pushing).await?;
        let descriptor = |lease: &LayerLease| {
            let found = pushed.iter().find(|(diff_id, _)| *diff_id == lease.diff_id());
            found.map(|(_, descriptor)| descriptor.clone())
        };
        Ok(leases.iter().filter_map(descriptor).collect())
    }

    /// Gets a layer into the registry, unless it is there; what it has it as.
    pub(crate) async fn layer(&self, lease: &LayerLease, sender: &ProgressSender) -> Result<Descriptor> {
        let diff_id = lease.diff_id();
        let id = short(&diff_id);
        let domain = self.remote.repository().domain();
        let mut known = self.inner.store.distributions(&diff_id);
        known.retain(|known| known.repository.domain() == domain);
        let (mine, others): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|known| known.repository == *self.remote.repository());
        for known in mine.iter().take(CANDIDATES_MAX) {
            if self.remote.has_blob(&known.blob).await.map_err(registry_error)? {
                sender.send(ProgressMessage::of(&id, "Layer already exists")).await;
                return Ok(descriptor(known));
            }
            self.forget(known);
        }
        let mut session = None;
        for known in others.iter().take(CANDIDATES_MAX) {
            match self.mount(known).await? {
                Some(Mounted::Yes) => {
                    let status = format!("Mounted from {}", known.repository.path());
                    sender.send(ProgressMessage::of(&id, status)).await;
                    return Ok(descriptor(known));
                }
                Some(Mounted::No(begun)) => {
                    // The session is as good as any other; those that are not used the registry forgets.
                    session = Some(begun);
                }
                None => {}
            }
        }
        // The blob may be there from somebody else's push, with the very bytes that this layer came in.
        for known in others.iter().take(1) {
            if self.remote.has_blob(&known.blob).await.map_err(registry_error)? {
                sender.send(ProgressMessage::of(&id, "Layer already exists")).await;
                return Ok(descriptor(known));
            }
        }
        self.upload(lease, session, sender).await
    }

    /// Asks the registry to take a layer from another of its repositories; `None` where it would not even hear of it.
    async fn mount(&self, known: &Distribution) -> Result<Option<Mounted>> {
        match self.remote.mount(&known.blob, &known.repository).await {
            Ok(mounted) => Ok(Some(mounted)),
            // Whoever may not read there has to send the layer.
            Err(error) if !error.is_temporary() => {
                tracing::debug!(%error, from = %known.repository, "Cannot mount a layer");
                Ok(None)
            }
            Err(error) => Err(registry_error(error)),
        }
    }

    fn forget(&self, known: &Distribution) {
        if let Err(error) = self.inner.store.forget_distribution(&known.blob, &known.repository) {
            tracing::warn!(error = &error as &dyn std::error::Error, "Cannot forget where a layer was");
        }
    }

    /// Compresses a layer and sends it while it is compressed.
    async fn upload(
        &self,
        lease: &LayerLease,
        session: Option<UploadSession>,
        sender: &ProgressSender,
    ) -> Result<Descriptor> {
        let id = short(&lease.diff_id());
        let total = self.inner.store.layer(&lease.diff_id()).map_or(0, |record| record.archive_size);
        let taken = Arc::new(AtomicU64::new(0));
        let open = || {
            let (pieces, receiver) = tokio::sync::mpsc::channel(QUEUE);
            let (result, finished) = oneshot::channel();
            let (store, lease, taken) = (Arc::clone(&self.inner.store), lease.clone(), Arc::clone(&taken));
            taken.store(0, Ordering::Relaxed);
            tokio::task::spawn_blocking(move || {
                // Nobody waits for the result where the upload failed first.
                let _ = result.send(compress(&store, &lease, &taken, &pieces));
            });
            let finish = async move {
                let gone = |_| Err(io::Error::other("the compression ended early"));
                let (digest, size) = finished.await.unwrap_or_else(gone)?;
                Ok(Descriptor::new(MediaType::DOCKER_LAYER_GZIP, digest, size))
            };
            (Box::pin(ReceiverStream::new(receiver)) as dory_registry::UploadStream, finish)
        };
        let mut pushing = std::pin::pin!(self.remote.push_stream(session, open));
        let pushed = loop {
            let current = taken.load(Ordering::Relaxed);
            sender.offer(ProgressMessage::advance(&id, "Pushing", current, total));
            if let Ok(result) = tokio::time::timeout(TICK, &mut pushing).await {
                break result.map_err(registry_error)?;
            }
        };
        sender.send(ProgressMessage::of(&id, "Pushed")).await;
        Ok(pushed)
    }

    /// Remembers what the registry has now, and what the image is called there.
    async fn remember(
        &self,
        reference: &ImageReference,
        id: &ImageId,
        digest: Digest,
        config: Bytes,
        leases: Vec<LayerLease>,
        layers: Vec<Descriptor>,
    ) -> Result<()> {
        let repository: Repository = reference.repository().clone();
        let distributions: Vec<_> = leases
            .iter()
            .zip(layers)
            .map(|(lease, layer)| {
                let distribution = Distribution {
                    blob: layer.digest,
                    size: layer.size,
                    media_type: layer.media_type.to_string(),
                    repository: repository.clone(),
                };
                (lease.diff_id(), distribution)
            })
            .collect();
        let name = ImageReference::digested(repository, digest);
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        blocking(move || {
            if let Err(error) = inner.store.remember_distributions(distributions) {
                tracing::warn!(error = &error as &dyn std::error::Error, "Cannot remember where layers are");
            }
            // Somebody may have removed the image meanwhile: it must not come back.
            if inner.store.resolve(id.as_str()).is_err() {
                return Ok(());
            }
            let references = [name];
            let named = NewImage { config: &config, layers: leases, references: &references, parent: None };
            inner.store.add_image(named).map(mem::drop).map_err(store_error)
        })
        .await
    }
}

fn descriptor(known: &Distribution) -> Descriptor {
    Descriptor::new(&known.media_type, known.blob, known.size)
}
