//! What the cache has, and getting rid of it.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use dory_store::{BuildRecord, StoreError};
use dory_types::{Digest, Timestamp};

use crate::builder::Builder;
use crate::cancel::Cancel;

/// Which cached results go. Without any wish all go that no image uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Also those that images use, which frees nothing by itself.
    pub all: bool,
    /// Only those that were not used for so long.
    pub unused_for: Option<Duration>,
    /// Those used last stay, up to so many bytes.
    pub keep_bytes: u64,
    /// Only these; all where the list is empty.
    pub ids: Vec<String>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids of the records.
    pub keys: Vec<String>,
    /// What their layers took, in bytes.
    pub bytes: u64,
}

/// A cached result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Names it.
    pub id: Digest,
    /// What it is.
    pub record: BuildRecord,
    /// What its layer takes, in bytes.
    pub size: u64,
    /// An image or a container has the layer, too.
    pub shared: bool,
}

/// A build that can be cancelled by its id until this is dropped.
#[derive(Debug)]
pub struct Registered<'a> {
    builder: &'a Builder,
    id: String,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.builder.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Builder {
    /// Lets [`Builder::cancel`] find a build; an empty id is nobody's.
    pub fn register(&self, id: &str, cancel: &Cancel) -> Option<Registered<'_>> {
        if id.is_empty() {
            return None;
        }
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), cancel.clone());
        Some(Registered { builder: self, id: id.to_owned() })
    }

    /// Cancels the build with this id, where there is one.
    pub fn cancel(&self, id: &str) {
        if let Some(cancel) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            cancel.cancel();
        }
    }

    /// Everything in the cache, what was used last first.
    ///
    /// # Errors
    /// [`StoreError`] where the images cannot be read.
    pub fn cache(&self) -> Result<Vec<CacheEntry>, StoreError> {
        let mut users: HashMap<Digest, usize> = HashMap::new();
        for image in self.store.images()? {
            for layer in &image.config.rootfs.diff_ids {
                *users.entry(*layer).or_default() += 1;
            }
        }
        let entry = |(id, record): (Digest, BuildRecord)| {
            let layer = record.layer.and_then(|layer| self.store.layer(&layer));
            let shared = record.layer.is_some_and(|layer| users.contains_key(&layer));
            CacheEntry { id, size: layer.map_or(0, |layer| layer.size), shared, record }
        };
        let mut entries: Vec<_> = self.store.build_records().into_iter().map(entry).collect();
        entries.sort_by(|one, other| other.record.used.cmp(&one.record.used).then(one.id.cmp(&other.id)));
        Ok(entries)
    }

    /// Removes cached results. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, StoreError> {
        let now = Timestamp::now();
        let mut kept = 0;
        let mut pruned = Pruned::default();
        let mut keys = Vec::new();
        for entry in self.cache()? {
            let id = entry.id.hex();
            let wanted =
                options.ids.is_empty() || options.ids.iter().any(|wanted| id.starts_with(wanted.as_str()));
            let old = options.unused_for.is_none_or(|age| now.since(entry.record.used) >= age);
            let fits = kept + entry.size <= options.keep_bytes;
            if !wanted || !old || (entry.shared && !options.all) || (options.keep_bytes > 0 && fits) {
                kept += entry.size;
                continue;
            }
            pruned.bytes += if entry.shared { 0 } else { entry.size };
            pruned.keys.push(id);
            keys.push(entry.id);
        }
        self.store.forget_build_records(&keys)?;
        Ok(pruned)
    }
}
