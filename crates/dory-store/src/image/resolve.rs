//! From what people type to an image.

use std::sync::Arc;

use dory_types::{Digest, ImageId, ImageReference, Timestamp};

use super::{ImageConfig, ImageIndex};
use crate::error::StoreErrorKind;

/// No image, or more than one, has the given name or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Nothing has that name; dockerd's message.
    #[error("No such image: {0}")]
    NotFound(String),
    /// No image has the name with that tag; dockerd's message where it saves images.
    #[error("reference does not exist")]
    NoReference,
    /// Several images have ids that begin so.
    #[error("image id prefix `{0}` is ambiguous: more than one image has it")]
    Ambiguous(String),
    /// The text is neither a name nor an id.
    #[error(transparent)]
    Reference(#[from] dory_types::ReferenceError),
}

impl ResolveError {
    /// How the error is to be answered.
    pub(crate) fn kind(&self) -> StoreErrorKind {
        match self {
            Self::NotFound(_) | Self::NoReference => StoreErrorKind::NotFound,
            Self::Ambiguous(_) | Self::Reference(_) => StoreErrorKind::InvalidParameter,
        }
    }
}

/// An image with everything that answers about it need.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of the configuration's bytes.
    pub id: ImageId,
    /// The configuration.
    pub config: Arc<ImageConfig>,
    /// Names with tags and with digests.
    pub references: Vec<ImageReference>,
    /// The sum of its layers' sizes, in bytes.
    pub size: u64,
    /// When a name was last given to it; [`Timestamp::ZERO`] where never.
    pub last_tagged: Timestamp,
    /// The image that it was built from here.
    pub parent: Option<ImageId>,
}

impl Image {
    /// The names that have a tag, in their short form: `RepoTags`.
    pub fn repo_tags(&self) -> Vec<String> {
        self.references.iter().filter(|name| name.digest().is_none()).map(ImageReference::familiar).collect()
    }

    /// The names that have a digest, in their short form: `RepoDigests`.
    pub fn repo_digests(&self) -> Vec<String> {
        self.references.iter().filter(|name| name.digest().is_some()).map(ImageReference::familiar).collect()
    }
}

impl ImageIndex {
    /// The image that `text` means: a full id with or without `sha256:`, a name, or the start of an id, in this order.
    pub(crate) fn resolve(&self, text: &str) -> Result<ImageId, ResolveError> {
        let full = text.parse::<Digest>().or_else(|_| Digest::from_hex(text));
        if let Ok(digest) = full {
            let id = ImageId::from(digest);
            return match self.images.contains_key(&id) {
                true => Ok(id),
                false => Err(ResolveError::NotFound(digest.to_string())),
            };
        }
        let name = text.parse::<ImageReference>();
        if let Ok(reference) = &name
            && let Some(id) = self.references.get(reference).or_else(|| self.pinned(reference))
        {
            return Ok(id.clone());
        }
        if let Some(id) = self.by_prefix(text)? {
            return Ok(id);
        }
        Err(ResolveError::NotFound(name?.familiar()))
    }

    /// A name with a tag and a digest means what the digest means in that repository.
    fn pinned(&self, reference: &ImageReference) -> Option<&ImageId> {
        let digest = reference.digest()?;
        self.references.get(&ImageReference::digested(reference.repository().clone(), *digest))
    }

    /// The one image whose id starts with `text`.
    fn by_prefix(&self, text: &str) -> Result<Option<ImageId>, ResolveError> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty() || !prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let mut matching = self.images.keys().filter(|id| id.as_str().starts_with(prefix));
        let first = matching.next().cloned();
        if matching.next().is_some() {
            return Err(ResolveError::Ambiguous(text.to_owned()));
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageEntry;

    #[test]
    fn names_ids_and_prefixes() {
        let mut index = ImageIndex::default();
        let ids = ["a1", "a2", "bc"].map(|start| format!("{start:0<64}").parse::<ImageId>().unwrap());
        for id in &ids {
            index.images.insert(id.clone(), ImageEntry::default());
        }
        index.tag("bc".parse().unwrap(), &ids[0], Timestamp::now());
        let digest = Digest::of(b"manifest");
        let pinned = ImageReference::digested("bc".parse().unwrap(), digest);
        index.tag(pinned, &ids[1], Timestamp::now());
        let cases = [
            ("bc", Ok(0)),
            ("docker.io/library/bc:latest", Ok(0)),
            (&format!("bc:other@{digest}"), Ok(1)),
            ("a1", Ok(0)),
            ("sha256:a2", Ok(1)),
            ("bc0", Ok(2)),
            (ids[2].as_str(), Ok(2)),
            (&format!("sha256:{}", ids[1]), Ok(1)),
            ("a", Err("image id prefix `a` is ambiguous: more than one image has it".to_owned())),
            ("bc:2", Err("No such image: bc:2".to_owned())),
            ("nothing", Err("No such image: nothing:latest".to_owned())),
            (
                "NO",
                Err("invalid reference format: repository name (library/NO) must be lowercase".to_owned()),
            ),
            (&"f".repeat(64), Err(format!("No such image: sha256:{}", "f".repeat(64)))),
        ];
        for (text, expected) in cases {
            let result = index.resolve(text).map_err(|error| error.to_string());
            assert_eq!(result, expected.map(|position: usize| ids[position].clone()), "{text}");
        }
    }
}
