//! Volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use dory_store::Volume;
use dory_types::{Timestamp, VolumeName};
use serde::{Deserialize, Serialize};

use crate::container::Record;
use crate::engine::{Engine, Inner, blocking};
use crate::filters::Filters;
use crate::image::store_error;
use crate::{EngineError, Result};

/// The only driver.
const DRIVER: &str = "local";

/// API 1.51, `VolumeCreateOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeCreate {
    /// Name; empty makes one up.
    pub name: String,
    /// Driver; empty means `local`, the only one.
    pub driver: String,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// API 1.51, `Volume.UsageData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeUsage {
    /// Bytes; -1 is unknown.
    pub size: i64,
    /// Containers that use it; -1 is unknown.
    pub ref_count: i64,
}

/// API 1.51, `Volume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeDetails {
    /// When it was made.
    pub created_at: String,
    /// `local`.
    pub driver: String,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its directory.
    pub mountpoint: String,
    /// Name.
    pub name: String,
    /// Options of the driver.
    pub options: Option<BTreeMap<String, String>>,
    /// `local`.
    pub scope: String,
    /// For `system df`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<VolumeUsage>,
}

/// API 1.51, `VolumeListResponse`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeList {
    /// Volumes.
    pub volumes: Vec<VolumeDetails>,
    /// Warnings.
    pub warnings: Option<Vec<String>>,
}

/// API 1.51, the answer of `POST /volumes/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrunedVolumes {
    /// Which.
    pub volumes_deleted: Option<Vec<String>>,
    /// Bytes.
    pub space_reclaimed: u64,
}

impl Engine {
    /// Makes a volume; one that exists is answered as it is.
    ///
    /// # Errors
    /// `Invalid` for a name or option that cannot be, `NotFound` for another driver than `local`.
    pub async fn create_volume(&self, request: VolumeCreate) -> Result<VolumeDetails> {
        let name = match request.name.as_str() {
            "" => None,
            name => Some(parse_name(name)?),
        };
        if !matches!(request.driver.as_str(), "" | DRIVER) {
            let driver = request.driver;
            return Err(EngineError::not_found(format!(
                "create {}: error looking up volume plugin {driver}: plugin \"{driver}\" not found",
                request.name
            )));
        }
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let existed = name.as_ref().is_some_and(|name| inner.store.volume(name).is_ok());
            let volume =
                inner.store.create_volume(name, request.labels, request.driver_opts).map_err(store_error)?;
            if !existed {
                inner.publish_volume("create", volume.name.as_str());
            }
            Ok(details(&volume))
        })
        .await
    }

    /// Everything about a volume.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn inspect_volume(&self, name: &str) -> Result<VolumeDetails> {
        let volume = self.inner.store.volume(&parse_existing(name)?).map_err(store_error)?;
        Ok(details(&volume))
    }

    /// The volumes that the filters choose.
    ///
    /// # Errors
    /// `Invalid` for a filter that makes no sense.
    pub async fn list_volumes(&self, filters: &Filters) -> Result<VolumeList> {
        filters.validate(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.boolean("dangling")?;
        let volumes = self.inner.store.volumes().into_iter().filter(|volume| {
            filters.exact("driver", DRIVER)
                && filters.labels("label", &volume.labels)
                && filters.any("name", |name| volume.name.as_str().contains(name.as_str()))
                && dangling
                    .is_none_or(|dangling| dangling == self.inner.volume_users(&volume.name).is_empty())
        });
        Ok(VolumeList { volumes: volumes.map(|volume| details(&volume)).collect(), warnings: None })
    }

    /// Removes a volume.
    ///
    /// # Errors
    /// `NotFound` unless `force`, `Conflict` where containers use it.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let (inner, name) = (Arc::clone(&self.inner), parse_existing(name)?);
        blocking(move || {
            let existed = inner.store.volume(&name).is_ok();
            inner.store.remove_volume(&name, force, &|name| inner.volume_users(name)).map_err(store_error)?;
            if existed {
                inner.publish_volume("destroy", name.as_str());
            }
            Ok(())
        })
        .await
    }

    /// Removes unused volumes: anonymous ones, or with `all=true` named ones too.
    ///
    /// # Errors
    /// `Invalid` for a filter that makes no sense.
    pub async fn prune_volumes(&self, filters: &Filters) -> Result<PrunedVolumes> {
        filters.validate(&["all", "label", "label!"])?;
        let all = filters.boolean("all")?.unwrap_or(false);
        let (inner, filters) = (Arc::clone(&self.inner), filters.clone());
        blocking(move || inner.prune_volumes(&filters, all)).await
    }
}

