//! Media types of manifests and blobs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A media type, as a descriptor or a `Content-Type` states it, without parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaType(String);

impl MediaType {
    /// OCI image-spec, manifest.md.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image-spec, image-index.md.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image-spec, config.md.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI image-spec, layer.md.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// Distribution, manifest-v2-2.md.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Distribution, manifest-v2-2.md.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Distribution, manifest-v2-2.md.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Distribution, manifest-v2-2.md.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    /// What a manifest's request accepts, the preferred one first.
    pub(crate) const ACCEPTED: [&str; 4] =
        [Self::OCI_INDEX, Self::DOCKER_INDEX, Self::OCI_MANIFEST, Self::DOCKER_MANIFEST];

    /// The type that `text` states, whatever parameters follow it.
    pub fn new(text: &str) -> Self {
        Self(text.split(';').next().unwrap_or_default().trim().to_owned())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An index of either family.
    pub fn is_index(&self) -> bool {
        matches!(self.0.as_str(), Self::OCI_INDEX | Self::DOCKER_INDEX)
    }

    /// An image's manifest of either family.
    pub fn is_manifest(&self) -> bool {
        matches!(self.0.as_str(), Self::OCI_MANIFEST | Self::DOCKER_MANIFEST)
    }

    /// The manifest of Docker's first schema.
    pub(crate) fn is_schema_one(&self) -> bool {
        self.0.starts_with("application/vnd.docker.distribution.manifest.v1+")
    }

    /// The configuration of a container image, of either family; older tools stated none.
    pub fn is_image_config(&self) -> bool {
        matches!(self.0.as_str(), "" | Self::OCI_CONFIG | Self::DOCKER_CONFIG | "application/octet-stream")
    }

    /// A layer that must not be distributed, and lies elsewhere: such as Windows' base layers.
    pub fn is_foreign_layer(&self) -> bool {
        self.0.contains(".foreign.") || self.0.contains(".nondistributable.")
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<&str> for MediaType {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}
