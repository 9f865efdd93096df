//! `docker pull`.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dory_registry::{Access, Credentials, Descriptor, Platform, Remote, ResolvedImage};
use dory_store::{Distribution, ImageConfig, LayerLease, NewImage};
use dory_types::{Digest, ImageReference, Repository};
use futures_util::future::try_join_all;

use super::progress::{ProgressMessage, ProgressSender, ProgressStream};
use super::registry_error;
use super::transfer::{Participation, Phase};
use crate::engine::{Engine, Inner, blocking};
use crate::image::store_error;
use crate::{EngineError, Result};

/// How often a client is told how far a layer is; dockerd's measure.
const TICK: Duration = Duration::from_millis(100);

/// `POST /images/create?fromImage=…`.
#[derive(Debug, Clone, Default)]
pub struct PullImage {
    /// `fromImage`: may carry a tag or a digest.
    pub image: String,
    /// `tag`: a tag or a digest; empty for what `image` says, and for all tags where that says none.
    pub tag: String,
    /// `platform`; empty for this machine's.
    pub platform: String,
    /// `X-Registry-Auth`.
    pub credentials: Credentials,
}

/// What is to be pulled.
enum Wanted {
    /// One image.
    One(ImageReference),
    /// Every tag.
    All(Repository),
}

impl PullImage {
    fn wanted(&self) -> Result<Wanted> {
        let invalid = |error: dory_types::ReferenceError| EngineError::invalid(error.to_string());
        let separator = match self.tag.as_str() {
            "" => "",
            tag if tag.contains(':') => "@",
            _ => ":",
        };
        // The tag of the parameter counts where the name has one too.
        let named = ImageReference::parse_untagged(&self.image).map_err(invalid)?;
        if self.tag.is_empty() {
            let bare = named.tag().is_none() && named.digest().is_none();
            return Ok(if bare { Wanted::All(named.repository().clone()) } else { Wanted::One(named) });
        }
        let text = format!("{}{separator}{}", named.repository(), self.tag);
        Ok(Wanted::One(text.parse().map_err(invalid)?))
    }
}

impl Engine {
    /// Downloads an image. What is wrong before the first layer is asked for is an error; the rest is told in the stream.
    ///
    /// # Errors
    /// `Invalid` for what is no name or platform, `NotFound` where the registry has no such image for us, `Internal` for
    /// everything else that a registry may answer or not answer.
    pub async fn pull_image(&self, request: PullImage) -> Result<ProgressStream> {
        let platform = match request.platform.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|error| EngineError::invalid(format!("{error}")))?),
        };
        let wanted = request.wanted()?;
        let repository = match &wanted {
            Wanted::One(reference) => reference.repository(),
            Wanted::All(repository) => repository,
        };
        let remote = self.inner.registries.remote(repository.clone(), Access::Pull, request.credentials);
        let references = match wanted {
            Wanted::One(reference) => vec![reference],
            Wanted::All(repository) => {
                let tags = remote.tags().await.map_err(registry_error)?;
                tags.into_iter().map(|tag| ImageReference::tagged(repository.clone(), tag)).collect()
            }
        };
        let Some((first, others)) = references.split_first() else {
            let name = remote.repository().familiar();
            return Err(EngineError::not_found(format!("repository {name} has no tags")));
        };
        let pull = Pull { inner: Arc::clone(&self.inner), remote, platform };
        let found = pull.find(first).await?;
        let (first, others) = (first.clone(), others.to_vec());
        Ok(ProgressStream::run(|sender| async move {
            pull.image(&first, found, &sender).await?;
            for reference in others {
                let found = pull.find(&reference).await?;
                pull.image(&reference, found, &sender).await?;
            }
            Ok(())
        }))
    }
}

/// What a reference leads to.
enum Found {
    /// The image is here already, and this is what its manifest or index is called.
    Here(Digest),
    /// It is not.
    There(Box<ResolvedImage>),
}

struct Pull {
    inner: Arc<Inner>,
    remote: Remote,
    platform: Option<Platform>,
}

impl Pull {
    /// Asks the registry what `reference` is. What is here already is only asked for with HEAD, which registries do
    /// not count against anybody.
    async fn find(&self, reference: &ImageReference) -> Result<Found> {
        let here = |digest: Digest| -> bool {
            let name = ImageReference::digested(reference.repository().clone(), digest);
            let image = self.inner.store.image(&name.to_string());
            image.is_ok_and(|image| self.fits(&image.config))
        };
        match reference.digest() {
            Some(digest) if here(*digest) => return Ok(Found::Here(*digest)),
            Some(_) => {}
            None => {
                if self.has_repository(reference.repository()) {
                    let head = self.remote.head(reference).await.map_err(registry_error)?;
                    if let Some(digest) = head.digest.filter(|digest| here(*digest)) {
                        return Ok(Found::Here(digest));
                    }
                }
            }
        }
        let image = self.remote.resolve(reference, self.platform.as_ref()).await.map_err(registry_error)?;
        Ok(Found::There(Box::new(image)))
    }

