//! `--mount`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_zero;

/// API 1.51, `Mount`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountSpec {
    /// `bind`, `volume`, `tmpfs` (`npipe`, `cluster` and `image` are refused).
    #[serde(rename = "Type")]
    pub kind: String,
    /// Host path or volume name.
    #[serde(skip_serializing_if = "is_zero")]
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Read-only.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only: bool,
    /// Accepted and unused, as on Linux dockerd.
    #[serde(skip_serializing_if = "is_zero")]
    pub consistency: String,
    /// For `bind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// For `volume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// For `image`, which is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_options: Option<ImageOptions>,
    /// For `tmpfs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

/// API 1.51, `Mount.BindOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// `private`, `rprivate`, `shared`, `rshared`, `slave`, `rslave`; empty means `rprivate`.
    #[serde(skip_serializing_if = "is_zero")]
    pub propagation: String,
    /// Leave the mounts below the source out.
    #[serde(skip_serializing_if = "is_zero")]
    pub non_recursive: bool,
    /// Make a missing source.
    #[serde(skip_serializing_if = "is_zero")]
    pub create_mountpoint: bool,
    /// `ReadOnly` covers the top mount only.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only_non_recursive: bool,
    /// `ReadOnly` must cover the mounts below too.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only_force_recursive: bool,
    /// What is mounted below the source; links in it lead nowhere outside of the source. Dory's own, named like that of
    /// `VolumeOptions`: guarded sockets translate paths of containers with it.
    #[serde(skip_serializing_if = "is_zero")]
    pub subpath: String,
}

/// API 1.51, `Mount.VolumeOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// Do not fill an empty volume from the image.
    #[serde(skip_serializing_if = "is_zero")]
    pub no_copy: bool,
    /// Labels of a volume made for this.
    #[serde(skip_serializing_if = "is_zero")]
    pub labels: BTreeMap<String, String>,
    /// A directory in the volume.
    #[serde(skip_serializing_if = "is_zero")]
    pub subpath: String,
    /// Driver of a volume made for this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<DriverConfig>,
}

/// API 1.51, `Mount.VolumeOptions.DriverConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverConfig {
    /// Driver; empty means `local`.
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "is_zero")]
    pub options: BTreeMap<String, String>,
}

/// API 1.51, `Mount.ImageOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageOptions {
    /// A directory in the image.
    #[serde(skip_serializing_if = "is_zero")]
    pub subpath: String,
}

/// API 1.51, `Mount.TmpfsOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// Bytes; 0 is the kernel's default.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: i64,
    /// Permission bits; 0 means 1777.
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: u32,
    /// `[["noexec"], ["uid", "1000"]]`.
    #[serde(skip_serializing_if = "is_zero")]
    pub options: Vec<Vec<String>>,
}
