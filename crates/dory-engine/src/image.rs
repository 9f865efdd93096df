//! Images: what the API says of them.

mod list;
mod load;
mod platform;
mod save;
mod share;

pub use load::LoadOptions;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use dory_store::{ImagePlatform, ImageUser, Removed, RunConfig, StoreError, StoreErrorKind};
use dory_types::{ImageId, ImageReference, Timestamp};
use serde::Serialize;

use crate::config::{ContainerConfig, HealthConfig, StrSlice};
use crate::container::{GraphDriver, STORAGE_DRIVER, prune_until};
use crate::engine::{Engine, Inner, blocking};
use crate::filters::Filters;
use crate::{EngineError, ErrorKind, Result};

/// What `docker images --filter` knows.
const FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];

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
    /// The image that it was built from here.
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

/// The store's failure as the engine's; the client sees the whole chain.
pub(crate) fn store_error(error: StoreError) -> EngineError {
    let kind = match error.kind() {
        StoreErrorKind::NotFound => ErrorKind::NotFound,
        StoreErrorKind::Conflict => ErrorKind::Conflict,
        StoreErrorKind::InvalidParameter => ErrorKind::Invalid,
        StoreErrorKind::Internal => ErrorKind::Internal,
    };
    EngineError::new(kind, dory_types::with_causes(&error)).caused_by(error)
}

impl ImportOptions {
    /// The name that the image gets; checked before anything is read.
    pub(crate) fn validate(&self) -> Result<Option<ImageReference>> {
        crate::container::validate_platform(&self.platform)?;
        match self.repository.as_str() {
            "" => Ok(None),
            repository => parse_target(repository, &self.tag).map(Some),
        }
    }
}

impl Engine {
    /// Makes an image of a root filesystem's archive; answers its id with `sha256:`.
    ///
    /// # Errors
    /// `Invalid` for a broken archive, name or change; nothing is kept then.
    pub async fn import_image(
        &self,
        archive: impl Read + Send + 'static,
        options: ImportOptions,
    ) -> Result<String> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let reference = options.validate()?;
            let message = match options.message.as_str() {
                "" => "Imported from -".to_owned(),
                message => message.to_owned(),
            };
            let import = dory_store::ImportOptions {
                reference,
                changes: options.changes,
                message,
                platform: ImagePlatform::current(),
            };
            let id = inner.store.import(archive, import).map_err(store_error)?;
            let text = format!("sha256:{id}");
            inner.publish_image("import", &id, &text);
            Ok(text)
        })
        .await
    }

    /// The images that the filters choose, newest first; with `all` also nameless ones that others were built from.
    ///
    /// # Errors
    /// `Invalid` for a filter that makes no sense.
    pub async fn list_images(
        &self,
        filters: &Filters,
        all: bool,
        shared_size: bool,
    ) -> Result<Vec<ImageSummary>> {
        filters.validate(FILTERS)?;
        let (inner, filters) = (Arc::clone(&self.inner), filters.clone());
        blocking(move || inner.list_images(&filters, all, shared_size)).await
    }

    /// Everything about an image.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn inspect_image(&self, reference: &str) -> Result<ImageDetails> {
        let (inner, reference) = (Arc::clone(&self.inner), reference.to_owned());
        blocking(move || inner.image_details(&reference)).await
    }

    /// The steps in which an image was made, newest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image_history(&self, reference: &str) -> Result<Vec<ImageHistoryEntry>> {
        let (inner, reference) = (Arc::clone(&self.inner), reference.to_owned());
        blocking(move || {
            let steps = inner.store.history(&reference).map_err(store_error)?;
            let entry = |step: dory_store::ImageHistory| ImageHistoryEntry {
                id: step.id.map_or_else(|| "<missing>".to_owned(), |id| format!("sha256:{id}")),
                created: step.created.map_or(0, |created| created.unix_seconds()),
                created_by: step.created_by,
                tags: Some(step.tags).filter(|tags| !tags.is_empty()),
                size: signed(step.size),
                comment: step.comment,
            };
            Ok(steps.into_iter().map(entry).collect())
        })
        .await
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` for what is no name.
    pub async fn tag_image(&self, reference: &str, repository: &str, tag: &str) -> Result<()> {
        let target = parse_target(repository, tag)?;
        let (inner, reference) = (Arc::clone(&self.inner), reference.to_owned());
        blocking(move || {
            let name = target.familiar();
            let (id, _) = inner.store.tag(&reference, target).map_err(store_error)?;
            inner.publish_image("tag", &id, &name);
            Ok(())
        })
        .await
    }

    /// Removes a name, and the image with it where that was its last one.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` where containers use it.
    pub async fn remove_image(
        &self,
        reference: &str,
        force: bool,
        no_prune: bool,
    ) -> Result<Vec<ImageDeletion>> {
        let (inner, reference) = (Arc::clone(&self.inner), reference.to_owned());
        blocking(move || {
            let options = dory_store::RemoveOptions { force, no_prune };
            let removed = inner
                .store
                .remove_image(&reference, options, &|id| inner.image_users(id))
                .map_err(store_error)?;
            Ok(inner.deletions(removed))
        })
        .await
    }

    /// Removes images without a name, or with `dangling=false` all that no container uses.
    ///
    /// # Errors
    /// `Invalid` for a filter that makes no sense.
    pub async fn prune_images(&self, filters: &Filters) -> Result<PrunedImages> {
        filters.validate(&["dangling", "label", "label!", "until"])?;
        let dangling = filters.boolean("dangling")?.unwrap_or(true);
        let until = prune_until(filters)?;
        let (inner, filters) = (Arc::clone(&self.inner), filters.clone());
        blocking(move || inner.prune_images(&filters, dangling, until)).await
    }
}