    /// True where an image is for the machine that was asked for; an image for another one may stand behind the same
    /// index.
    fn fits(&self, config: &ImageConfig) -> bool {
        let wanted = self.platform.clone().unwrap_or_else(Platform::current);
        wanted.accepts(&Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os_version: String::new(),
        })
    }

    /// True where an image of the repository is here: else there is no use in asking twice.
    fn has_repository(&self, repository: &Repository) -> bool {
        let images = self.inner.store.images().unwrap_or_default();
        images.iter().flat_map(|image| &image.references).any(|name| name.repository() == repository)
    }

    async fn image(&self, reference: &ImageReference, found: Found, sender: &ProgressSender) -> Result<()> {
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.cloned().unwrap_or_default().to_string(),
        };
        // dockerd shows Docker Hub's official images with their namespace here.
        let repository = reference.repository();
        let shown = match repository.domain() {
            "docker.io" => repository.path().to_owned(),
            _ => repository.familiar(),
        };
        sender
            .send(ProgressMessage { status: format!("Pulling from {shown}"), id: name, ..Default::default() })
            .await;
        let before = self.inner.store.resolve(&reference.to_string()).ok();
        let (digest, after) = match found {
            Found::Here(digest) => {
                let here = ImageReference::digested(repository.clone(), digest);
                let id = self.inner.store.resolve(&here.to_string()).map_err(store_error)?;
                if reference.digest().is_none() && before.as_ref() != Some(&id) {
                    self.tag(&here, reference).await?;
                }
                (digest, id)
            }
            Found::There(image) => {
                let config = self.remote.config(&image).await.map_err(registry_error)?;
                let layers = self.layers(&image, &config, sender).await?;
                (image.digest, self.add(reference, &image, config, layers).await?)
            }
        };
        sender.send(ProgressMessage::status(format!("Digest: {digest}"))).await;
        let status = match before {
            Some(before) if before == after => "Image is up to date for",
            _ => "Downloaded newer image for",
        };
        self.inner.publish_image("pull", &after, &reference.familiar());
        sender.send(ProgressMessage::status(format!("Status: {status} {}", reference.familiar()))).await;
        Ok(())
    }

    async fn tag(&self, source: &ImageReference, target: &ImageReference) -> Result<()> {
        let (inner, source, target) = (Arc::clone(&self.inner), source.to_string(), target.clone());
        blocking(move || inner.store.tag(&source, target).map(drop).map_err(store_error)).await
    }

    /// Gets all layers into the store, all at once.
    async fn layers(
        &self,
        image: &ResolvedImage,
        config: &Bytes,
        sender: &ProgressSender,
    ) -> Result<Vec<Layer>> {
        let parsed = ImageConfig::parse(config)
            .map_err(|error| EngineError::failed("the image's configuration is malformed", error))?;
        let (blobs, diff_ids) = (&image.manifest.layers, &parsed.rootfs.diff_ids);
        if blobs.len() != diff_ids.len() {
            return Err(EngineError::internal(format!(
                "invalid rootfs in image configuration: {} diff-ids for {} layers",
                diff_ids.len(),
                blobs.len()
            )));
        }
        let mut announced = HashSet::new();
        let mut layers = Vec::new();
        for (blob, diff_id) in blobs.iter().zip(diff_ids) {
            let id = short(&blob.digest);
            let first = announced.insert(blob.digest);
            let here = self.inner.store.lease_layer(diff_id);
            let source = match here {
                Some(lease) => {
                    if first {
                        sender.send(ProgressMessage::of(&id, "Already exists")).await;
                    }
                    Source::Here(lease)
                }
                None => {
                    if first {
                        sender.send(ProgressMessage::of(&id, "Pulling fs layer")).await;
                    }
                    Source::There(self.inner.transfers.join(&self.inner.store, self.remote.blob(blob)))
                }
            };
            layers.push((blob, *diff_id, source, first));
        }
        let arriving = layers.into_iter().map(|(blob, diff_id, source, first)| async move {
            let teller = first.then_some(sender);
            match source {
                Source::Here(lease) => Ok(Layer { lease, part: None }),
                Source::There(part) => arrive(part, blob, diff_id, teller).await,
            }
        });
        try_join_all(arriving).await
    }

    async fn add(
        &self,
        reference: &ImageReference,
        image: &ResolvedImage,
        config: Bytes,
        layers: Vec<Layer>,
    ) -> Result<dory_types::ImageId> {
        let repository = reference.repository().clone();
        let mut references = vec![ImageReference::digested(repository.clone(), image.digest)];
        if reference.digest().is_none() {
            references.push(reference.clone());
        }
        let distributions: Vec<_> = layers
            .iter()
            .zip(&image.manifest.layers)
            .map(|(layer, blob)| {
                let distribution = Distribution {
                    blob: blob.digest,
                    size: blob.size,
                    media_type: blob.media_type.to_string(),
                    repository: repository.clone(),
                };
                (layer.lease.diff_id(), distribution)
            })
            .collect();
        let inner = Arc::clone(&self.inner);
        let id = blocking(move || {
            let leases = layers.iter().map(|layer| layer.lease.clone()).collect();
            let new = NewImage { config: &config, layers: leases, references: &references, parent: None };
            let added = inner.store.add_image(new).map_err(store_error)?;
            layers.iter().filter_map(|layer| layer.part.as_ref()).for_each(Participation::mark_used);
            if let Err(error) = inner.store.remember_distributions(distributions) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "Cannot remember where layers came from"
                );
            }
            Ok(added.id)
        });
        id.await
    }
}

