//! A repository of a registry as a builder's depot.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dory_build::{Cancel, Depot, ImagesError, StoredDocument, TransferProgress};
use dory_registry::{Descriptor, Remote};
use dory_store::LayerLease;
use dory_types::{Digest, ImageReference, with_causes};

use super::pieces::Pieces;
use crate::distribution::{ProgressStream, Push};
use crate::engine::Inner;

/// A repository, and the tag that documents get.
#[derive(Debug)]
pub(super) struct RegistryDepot {
    pub(super) inner: Arc<Inner>,
    pub(super) remote: Remote,
    pub(super) reference: ImageReference,
}

fn failed(error: impl std::error::Error) -> ImagesError {
    ImagesError::Failed(with_causes(&error))
}

impl RegistryDepot {
    fn named(&self, digest: Option<&Digest>) -> ImageReference {
        match digest {
            Some(digest) => ImageReference::digested(self.reference.repository().clone(), *digest),
            None => self.reference.clone(),
        }
    }
}

impl Depot for RegistryDepot {
    fn document(&self, digest: Option<&Digest>) -> Result<StoredDocument, ImagesError> {
        let name = self.named(digest);
        let found = self.inner.runtime().block_on(self.remote.manifest(&name)).map_err(failed)?;
        Ok(StoredDocument { media_type: found.media_type.to_string(), bytes: found.bytes.to_vec() })
    }

    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, ImagesError> {
        let mut stream = self.remote.blob(blob);
        let runtime = self.inner.runtime().clone();
        Ok(Box::new(Pieces::new(move || runtime.block_on(stream.next()))))
    }

    fn put_blob(&self, blob: &Descriptor, bytes: &[u8]) -> Result<(), ImagesError> {
        let bytes = Bytes::copy_from_slice(bytes);
        let work = async {
            match self.remote.has_blob(&blob.digest).await? {
                true => Ok(()),
                false => self.remote.push_bytes(blob, &bytes).await,
            }
        };
        self.inner.runtime().block_on(work).map_err(failed)
    }

    fn put_layer(
        &self,
        layer: &LayerLease,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<Descriptor, ImagesError> {
        let push = Push { inner: Arc::clone(&self.inner), remote: self.remote.clone() };
        let (layer, pushed) = (layer.clone(), Arc::<Mutex<Option<Descriptor>>>::default());
        let result = Arc::clone(&pushed);
        let work = async move {
            let mut stream = ProgressStream::run(|sender| async move {
                let descriptor = push.layer(&layer, &sender).await?;
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(descriptor);
                Ok(())
            });
            while let Some(message) = stream.next().await {
                if cancel.is_cancelled() {
                    return Err(ImagesError::Cancelled);
                }
                if !message.error.is_empty() {
                    return Err(ImagesError::Failed(message.error));
                }
                let detail = message.progress_detail.unwrap_or_default();
                let done = message.status != "Pushing";
                progress(&format!("pushing layer {}", message.id), detail.current, detail.total, done);
            }
            Ok(())
        };
        self.inner.runtime().block_on(work)?;
        let pushed = pushed.lock().unwrap_or_else(PoisonError::into_inner).take();
        pushed.ok_or_else(|| ImagesError::Failed("the upload ended early".to_owned()))
    }

    fn put_document(&self, media_type: &str, bytes: &[u8], tagged: bool) -> Result<(), ImagesError> {
        let name = self.named((!tagged).then(|| Digest::of(bytes)).as_ref());
        let bytes = Bytes::copy_from_slice(bytes);
        self.inner.runtime().block_on(self.remote.push_manifest(&name, media_type, &bytes)).map_err(failed)
    }
}