impl Inner {
    /// The containers of an image.
    fn image_users(&self, id: &ImageId) -> Vec<ImageUser> {
        let containers = self.registry.all();
        let users = containers.iter().filter_map(|container| {
            let record = container.record();
            (record.image == *id)
                .then(|| ImageUser { container: record.id.clone(), running: record.state.running })
        });
        users.collect()
    }

    fn image_details(&self, reference: &str) -> Result<ImageDetails> {
        let image = self.store.image(reference).map_err(store_error)?;
        let (layers, config) = self.store.layer_chain(&image.id).map_err(store_error)?;
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let mut data = BTreeMap::new();
        if let Some((top, below)) = layers.split_first() {
            data.insert("UpperDir".to_owned(), text(top));
            // An image is mounted nowhere; dockerd names the places nevertheless.
            for (key, name) in [("MergedDir", "merged"), ("WorkDir", "work")] {
                data.insert(key.to_owned(), text(&top.with_file_name(name)));
            }
            if !below.is_empty() {
                let below: Vec<String> = below.iter().map(|layer| text(layer)).collect();
                data.insert("LowerDir".to_owned(), below.join(":"));
            }
        }
        Ok(ImageDetails {
            id: format!("sha256:{}", image.id),
            repo_tags: image.repo_tags(),
            repo_digests: image.repo_digests(),
            parent: image.parent.as_ref().map(|parent| format!("sha256:{parent}")).unwrap_or_default(),
            // Builders leave it to the history.
            comment: match config.comment.as_str() {
                "" => config.history.last().map(|step| step.comment.clone()).unwrap_or_default(),
                comment => comment.to_owned(),
            },
            created: config.created.map(|created| created.to_string()).unwrap_or_default(),
            docker_version: config.docker_version.clone(),
            author: config.author.clone(),
            config: container_config(&config.config),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os: config.os.clone(),
            size: signed(image.size),
            graph_driver: GraphDriver { name: STORAGE_DRIVER.to_owned(), data },
            root_fs: ImageRootFs {
                kind: "layers".to_owned(),
                layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
            },
            metadata: ImageMetadata { last_tag_time: image.last_tagged },
        })
    }

