//! The document that says what a cache has, in BuildKit's form (moby/buildkit, `cache/remotecache/v1/spec.go`).

use dory_types::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// Media type of the document.
pub(super) const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// The member of an image's configuration that has the document, in base64.
pub(crate) const INLINE: &str = "moby.buildkit.cache.v0";
/// Layer that lies on none.
const NO_PARENT: i64 = -1;

/// What a cache has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheConfig {
    #[serde(default)]
    pub(super) layers: Vec<CacheLayer>,
    #[serde(default)]
    pub(super) records: Vec<CacheRecord>,
}

/// A layer of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheLayer {
    /// As which blob; not known where the image itself has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) blob: Option<Digest>,
    /// Each stands for itself.
    #[serde(default)]
    pub(super) parent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<LayerAnnotations>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerAnnotations {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) media_type: String,
    #[serde(default, rename = "diffID", skip_serializing_if = "Option::is_none")]
    pub(super) diff_id: Option<Digest>,
    #[serde(default)]
    pub(super) size: u64,
}

/// What came of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheRecord {
    /// The layers; none where nothing had to be changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "layers")]
    pub(super) results: Vec<CacheResult>,
    /// The key.
    pub(super) digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CacheResult {
    pub(super) layer: usize,
    pub(super) created_at: Timestamp,
}

impl CacheLayer {
    pub(super) fn new(blob: Option<Digest>, media_type: &str, diff_id: Digest, size: u64) -> Self {
        let annotations =
            Some(LayerAnnotations { media_type: media_type.to_owned(), diff_id: Some(diff_id), size });
        Self { blob, parent: NO_PARENT, annotations }
    }

    pub(super) fn diff_id(&self) -> Option<Digest> {
        self.annotations.as_ref().and_then(|annotations| annotations.diff_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_buildkits_form() {
        let (blob, diff_id) = (Digest::of(b"blob"), Digest::of(b"layer"));
        let config = CacheConfig {
            layers: vec![CacheLayer::new(Some(blob), "type", diff_id, 3)],
            records: vec![CacheRecord {
                results: vec![CacheResult { layer: 0, created_at: Timestamp::default() }],
                digest: Digest::of(b"key"),
            }],
        };
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(json["layers"][0]["annotations"]["diffID"], diff_id.to_string());
        assert_eq!(json["layers"][0]["parent"], -1);
        assert_eq!(json["records"][0]["layers"][0]["layer"], 0);
        assert_eq!(serde_json::from_value::<CacheConfig>(json).unwrap(), config);
        // BuildKit's own have inputs, which are nothing to us.
        let theirs = format!(
            "{{\"layers\":[{{\"blob\":\"{blob}\"}}],\"records\":[{{\"digest\":\"{blob}\",\"inputs\":[[{{\"link\":0}}]]}}]}}"
        );
        let read: CacheConfig = serde_json::from_str(&theirs).unwrap();
        assert!(read.records[0].results.is_empty());
    }
}
