//! From a reference to one image: through indexes, to its configuration.

use bytes::Bytes;
use dory_types::{Digest, ImageReference};

use super::Remote;
use super::manifest::FetchedManifest;
use crate::error::RegistryError;
use crate::manifest::{Document, ImageManifest, MANIFEST_LENGTH_MAX, MediaType, Platform};

/// How deep indexes may lead to indexes.
const DEPTH_MAX: usize = 4;
/// The longest configuration, in bytes.
const CONFIG_LENGTH_MAX: u64 = 8 << 20;

/// An image as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// What the reference leads to: the digest that people see and pull by.
    pub digest: Digest,
    /// The digest of the image's own manifest; another one where an index stands before it.
    pub manifest_digest: Digest,
    /// The type of that manifest.
    pub media_type: MediaType,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it says.
    pub manifest: ImageManifest,
}

impl Remote {
    /// The image of `reference` for `platform`; without one, for this machine, or for whatever it is made where there
    /// is no choice.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn resolve(
        &self,
        reference: &ImageReference,
        platform: Option<&Platform>,
    ) -> Result<ResolvedImage, RegistryError> {
        let first = self.manifest(reference).await?;
        self.resolve_from(reference, first, platform).await
    }

    /// As [`Self::resolve`], where the first document has been fetched.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn resolve_from(
        &self,
        reference: &ImageReference,
        first: FetchedManifest,
        platform: Option<&Platform>,
    ) -> Result<ResolvedImage, RegistryError> {
        let own = Platform::current();
        let digest = first.digest;
        let mut fetched = first;
        for _ in 0..DEPTH_MAX {
            let manifest_error = |source| RegistryError::manifest(reference, source);
            match fetched.document {
                Document::Manifest(manifest) => {
                    check_layers(reference, &manifest)?;
                    let (manifest_digest, media_type, bytes) =
                        (fetched.digest, fetched.media_type, fetched.bytes);
                    return Ok(ResolvedImage { digest, manifest_digest, media_type, bytes, manifest });
                }
                Document::Index(index) => {
                    let entry = platform.unwrap_or(&own).select(&index).map_err(manifest_error)?;
                    let target = &entry.target;
                    if target.size > MANIFEST_LENGTH_MAX {
                        let what = format!("the manifest of {}", reference.familiar());
                        return Err(RegistryError::TooLong { what, limit: MANIFEST_LENGTH_MAX });
                    }
                    let next = ImageReference::digested(self.repository.clone(), target.digest);
                    fetched = self.manifest(&next).await?;
                }
            }
        }
        Err(RegistryError::IndexDepth { reference: reference.familiar(), depth: DEPTH_MAX })
    }

    /// The configuration of `image`, as it is: whether it fits the layers is for the store to say.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn config(&self, image: &ResolvedImage) -> Result<Bytes, RegistryError> {
        self.blob_bytes(&image.manifest.config, CONFIG_LENGTH_MAX).await
    }
}

/// Refuses what is no container image, or has layers that are not to be had here.
fn check_layers(reference: &ImageReference, manifest: &ImageManifest) -> Result<(), RegistryError> {
    if !manifest.config.media_type.is_image_config() {
        let media_type = manifest.config.media_type.to_string();
        return Err(RegistryError::NotAnImage { reference: reference.familiar(), media_type });
    }
    match manifest.layers.iter().find(|layer| layer.media_type.is_foreign_layer()) {
        Some(layer) => Err(RegistryError::ForeignLayer {
            digest: layer.digest,
            media_type: layer.media_type.to_string(),
        }),
        None => Ok(()),
    }
}
