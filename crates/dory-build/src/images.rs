//! Who finds base images, and brings images to registries.

use std::fmt::Debug;

use dory_registry::Platform;
use dory_types::{Digest, ImageId, ImageReference};

use crate::cancel::Cancel;
use crate::depot::Depot;
use crate::request::PullPolicy;

/// A base image that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    /// Its id in the store.
    pub id: ImageId,
    /// The digest of its manifest or index at the registry, where that is known.
    pub digest: Option<Digest>,
}

/// An image cannot be had or brought away.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImagesError {
    /// Nobody has it.
    #[error("{reference}: not found")]
    NotFound {
        /// Which image.
        reference: String,
    },
    /// Not a name of an image.
    #[error("invalid reference `{reference}`: {message}")]
    Reference {
        /// As written.
        reference: String,
        /// Why not.
        message: String,
    },
    /// The registry, the network or the disk failed; the message says how.
    #[error("{0}")]
    Failed(String),
    /// The build was cancelled meanwhile.
    #[error("the build was cancelled")]
    Cancelled,
}

/// Is told how far a transfer is: the line's name, so far and in all (bytes), and whether the line is done.
pub type TransferProgress<'a> = dyn Fn(&str, u64, u64, bool) + Send + Sync + 'a;

/// Finds base images for a platform in the store and at registries, with whatever credentials and mirrors there are.
pub trait Images: Debug + Send + Sync {
    /// The image that `reference` means, pulled where `pull` asks for that. Blocks.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn find(
        &self,
        reference: &str,
        platform: &Platform,
        pull: PullPolicy,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<FoundImage, ImagesError>;

    /// Documents and blobs of the repository of `reference`, to read, or with `write` to write too.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn depot(&self, reference: &ImageReference, write: bool) -> Result<Box<dyn Depot>, ImagesError>;

    /// Brings the store's image `reference` to its registry; the digest of its manifest there. Blocks.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn push(
        &self,
        reference: &ImageReference,
        insecure: bool,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<Digest, ImagesError>;
}
