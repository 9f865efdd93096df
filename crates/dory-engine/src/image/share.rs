//! Engines in containers use this engine's images from below.

use std::path::Path;

use dory_store::{LowerOptions, Share};

use super::store_error;
use crate::Result;
use crate::config::HostConfig;
use crate::container::Container;
use crate::engine::Inner;
use crate::options::EngineConfig;
use crate::spec::{PARENT_LEASE, PARENT_STORE};

impl Inner {
    /// What a container gets to see of the store: nothing unless the operator allows it, and unless it can run an engine.
    pub(crate) fn shared_store(&self, container: &Container, host: &HostConfig) -> Result<Option<Share>> {
        if !(self.options.share_store && host.privileged) {
            return Ok(None);
        }
        self.store.share_with(&container.id).map(Some).map_err(store_error)
    }
}

impl EngineConfig {
    /// Adds the store of the engine around this one, where it shares it.
    pub fn find_parent_store(&mut self) {
        let path = Path::new(PARENT_STORE);
        if path.join("layers").is_dir() {
            self.lower_stores.push(LowerOptions { path: path.into(), lease: Some(PARENT_LEASE.into()) });
        }
    }
}
