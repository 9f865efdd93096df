//! Manifests and indexes: OCI image-spec 1.1 and Docker's schema 2, which differ in their media types only.
//!
//! Parsing takes bytes whose digest somebody has checked, and never trusts the media type alone: a document that could
//! be read as both kinds is refused, as one digest must not mean two images (CVE-2021-41190).

mod document;
mod media_type;
mod platform;
mod write;

pub use document::{Descriptor, Document, ImageManifest, Index, IndexEntry};
pub use media_type::MediaType;
pub use platform::Platform;
pub use write::write_manifest;

/// The largest manifest that is accepted, in bytes; distribution's own bound for what a client may put.
pub(crate) const MANIFEST_LENGTH_MAX: u64 = 4 << 20;
/// The most layers of an image: overlayfs takes 500 lower directories (fs/overlayfs/params.c, `OVL_MAX_STACK`).
pub(crate) const LAYERS_MAX: usize = 500;

/// A manifest, an index or a platform is not one.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not JSON of the right shape.
    #[error("malformed manifest")]
    Malformed(#[source] serde_json::Error),
    /// The document has the members of an index and those of an image's manifest.
    #[error("ambiguous manifest: it has both `manifests` and `layers`")]
    Ambiguous,
    /// The document says that it is of another kind than it has the members of.
    #[error("media type `{stated}` does not belong to {found}")]
    WrongMediaType {
        /// What was stated.
        stated: String,
        /// What the members are those of.
        found: &'static str,
    },
    /// Docker's first schema, which has no content digests for its layers.
    #[error("the manifest has the obsolete schema version 1, which is not supported: push the image again")]
    SchemaOne,
    /// The document is neither an index nor a manifest.
    #[error("unsupported manifest: neither `manifests` nor `config` and `layers` are there")]
    Unsupported,
    /// More layers than an image can have.
    #[error("too many layers: {count}, of at most {LAYERS_MAX}")]
    TooManyLayers {
        /// How many.
        count: usize,
    },
    /// No entry of an index fits.
    #[error("no matching manifest for {platform} in the manifest list entries")]
    NoMatch {
        /// What was looked for.
        platform: Platform,
    },
    /// The text is no platform.
    #[error("invalid platform `{0}`: OS/ARCHITECTURE[/VARIANT] is needed")]
    Platform(String),
}
