//! The documents themselves.

use std::collections::BTreeMap;

use dory_types::Digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{LAYERS_MAX, ManifestError, MediaType, Platform};

/// What a blob or a manifest is: OCI image-spec, descriptor.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Of what kind.
    #[serde(default)]
    pub media_type: MediaType,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Where else it can be had: for layers that must not be distributed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What else is said about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The descriptor of `content`.
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self::new(media_type, Digest::of(content), content.len() as u64)
    }

    /// A descriptor with no more than it must have.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let media_type = MediaType::new(media_type);
        Self { media_type, digest, size, urls: Vec::new(), annotations: BTreeMap::new() }
    }
}

/// An image's manifest: OCI image-spec, manifest.md; distribution, manifest-v2-2.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// 2.
    pub schema_version: u32,
    /// Of which family; empty where the document does not say.
    #[serde(default, skip_serializing_if = "is_unstated")]
    pub media_type: MediaType,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

fn is_unstated(media_type: &MediaType) -> bool {
    media_type.as_str().is_empty()
}

/// Manifests for several platforms: OCI image-spec, image-index.md; distribution, manifest-v2-2.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Of which family; empty where the document does not say.
    #[serde(default, skip_serializing_if = "is_unstated")]
    pub media_type: MediaType,
    /// The entries, the preferred ones first.
    pub manifests: Vec<IndexEntry>,
}

/// One of an index's manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The manifest.
    #[serde(flatten)]
    pub target: Descriptor,
    /// For which machines it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl IndexEntry {
    /// True for what BuildKit adds about an image's making, which is no image.
    pub fn is_attestation(&self) -> bool {
        self.target.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    }
}

/// An index or a manifest, by what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Manifests for several platforms.
    Index(Index),
    /// An image.
    Manifest(ImageManifest),
}

/// Which members a document has, whatever is in them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'a> {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: MediaType,
    #[serde(borrow)]
    manifests: Option<&'a RawValue>,
    #[serde(borrow)]
    layers: Option<&'a RawValue>,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    #[serde(borrow)]
    fs_layers: Option<&'a RawValue>,
}

impl Document {
    /// Reads `bytes`, which the registry announced as `content_type`; empty where it announced nothing.
    ///
    /// # Errors
    /// Every variant of [`ManifestError`] but those of platforms.
    pub fn parse(bytes: &[u8], content_type: &MediaType) -> Result<Self, ManifestError> {
        let shape: Shape<'_> = serde_json::from_slice(bytes).map_err(ManifestError::Malformed)?;
        if shape.fs_layers.is_some() || shape.schema_version == 1 || content_type.is_schema_one() {
            return Err(ManifestError::SchemaOne);
        }
        let stated = [content_type, &shape.media_type];
        match shape {
            Shape { manifests: Some(_), layers: None, config: None, .. } => {
                refuse(&stated, MediaType::is_manifest, "an index")?;
                serde_json::from_slice(bytes).map(Self::Index).map_err(ManifestError::Malformed)
            }
            Shape { manifests: Some(_), .. } => Err(ManifestError::Ambiguous),
            Shape { config: Some(_), layers: Some(layers), .. } => {
                refuse(&stated, MediaType::is_index, "an image's manifest")?;
                // Counted before any of them is kept.
                let count = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(layers.get())
                    .map_or(0, |all| all.len());
                if count > LAYERS_MAX {
                    return Err(ManifestError::TooManyLayers { count });
                }
                serde_json::from_slice(bytes).map(Self::Manifest).map_err(ManifestError::Malformed)
            }
            _ => Err(ManifestError::Unsupported),
        }
    }

    /// Its type: its own word, else the registry's where that is one, else OCI's.
    pub fn media_type(&self, content_type: &MediaType) -> MediaType {
        let (own, fits, otherwise): (_, fn(&MediaType) -> bool, _) = match self {
            Self::Index(index) => (&index.media_type, MediaType::is_index, MediaType::OCI_INDEX),
            Self::Manifest(manifest) => {
                (&manifest.media_type, MediaType::is_manifest, MediaType::OCI_MANIFEST)
            }
        };
        let found = [own, content_type].into_iter().find(|media_type| fits(media_type));
        found.cloned().unwrap_or_else(|| MediaType::new(otherwise))
    }
}

/// Refuses a stated type that belongs to the other kind of document.
fn refuse(
    stated: &[&MediaType],
    contradicts: fn(&MediaType) -> bool,
    found: &'static str,
) -> Result<(), ManifestError> {
    match stated.iter().find(|stated| contradicts(stated)) {
        Some(stated) => Err(ManifestError::WrongMediaType { stated: stated.to_string(), found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(size: i64) -> serde_json::Value {
        serde_json::json!({"mediaType": "x", "size": size, "digest": format!("sha256:{}", "0".repeat(64))})
    }

    fn parse(value: &serde_json::Value, content_type: &str) -> Result<Document, String> {
        Document::parse(&serde_json::to_vec(value).unwrap(), &content_type.into()).map_err(|error| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            format!("{error}{}", source.unwrap_or_default())
        })
    }

    #[test]
    fn tells_documents_apart_by_what_they_have() {
        let manifest =
            serde_json::json!({"schemaVersion": 2, "config": descriptor(1), "layers": [descriptor(2)]});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor(3)]});
        assert!(
            matches!(parse(&manifest, ""), Ok(Document::Manifest(manifest)) if manifest.layers[0].size == 2)
        );
        assert!(matches!(parse(&manifest, "application/json; charset=utf-8"), Ok(Document::Manifest(_))));
        assert!(
            matches!(parse(&index, MediaType::OCI_INDEX), Ok(Document::Index(index)) if index.manifests.len() == 1)
        );
        for (document, content_type, message) in [
            (&manifest, MediaType::OCI_INDEX, "does not belong to an image's manifest"),
            (&index, MediaType::DOCKER_MANIFEST, "does not belong to an index"),
            (&manifest, "application/vnd.docker.distribution.manifest.v1+prettyjws", "obsolete"),
        ] {
            let error = parse(document, content_type).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn refuses_what_is_not_clear() {
        let layers: Vec<_> = (0..100_000).map(|_| serde_json::json!(0)).collect();
        for (document, message) in [
            (serde_json::json!([]), "malformed"),
            (serde_json::json!({}), "unsupported manifest"),
            (serde_json::json!({"schemaVersion": 1}), "obsolete"),
            (serde_json::json!({"manifests": [], "layers": []}), "ambiguous"),
            (serde_json::json!({"manifests": [], "config": {}}), "ambiguous"),
            (
                serde_json::json!({"schemaVersion": 2, "config": {}, "layers": layers}),
                "too many layers: 100000",
            ),
            (
                serde_json::json!({"schemaVersion": 2, "config": descriptor(-1), "layers": []}),
                "malformed manifest: invalid value: integer `-1`",
            ),
            (
                serde_json::json!({"schemaVersion": 2, "config": {"digest": "sha512:00", "size": 1}, "layers": []}),
                "unsupported digest algorithm",
            ),
        ] {
            let error = parse(&document, "").unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
