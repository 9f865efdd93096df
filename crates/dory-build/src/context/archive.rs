//! An archive as a build context: unpacked into a directory that goes with the build.

use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use dory_store::{IdMap, Ownership, Store, Tree, UnpackOptions};
use dory_types::with_causes;

use super::{Context, ContextError, ContextTree, Need};
use crate::cancel::Cancel;
use crate::images::TransferProgress;

/// A tar archive, compressed (gzip, zstd) or not, that is read once.
pub struct ArchiveContext {
    store: Arc<Store>,
    source: Mutex<Option<Box<dyn Read + Send>>>,
}

impl fmt::Debug for ArchiveContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ArchiveContext").finish_non_exhaustive()
    }
}

impl ArchiveContext {
    /// The archive that `source` has; it is unpacked in the store's directory for temporary things.
    pub fn new(store: Arc<Store>, source: Box<dyn Read + Send>) -> Self {
        Self { store, source: Mutex::new(Some(source)) }
    }
}

impl Context for ArchiveContext {
    fn open(&self, _: &Need, _: &TransferProgress<'_>, _: &Cancel) -> Result<ContextTree, ContextError> {
        let error = |error: &dyn std::error::Error| ContextError::Archive(with_causes(error));
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).take();
        let source = source.ok_or_else(|| ContextError::Archive("it was read before".to_owned()))?;
        let scratch = self.store.build_scratch().map_err(|failure| error(&failure))?;
        let root = || scratch.fd().try_clone_to_owned().map_err(|failure| error(&failure));
        let options = UnpackOptions { owner: Ownership::Unpacker, ..UnpackOptions::default() };
        Tree::new(root()?, IdMap::default())
            .unpack("/", source, options)
            .map_err(|failure| error(&failure))?;
        Ok(ContextTree { root: root()?, identity: None, keep: Some(Box::new(scratch)) })
    }
}