/// Where a layer is.
enum Source {
    Here(LayerLease),
    There(Participation),
}

/// A layer in the store.
struct Layer {
    lease: LayerLease,
    /// Keeps the transfer from being taken for a cancelled one.
    part: Option<Participation>,
}

/// Waits for a layer, and tells `teller` about it.
async fn arrive(
    part: Participation,
    blob: &Descriptor,
    diff_id: Digest,
    teller: Option<&ProgressSender>,
) -> Result<Layer> {
    let id = short(&blob.digest);
    let mut phases = part.phase();
    let mut last = mem::discriminant(&Phase::Waiting);
    loop {
        let phase = phases.borrow_and_update().clone();
        let now = mem::discriminant(&phase);
        if let Some(sender) = teller {
            tell(sender, &id, blob.size, &phase, now != last).await;
        }
        last = now;
        match phase {
            Phase::Done(lease) if lease.diff_id() == diff_id => return Ok(Layer { lease, part: Some(part) }),
            Phase::Done(lease) => {
                return Err(EngineError::internal(format!(
                    "layer {} unpacks to {}, but the image's configuration says {diff_id}",
                    blob.digest,
                    lease.diff_id()
                )));
            }
            Phase::Failed(error) => return Err(error.into()),
            _ => {}
        }
        // A new phase is told at once, bytes now and then.
        let changed = phases.wait_for(|phase| mem::discriminant(phase) != last);
        if let Ok(Err(_)) = tokio::time::timeout(TICK, changed).await {
            return Err(EngineError::internal("a download ended early"));
        }
    }
}

async fn tell(sender: &ProgressSender, id: &str, size: u64, phase: &Phase, new: bool) {
    match phase {
        Phase::Waiting => {}
        Phase::Downloading(current) => {
            sender.offer(ProgressMessage::advance(id, "Downloading", *current, size))
        }
        Phase::Extracting(current) => {
            if new {
                sender.send(ProgressMessage::of(id, "Verifying Checksum")).await;
                sender.send(ProgressMessage::of(id, "Download complete")).await;
            }
            sender.offer(ProgressMessage::advance(id, "Extracting", *current, size));
        }
        Phase::Done(_) => {
            sender.offer(ProgressMessage::advance(id, "Extracting", size, size));
            sender.send(ProgressMessage::of(id, "Pull complete")).await;
        }
        Phase::Failed(_) => {}
    }
}

/// A digest as progress shows it.
pub(super) fn short(digest: &Digest) -> String {
    let mut hex = digest.hex();
    hex.truncate(12);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, tag, expected) in [
            ("busybox", "latest", "busybox:latest"),
            ("busybox:1", "", "busybox:1"),
            ("busybox:1", "2", "busybox:2"),
            ("busybox", &digest, &format!("busybox@{digest}")),
            ("localhost:5000/a/b", "x", "localhost:5000/a/b:x"),
            ("busybox", "", "all of busybox"),
        ] {
            let request = PullImage { image: image.to_owned(), tag: tag.to_owned(), ..PullImage::default() };
            let wanted = match request.wanted().unwrap() {
                Wanted::One(reference) => reference.familiar(),
                Wanted::All(repository) => format!("all of {}", repository.familiar()),
            };
            assert_eq!(wanted, expected);
        }
        let wrong = PullImage { image: "A".to_owned(), ..PullImage::default() };
        assert!(wrong.wanted().is_err());
    }
}
