//! An image whose layers came one by one: pulled, committed or built.

use std::collections::HashSet;
use std::sync::Arc;

use dory_types::{Digest, ImageId, ImageReference, Timestamp};

use super::LoadedImage;
use super::archive::check_layer_count;
use crate::error::StoreError;
use crate::store::{LayerLease, Store, parse_config};

/// An image to take in.
#[derive(Debug)]
pub struct NewImage<'a> {
    /// The configuration's bytes, whose digest is the image's id.
    pub config: &'a [u8],
    /// The layers that the configuration names, in any order; the image keeps them from here on.
    pub layers: Vec<LayerLease>,
    /// The names that it gets: tags, and digests of manifests (`RepoDigests`).
    pub references: &'a [ImageReference],
    /// The image that it was made from here.
    pub parent: Option<ImageId>,
}

impl Store {
    /// Takes an image and its names in, when the disk has all of its layers: what this returned survives a power cut.
    ///
    /// # Errors
    /// [`StoreError::Config`] and [`StoreError::Layers`] for a configuration that is none or names other layers, others
    /// for the disk's troubles; nothing is left then but what other images have.
    pub fn add_image(self: &Arc<Self>, image: NewImage<'_>) -> Result<LoadedImage, StoreError> {
        let NewImage { config, layers, references, parent } = image;
        let needed = parse_config(config)?.rootfs.diff_ids;
        check_layer_count(&needed)?;
        let have: HashSet<Digest> = layers.iter().map(LayerLease::diff_id).collect();
        if needed.iter().any(|layer| !have.contains(layer)) {
            return Err(StoreError::Layers { image: Digest::of(config) });
        }
        let mut change = self.change(layers)?;
        let id = change.add_image(config)?;
        if let Some(entry) = change.index.images.get_mut(&id)
            && entry.parent.is_none()
        {
            entry.parent = parent.filter(|parent| *parent != id);
        }
        let now = Timestamp::now();
        let mut displaced = Vec::new();
        for reference in references {
            let previous = change.index.tag(reference.clone(), &id, now);
            displaced.extend(previous.map(|previous| (reference.clone(), previous)));
        }
        change.commit()?;
        Ok(LoadedImage { id, references: references.to_vec(), displaced })
    }

    /// Leases of an image's layers, the lowest first: they stay as long as the leases do, whatever becomes of the image.
    ///
    /// # Errors
    /// [`StoreError::Resolve`], and [`StoreError::MissingLayer`] where the store is damaged.
    pub fn lease_layers(self: &Arc<Self>, image: &ImageId) -> Result<Vec<LayerLease>, StoreError> {
        let layers = self.image(image.as_str())?.config.rootfs.diff_ids.clone();
        let lease = |layer: Digest| {
            self.lease_layer(&layer).ok_or_else(|| StoreError::MissingLayer { image: image.clone(), layer })
        };
        layers.into_iter().map(lease).collect()
    }
}