    fn prune_images(
        &self,
        filters: &Filters,
        dangling: bool,
        until: Option<Timestamp>,
    ) -> Result<PrunedImages> {
        let mut pruned = PrunedImages::default();
        for image in self.store.images().map_err(store_error)? {
            let wanted = (!dangling || image.references.is_empty())
                && self.image_users(&image.id).is_empty()
                && until.is_none_or(|until| image.config.created.unwrap_or_default() < until)
                && filters.prune_labels(&image.config.config.labels);
            if !wanted {
                continue;
            }
            // An image that something else needs by now simply stays.
            let options = dory_store::RemoveOptions { force: true, no_prune: false };
            let Ok(removed) = self.store.remove_image(image.id.as_str(), options, &|id| self.image_users(id))
            else {
                continue;
            };
            pruned.space_reclaimed += image.size;
            pruned.images_deleted.get_or_insert_default().extend(self.deletions(removed));
        }
        let attributes = [("reclaimed".to_owned(), pruned.space_reclaimed.to_string())];
        self.events.publish("image", "prune", "", attributes.into());
        Ok(pruned)
    }

    /// The answer to a removal, and its events.
    fn deletions(&self, removed: Vec<Removed>) -> Vec<ImageDeletion> {
        let mut deletions = Vec::with_capacity(removed.len());
        for step in removed {
            match step {
                Removed::Untagged { reference, image } => {
                    let id = format!("sha256:{image}");
                    self.publish_image("untag", &image, &id);
                    deletions.push(ImageDeletion::Untagged(reference.familiar()));
                }
                Removed::Image(image) => {
                    let id = format!("sha256:{image}");
                    self.publish_image("delete", &image, &id);
                    deletions.push(ImageDeletion::Deleted(id));
                }
                Removed::Layer(layer) => deletions.push(ImageDeletion::Deleted(layer.to_string())),
            }
        }
        deletions
    }

    pub(crate) fn publish_image(&self, action: &str, id: &ImageId, name: &str) {
        let mut attributes = match self.store.image(id.as_str()) {
            Ok(image) => image.config.config.labels.clone(),
            Err(_) => BTreeMap::new(),
        };
        attributes.insert("name".to_owned(), name.to_owned());
        self.events.publish("image", action, &format!("sha256:{id}"), attributes);
    }

    /// True where `image` is `ancestor`, or has all of its layers lowest.
    pub(crate) fn descends(&self, image: &ImageId, ancestor: &ImageId) -> bool {
        if image == ancestor {
            return true;
        }
        let layers =
            |id: &ImageId| self.store.image(id.as_str()).map(|image| image.config.rootfs.diff_ids.clone());
        match (layers(image), layers(ancestor)) {
            (Ok(own), Ok(below)) => !below.is_empty() && own.starts_with(&below),
            _ => false,
        }
    }
}

/// Bytes as the API's signed numbers.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A name for an image: `repository` and `tag`, where the repository may carry the tag itself.
pub(crate) fn parse_target(repository: &str, tag: &str) -> Result<ImageReference> {
    let text = if tag.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    text.parse().map_err(|error: dory_types::ReferenceError| EngineError::invalid(error.to_string()))
}

/// An image's configuration in the API's form.
fn container_config(run: &RunConfig) -> ContainerConfig {
    let health = |check: &dory_store::HealthcheckConfig| HealthConfig {
        test: check.test.clone().into(),
        interval: check.interval,
        timeout: check.timeout,
        retries: check.retries,
        start_period: check.start_period,
        start_interval: check.start_interval,
    };
    let keys = |map: &BTreeMap<String, BTreeMap<String, String>>| {
        map.keys().map(|key| (key.clone(), crate::config::Empty {})).collect::<BTreeMap<_, _>>()
    };
    ContainerConfig {
        user: run.user.clone(),
        exposed_ports: keys(&run.exposed_ports),
        env: run.env.clone().into(),
        cmd: StrSlice(run.cmd.clone()),
        entrypoint: StrSlice(run.entrypoint.clone()),
        healthcheck: run.healthcheck.as_ref().map(health),
        args_escaped: run.args_escaped,
        volumes: Some(keys(&run.volumes)).filter(|volumes| !volumes.is_empty()),
        working_dir: run.working_dir.clone(),
        on_build: Some(run.on_build.clone())
            .filter(|triggers| !triggers.is_empty())
            .map(Into::into)
            .unwrap_or_default(),
        labels: run.labels.clone(),
        stop_signal: run.stop_signal.clone().unwrap_or_default(),
        stop_timeout: run.stop_timeout,
        shell: StrSlice(Some(run.shell.clone()).filter(|shell| !shell.is_empty())),
        ..ContainerConfig::default()
    }
}
