//! What builds.

use std::sync::Arc;

use dory_store::Store;

use crate::cancel::Cancel;
use crate::error::BuildError;
use crate::executor::Executor;
use crate::images::Images;
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::request::Request;

/// Builds images in a store. Builds at the same time share it: what two of them need is done once.
#[derive(Debug)]
pub struct Builder {
    pub(crate) store: Arc<Store>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) executor: Arc<dyn Executor>,
}

impl Builder {
    /// A builder over `store`.
    #[must_use]
    pub fn new(store: Arc<Store>, images: Arc<dyn Images>, executor: Arc<dyn Executor>) -> Self {
        Self { store, images, executor }
    }

    /// Builds. Blocks until everything is done and every output is written.
    ///
    /// # Errors
    /// [`BuildError`]; no output has been named then, and what was made on the way stays in the cache.
    pub fn build(
        &self,
        request: &Request,
        progress: &Arc<dyn Progress>,
        cancel: &Cancel,
    ) -> Result<Outcome, BuildError> {
        let _ = (request, progress, &self.store, &self.images, &self.executor);
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        Err(BuildError::Unsupported("this build cannot be solved yet".to_owned()))
    }
}