impl Inner {
    fn prune_volumes(&self, filters: &Filters, all: bool) -> Result<PrunedVolumes> {
        let mut pruned = PrunedVolumes::default();
        for volume in self.store.unused_volumes(&|name| self.volume_users(name)) {
            if !(all || volume.is_anonymous()) || !filters.prune_labels(&volume.labels) {
                continue;
            }
            let size = self.store.volume_size(&volume.name).unwrap_or(0);
            // One that a container took meanwhile simply stays.
            if self.store.remove_volume(&volume.name, false, &|name| self.volume_users(name)).is_err() {
                continue;
            }
            self.publish_volume("destroy", volume.name.as_str());
            pruned.space_reclaimed += size;
            pruned.volumes_deleted.get_or_insert_default().push(volume.name.as_str().to_owned());
        }
        let attributes = [("reclaimed".to_owned(), pruned.space_reclaimed.to_string())];
        self.events.publish("volume", "prune", "", attributes.into());
        Ok(pruned)
    }

    /// All volumes with what they take and who uses them.
    pub(crate) fn volume_usage(&self) -> Vec<VolumeDetails> {
        let usage = |volume: &Volume| {
            let size = self
                .store
                .volume_size(&volume.name)
                .map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
            let ref_count = self.volume_users(&volume.name).len() as i64;
            VolumeDetails { usage_data: Some(VolumeUsage { size, ref_count }), ..details(volume) }
        };
        self.store.volumes().iter().map(usage).collect()
    }

    /// Publishes that a container's volumes come into use, or go out of it.
    pub(crate) fn publish_mounts(&self, record: &Record, action: &str) {
        for point in record.points.iter().filter(|point| !point.volume.is_empty()) {
            let mut attributes = BTreeMap::from([
                ("container".to_owned(), record.id.to_string()),
                ("driver".to_owned(), DRIVER.to_owned()),
            ]);
            if action == "mount" {
                attributes.insert("destination".to_owned(), point.destination.clone());
                attributes.insert("propagation".to_owned(), point.propagation.clone());
                attributes.insert("read/write".to_owned(), point.writable.to_string());
            }
            self.events.publish("volume", action, &point.volume, attributes);
        }
    }

    /// Publishes an event of a volume.
    pub(crate) fn publish_volume(&self, action: &str, name: &str) {
        self.events.publish("volume", action, name, [("driver".to_owned(), DRIVER.to_owned())].into());
    }
}

fn parse_name(name: &str) -> Result<VolumeName> {
    name.parse().map_err(|error: dory_types::VolumeNameError| EngineError::invalid(error.to_string()))
}

/// What is no name cannot be a volume's.
fn parse_existing(name: &str) -> Result<VolumeName> {
    name.parse().map_err(|_| EngineError::not_found(format!("get {name}: no such volume")))
}

fn details(volume: &Volume) -> VolumeDetails {
    // dockerd prints whole seconds here.
    let created = Timestamp::from_unix(volume.created.unix_seconds(), 0).unwrap_or(volume.created);
    VolumeDetails {
        created_at: created.to_string(),
        driver: DRIVER.to_owned(),
        labels: Some(volume.labels.clone()).filter(|labels| !labels.is_empty()),
        mountpoint: volume.mountpoint.to_string_lossy().into_owned(),
        name: volume.name.as_str().to_owned(),
        options: Some(volume.options.clone()).filter(|options| !options.is_empty()),
        scope: "local".to_owned(),
        usage_data: None,
    }
}
