//! `docker import` and `docker tag`, and the history of an image.

use std::io::Read;
use std::sync::Arc;

use dory_types::{ImageId, ImageReference, Timestamp};

use super::change::apply_changes;
use super::load::go_architecture;
use super::{HistoryEntry, ImageConfig};
use crate::error::StoreError;
use crate::store::{ExpectedLayer, Store};

/// For which machines an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlatform {
    /// Go's name of the operating system.
    pub os: String,
    /// Go's name of the architecture.
    pub architecture: String,
    /// Which one of that architecture; empty for none.
    pub variant: String,
}

impl ImagePlatform {
    /// This machine.
    pub fn current() -> Self {
        Self { os: "linux".into(), architecture: go_architecture().into(), variant: String::new() }
    }
}

/// What an import says beside the files.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The name that the image gets.
    pub reference: Option<ImageReference>,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// What the history says.
    pub message: String,
    /// For which machines the files are.
    pub platform: ImagePlatform,
}

/// One line of `docker history`, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageHistory {
    /// The image that the step made, where it is known here; `<missing>` otherwise.
    pub id: Option<ImageId>,
    /// When.
    pub created: Option<Timestamp>,
    /// By which instruction.
    pub created_by: String,
    /// That image's names.
    pub tags: Vec<String>,
    /// The size of the step's layer, in bytes.
    pub size: u64,
    /// What was said about it.
    pub comment: String,
}

impl Store {
    /// Makes an image with one layer of the archive `source`, compressed or not.
    ///
    /// # Errors
    /// [`StoreError::Change`], [`StoreError::Extract`]; nothing is left then.
    pub fn import(
        self: &Arc<Self>,
        source: impl Read + Send,
        options: ImportOptions,
    ) -> Result<ImageId, StoreError> {
        let now = Timestamp::now();
        let mut config = ImageConfig {
            created: Some(now),
            architecture: options.platform.architecture,
            variant: options.platform.variant,
            os: options.platform.os,
            comment: options.message.clone(),
            history: vec![HistoryEntry {
                created: Some(now),
                comment: options.message,
                ..HistoryEntry::default()
            }],
            ..ImageConfig::default()
        };
        apply_changes(&mut config.config, &options.changes)?;
        let layer = self
            .ingest(source, &ExpectedLayer::default())
            .map_err(|source| StoreError::Extract { layer: "the imported archive".to_owned(), source })?;
        config.rootfs.diff_ids = vec![layer.diff_id()];
        let bytes = serde_json::to_vec(&config).map_err(StoreError::SerialiseConfig)?;
        let mut change = self.change(vec![layer])?;
        let id = change.add_image(&bytes)?;
        if let Some(reference) = options.reference {
            change.index.tag(reference, &id, now);
        }
        change.commit()?;
        Ok(id)
    }

    /// Gives the image that `source` means the name `target`; the image, and the one that had the name before.
    ///
    /// # Errors
    /// [`StoreError::Resolve`], and [`StoreError::TagWithDigest`] for a name with a digest.
    pub fn tag(
        &self,
        source: &str,
        target: ImageReference,
    ) -> Result<(ImageId, Option<ImageId>), StoreError> {
        if target.digest().is_some() {
            return Err(StoreError::TagWithDigest);
        }
        let mut change = self.change(Vec::new())?;
        let id = change.index.resolve(source)?;
        let displaced = change.index.tag(target, &id, Timestamp::now());
        change.commit()?;
        Ok((id, displaced))
    }

    /// The steps in which an image was made, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Resolve`].
    pub fn history(&self, text: &str) -> Result<Vec<ImageHistory>, StoreError> {
        let mut state = self.lock();
        let image = state.index.resolve(text)?;
        let config = self.config(&mut state, &image)?;
        let mut layers = config.rootfs.diff_ids.iter();
        let mut steps: Vec<_> = config
            .history
            .iter()
            .map(|entry| {
                let layer = if entry.empty_layer { None } else { layers.next() };
                ImageHistory {
                    id: None,
                    created: entry.created,
                    created_by: entry.created_by.clone(),
                    tags: Vec::new(),
                    size: layer.and_then(|layer| state.layers.get(layer)).map_or(0, |layer| layer.size),
                    comment: entry.comment.clone(),
                }
            })
            .collect();
        steps.reverse();
        // Images that were built here know their parents, step by step.
        let mut id = Some(image);
        for step in &mut steps {
            let Some(current) = id else { break };
            let names = state.index.references_of(&current).into_iter();
            step.tags = names.filter(|name| name.digest().is_none()).map(|name| name.familiar()).collect();
            id = state.index.images.get(&current).and_then(|entry| entry.parent.clone());
            step.id = Some(current);
        }
        Ok(steps)
    }
}
