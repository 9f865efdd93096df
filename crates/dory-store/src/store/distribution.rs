//! Under which digests, and where, registries have the layers: what was pulled or pushed once need not be sent again.
//!
//! A hint and no more: registries forget, so whoever relies on an entry asks the registry first. It is written without
//! a sync, and a torn record counts as an empty one.

use std::collections::HashMap;

use dory_types::{Digest, Repository};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::error::StoreError;
use crate::record::{Durability, read_record, write_record};

/// The record's file name.
const RECORD: &str = "distributions.json";
/// How many entries a layer keeps; the oldest go first. dockerd keeps fifty.
const ENTRIES_MAX: usize = 50;

/// A registry has a layer as this blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The digest of the blob: of the layer's compressed archive.
    pub blob: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Where it is.
    #[serde(with = "repository")]
    pub repository: Repository,
}

/// By diff-id, the newest last.
pub(super) type Distributions = HashMap<Digest, Vec<Distribution>>;

impl Store {
    /// The blobs that registries are known to have of the layer `diff_id`, the newest first.
    pub fn distributions(&self, diff_id: &Digest) -> Vec<Distribution> {
        let state = self.lock();
        state
            .distributions
            .get(diff_id)
            .map(|known| known.iter().rev().cloned().collect())
            .unwrap_or_default()
    }

    /// The diff-id of the layer that some registry has as `blob`, where the store has that layer.
    pub fn layer_of_blob(&self, blob: &Digest) -> Option<Digest> {
        let state = self.lock();
        let known = |known: &Vec<Distribution>| known.iter().any(|known| known.blob == *blob);
        let mut layers =
            state.distributions.iter().filter(|(_, blobs)| known(blobs)).map(|(layer, _)| *layer);
        layers.find(|layer| state.layers.contains_key(layer))
    }

    /// Remembers what was pulled or pushed: each pair is a layer's diff-id and the blob that a registry has of it.
    /// What concerns layers that are gone is forgotten.
    ///
    /// # Errors
    /// [`StoreError::Record`].
    pub fn remember_distributions(
        &self,
        found: impl IntoIterator<Item = (Digest, Distribution)>,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        let state = &mut *state;
        for (diff_id, distribution) in found {
            let known = state.distributions.entry(diff_id).or_default();
            known.retain(|known| {
                (known.blob, &known.repository) != (distribution.blob, &distribution.repository)
            });
            known.push(distribution);
            let surplus = known.len().saturating_sub(ENTRIES_MAX);
            known.drain(..surplus);
        }
        state.distributions.retain(|diff_id, _| state.layers.contains_key(diff_id));
        Ok(write_record(&self.root, RECORD, &state.distributions, Durability::Unsynced)?)
    }

    /// Forgets that a registry has `blob` in `repository`: it was asked and knows nothing of it.
    ///
    /// # Errors
    /// [`StoreError::Record`].
    pub fn forget_distribution(&self, blob: &Digest, repository: &Repository) -> Result<(), StoreError> {
        let mut state = self.lock();
        for known in state.distributions.values_mut() {
            known.retain(|known| (&known.blob, &known.repository) != (blob, repository));
        }
        Ok(write_record(&self.root, RECORD, &state.distributions, Durability::Unsynced)?)
    }

    /// What an earlier engine knew.
    pub(super) fn read_distributions(&self) -> Distributions {
        read_record(&self.root, RECORD).ok().flatten().unwrap_or_default()
    }
}

/// A repository as text in records.
mod repository {
    use dory_types::Repository;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        repository: &Repository,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(repository)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Repository, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
