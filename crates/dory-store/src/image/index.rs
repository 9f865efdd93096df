//! `images.json`: which images there are, and which names mean them.

use std::collections::{BTreeMap, BTreeSet};

use dory_types::{Digest, ImageId, ImageReference, Timestamp};
use serde::{Deserialize, Serialize};

/// What is known of an image beside its configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageEntry {
    /// When a name was last given to it.
    #[serde(default)]
    pub(crate) last_tagged: Timestamp,
    /// Its layers' diff-ids, the lowest first, so that nobody has to read configurations to know what is in use.
    #[serde(default)]
    pub(crate) layers: Vec<Digest>,
    /// The image that it was built from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<ImageId>,
    /// True for a lower store's image that nobody has asked for here: its layers stay only as long as its owner likes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) adopted: bool,
}

/// All images and names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageIndex {
    pub(crate) images: BTreeMap<ImageId, ImageEntry>,
    pub(crate) references: BTreeMap<ImageReference, ImageId>,
    /// Lower stores' images that were here once, so that one which was removed here stays away.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) adopted: BTreeSet<ImageId>,
}

impl ImageIndex {
    /// The record's file name.
    pub(crate) const RECORD: &str = "images.json";

    /// The names of `id`, in the order of their texts.
    pub(crate) fn references_of(&self, id: &ImageId) -> Vec<ImageReference> {
        let mine = self.references.iter().filter(|(_, image)| *image == id);
        let mut references: Vec<_> = mine.map(|(reference, _)| reference.clone()).collect();
        // A repository's tags come before its digests.
        references.sort_by_cached_key(ImageReference::to_string);
        references
    }

    /// Takes an adopted image out as if it had never been here.
    pub(crate) fn forget(&mut self, id: &ImageId) {
        self.images.remove(id);
        self.adopted.remove(id);
        self.references.retain(|_, image| image != id);
    }

    /// Lets `reference` mean `id` because somebody asked for it `now`; the image that it meant before, where that is
    /// another one.
    pub(crate) fn tag(&mut self, reference: ImageReference, id: &ImageId, now: Timestamp) -> Option<ImageId> {
        if let Some(entry) = self.images.get_mut(id) {
            entry.last_tagged = now;
            entry.adopted = false;
        }
        self.set_reference(reference, id)
    }

    /// Lets `reference` mean `id` because an archive says so, which dockerd does not count as tagging.
    pub(crate) fn set_reference(&mut self, reference: ImageReference, id: &ImageId) -> Option<ImageId> {
        self.references.insert(reference, id.clone()).filter(|previous| previous != id)
    }
}
