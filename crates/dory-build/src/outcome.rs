//! What became of a build.

use std::collections::BTreeMap;

use dory_registry::Platform;
use dory_store::{ImageConfig, LayerLease};
use dory_types::{Digest, ImageId, Timestamp};

/// The result for one platform. Its layers stay in the store as long as this exists.
#[derive(Debug)]
pub struct PlatformResult {
    /// For which machine.
    pub platform: Platform,
    /// The image's configuration.
    pub config: ImageConfig,
    /// The same as bytes; their digest is the image's id.
    pub config_bytes: Vec<u8>,
    /// The image's id, whether or not the store has it as an image.
    pub id: ImageId,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerLease>,
}

/// What a build made.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One for each platform, in the request's order.
    pub results: Vec<PlatformResult>,
    /// The images that it began from or copied from, as the Dockerfile names them, and their digests where they are known.
    pub bases: Vec<(String, Option<Digest>)>,
    /// When it began.
    pub started: Timestamp,
    /// When all was made.
    pub finished: Timestamp,
    /// The digest of the manifest, or of the index of several, where an output made one.
    pub digest: Option<Digest>,
    /// What `--metadata-file` and BuildKit's exporter response say: `containerimage.digest`,
    /// `containerimage.config.digest`, `image.name`, ….
    pub metadata: BTreeMap<String, serde_json::Value>,
}
