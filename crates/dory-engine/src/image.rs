//! Images: what the API says of them.

use std::collections::BTreeMap;

use dory_types::Timestamp;
use serde::Serialize;

use crate::config::ContainerConfig;
use crate::container::GraphDriver;

/// One image that `load` brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// `Loaded image: busybox:latest` or `Loaded image ID: sha256:...`.
    pub message: String,
}

/// `POST /images/create?fromSrc=…`.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// `repo`, may carry the tag.
    pub repository: String,
    /// `tag`.
    pub tag: String,
    /// `message`.
    pub message: String,
    /// `changes`: Dockerfile instructions (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR).
    pub changes: Vec<String>,
    /// `platform`.
    pub platform: String,
}

/// API 1.51, `ImageSummary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageSummary {
    /// With `sha256:`.
    pub id: String,
    /// Empty: builds keep no parents.
    pub parent_id: String,
    /// `busybox:latest`...
    pub repo_tags: Vec<String>,
    /// `busybox@sha256:...`...
    pub repo_digests: Vec<String>,
    /// Seconds since 1970.
    pub created: i64,
    /// Bytes.
    pub size: i64,
    /// Bytes shared with other images; -1 where not asked for.
    pub shared_size: i64,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Containers of it; -1 where not asked for.
    pub containers: i64,
}

/// API 1.51, `ImageInspect`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageDetails {
    /// With `sha256:`.
    pub id: String,
    /// `busybox:latest`...
    pub repo_tags: Vec<String>,
    /// `busybox@sha256:...`...
    pub repo_digests: Vec<String>,
    /// Empty.
    pub parent: String,
    /// From the image.
    pub comment: String,
    /// When it was built; empty where the image does not say.
    pub created: String,
    /// Of the classic builder.
    pub docker_version: String,
    /// From the image.
    pub author: String,
    /// The image's configuration for containers.
    pub config: ContainerConfig,
    /// `amd64`...
    pub architecture: String,
    /// `v8`...
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// `linux`.
    pub os: String,
    /// Bytes.
    pub size: i64,
    /// Where the layers lie.
    pub graph_driver: GraphDriver,
    /// The layers.
    #[serde(rename = "RootFS")]
    pub root_fs: ImageRootFs,
    /// Engine's facts.
    pub metadata: ImageMetadata,
}

/// API 1.51, `ImageInspect.RootFS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageRootFs {
    /// `layers`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    pub layers: Vec<String>,
}

/// API 1.51, `ImageInspect.Metadata`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageMetadata {
    /// When it got its last tag.
    pub last_tag_time: Timestamp,
}

/// API 1.51, `ImageHistoryResponseItem`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageHistoryEntry {
    /// Id of the newest, `<missing>` for the others.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// The instruction.
    pub created_by: String,
    /// Tags of the newest.
    pub tags: Option<Vec<String>>,
    /// Bytes of its layer.
    pub size: i64,
    /// Comment.
    pub comment: String,
}

/// API 1.51, `ImageDeleteResponseItem`: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub enum ImageDeletion {
    /// A name that no longer points to it.
    Untagged(String),
    /// The image itself.
    Deleted(String),
}

/// API 1.51, the answer of `POST /images/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrunedImages {
    /// Which.
    pub images_deleted: Option<Vec<ImageDeletion>>,
    /// Bytes.
    pub space_reclaimed: u64,
}
