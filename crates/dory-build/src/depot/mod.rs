//! Where documents and blobs of images are kept: a repository of a registry, or a layout in a directory.
//!
//! Caches and everything that is more than one image for one machine (indexes, annotations, attestations) is written blob
//! by blob, whichever of the two takes it.

mod layout;

use std::fmt::Debug;
use std::io::Read;

use dory_registry::Descriptor;
use dory_store::LayerLease;
use dory_types::Digest;

pub use layout::LayoutDepot;

use crate::cancel::Cancel;
use crate::images::{ImagesError, TransferProgress};

/// Bytes of a document, or of a blob that is read into memory, at most.
pub(crate) const DOCUMENT_MAX: u64 = 64 << 20;

/// A document that a depot has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Keeps documents and blobs by their digests, and documents by tags. All calls block.
pub trait Depot: Debug + Send + Sync {
    /// A manifest or index, by digest, or by the depot's own tag where none is given.
    ///
    /// # Errors
    /// [`ImagesError::NotFound`], and whatever keeps it away.
    fn document(&self, digest: Option<&Digest>) -> Result<StoredDocument, ImagesError>;

    /// A blob. What is read to its end has the descriptor's digest and length.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, ImagesError>;

    /// Keeps a small blob.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn put_blob(&self, blob: &Descriptor, bytes: &[u8]) -> Result<(), ImagesError>;

    /// Keeps a layer, compressed with gzip; as which blob. One that is there already is not sent again.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn put_layer(
        &self,
        layer: &LayerLease,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<Descriptor, ImagesError>;

    /// Keeps a document by its digest, and by the depot's tag where that is wanted.
    ///
    /// # Errors
    /// [`ImagesError`].
    fn put_document(&self, media_type: &str, bytes: &[u8], tagged: bool) -> Result<(), ImagesError>;
}

/// A blob in memory.
pub(crate) fn read_blob(depot: &dyn Depot, blob: &Descriptor) -> Result<Vec<u8>, ImagesError> {
    let too_long = || ImagesError::Failed(format!("{} is longer than {DOCUMENT_MAX} bytes", blob.digest));
    if blob.size > DOCUMENT_MAX {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let read = depot.blob(blob)?.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| ImagesError::Failed(error.to_string()))?;
    match Digest::of(&bytes) == blob.digest {
        true => Ok(bytes),
        false => Err(ImagesError::Failed(format!("{} does not match its digest", blob.digest))),
    }
}
