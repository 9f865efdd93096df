//! `docker images`: which ones are shown, and what is said of each.

use std::collections::{BTreeMap, HashMap, HashSet};

use dory_store::Image;
use dory_types::{Digest, ImageId, ImageReference, Timestamp};

use super::{ImageSummary, signed, store_error};
use crate::Result;
use crate::container::prune_until;
use crate::engine::Inner;
use crate::filters::Filters;

/// How many images have each layer together with all below it, which is what dockerd counts as one layer.
type Shares = HashMap<Digest, usize>;

impl Inner {
    /// The images that are shown, newest first.
    pub(super) fn list_images(
        &self,
        filters: &Filters,
        all: bool,
        shared_size: bool,
    ) -> Result<Vec<ImageSummary>> {
        let dangling = filters.boolean("dangling")?;
        let created = |name: &str| -> Result<Option<Timestamp>> {
            let reference = filters.get(name).first();
            let image =
                reference.map(|reference| self.store.image(reference).map_err(store_error)).transpose()?;
            Ok(image.map(|image| image.config.created.unwrap_or_default()))
        };
        let (before, since) = (created("before")?, created("since")?);
        let until = prune_until(filters)?;
        let mut images = self.store.images().map_err(store_error)?;
        let shares = shared_size.then(|| shares(&images));
        let parents: HashSet<ImageId> = images.iter().filter_map(|image| image.parent.clone()).collect();
        images.retain(|image| {
            let created = image.config.created.unwrap_or_default();
            let is_shown = !image.references.is_empty() || all || !parents.contains(&image.id);
            is_shown
                && dangling.is_none_or(|dangling| fits_dangling(image, dangling))
                && before.is_none_or(|before| created < before)
                && since.is_none_or(|since| created > since)
                && until.is_none_or(|until| created < until)
                && filters.labels("label", &image.config.config.labels)
                && filters.any("reference", |pattern| {
                    image.references.iter().any(|name| matches_reference(pattern, name))
                })
        });
        images.sort_by(|one, other| {
            other.config.created.cmp(&one.config.created).then_with(|| one.id.cmp(&other.id))
        });
        if filters.contains("reference") {
            // Of each image only the names that were asked for are shown.
            let wanted =
                |name: &ImageReference| filters.any("reference", |pattern| matches_reference(pattern, name));
            images.iter_mut().for_each(|image| image.references.retain(wanted));
        }
        Ok(images.iter().map(|image| self.image_summary(image, shares.as_ref())).collect())
    }

    /// All images as `docker system df` counts them.
    pub(crate) fn counted_images(&self, images: &[Image]) -> Vec<ImageSummary> {
        let shares = shares(images);
        images.iter().map(|image| self.image_summary(image, Some(&shares))).collect()
    }

    /// What is said of an image; shared bytes and containers are counted where `shares` is there.
    fn image_summary(&self, image: &Image, shares: Option<&Shares>) -> ImageSummary {
        let labels: &BTreeMap<String, String> = &image.config.config.labels;
        ImageSummary {
            id: format!("sha256:{}", image.id),
            parent_id: image.parent.as_ref().map(|parent| format!("sha256:{parent}")).unwrap_or_default(),
            repo_tags: image.repo_tags(),
            repo_digests: image.repo_digests(),
            created: image.config.created.map_or(0, |created| created.unix_seconds()),
            size: signed(image.size),
            shared_size: shares.map_or(-1, |shares| signed(self.shared_size(image, shares))),
            labels: Some(labels.clone()).filter(|labels| !labels.is_empty()),
            containers: shares.map_or(-1, |_| self.image_users(&image.id).len() as i64),
        }
    }

    /// The bytes of an image's layers that other images have too.
    fn shared_size(&self, image: &Image, shares: &Shares) -> u64 {
        let layers = image.config.rootfs.diff_ids.iter().zip(image.config.chain_ids());
        let shared = layers.filter(|(_, chain)| shares.get(chain).is_some_and(|count| *count > 1));
        shared.filter_map(|(layer, _)| self.store.layer(layer)).map(|layer| layer.size).sum()
    }
}

/// Counts the images that have each layer.
fn shares(images: &[Image]) -> Shares {
    let mut shares = Shares::new();
    for chain in images.iter().flat_map(|image| image.config.chain_ids()) {
        *shares.entry(chain).or_default() += 1;
    }
    shares
}

/// moby `daemon/images/images.go`: an image with a digest and no tag counts as both.
fn fits_dangling(image: &Image, dangling: bool) -> bool {
    let is_tagged = image.references.iter().any(|name| name.digest().is_none());
    if dangling { !is_tagged } else { !image.references.is_empty() }
}

/// dockerd's `reference` filter: a shell pattern over the short name, with or without tag.
fn matches_reference(pattern: &str, name: &ImageReference) -> bool {
    let familiar = name.familiar();
    let repository = name.repository().familiar();
    glob(pattern.as_bytes(), familiar.as_bytes()) || glob(pattern.as_bytes(), repository.as_bytes())
}

/// `*` (not across `/`) and `?`, as Go's `path.Match` has them.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            glob(&pattern[1..], text)
                || text.first().is_some_and(|byte| *byte != b'/') && glob(pattern, &text[1..])
        }
        (Some(b'?'), Some(byte)) if *byte != b'/' => glob(&pattern[1..], &text[1..]),
        (Some(expected), Some(byte)) if expected == byte => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_patterns() {
        for (pattern, text, matches) in [
            ("busy*", "busybox:latest", true),
            ("*/app", "me/app", true),
            ("*", "me/app", false),
            ("busybox:?", "busybox:1", true),
            ("busybox", "busybox", true),
            ("busybox", "busybox:1", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
        let name: ImageReference = "busybox:1".parse().unwrap();
        assert!(matches_reference("busybox", &name) && matches_reference("b*:1", &name));
        assert!(!matches_reference("alpine", &name));
    }
}
