//! `commit`: an image of a container's files and configuration (moby `daemon/commit.go`).

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use dory_store::{
    ExpectedLayer, HistoryEntry, ImageConfig, ImagePlatform, LayerLease, LayeredFiles, NewImage, RunConfig,
    apply_changes,
};
use dory_sys::fault_point;
use dory_types::{ImageReference, Timestamp};

use super::merge::{container_config, merge_image, run_config};
use super::object::Container;
use crate::config::ContainerConfig;
use crate::engine::{Engine, Inner, blocking};
use crate::image::{parse_target, store_error};
use crate::{EngineError, Result};

/// Bytes that are written to the layer's pipe at once.
const BUFFER: usize = 64 << 10;

/// API 1.51, `POST /commit`.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The image's name; empty for none.
    pub repository: String,
    /// Its tag; empty for `latest`.
    pub tag: String,
    /// Who made the change.
    pub author: String,
    /// What it is about.
    pub comment: String,
    /// Freeze a running container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// The image's configuration in place of the container's.
    pub config: Option<ContainerConfig>,
}

impl Engine {
    /// Makes an image of a container; its id, with the algorithm.
    ///
    /// # Errors
    /// `NotFound` for the container, `Invalid` for a name or an instruction that cannot be.
    pub async fn commit_container(&self, reference: &str, options: CommitOptions) -> Result<String> {
        let container = self.inner.registry.find(reference)?;
        let target = match options.repository.as_str() {
            "" => None,
            repository => Some(parse_target(repository, &options.tag)?),
        };
        let _lifecycle = container.lifecycle.lock().await;
        let record = container.record();
        if record.state.dead {
            return Err(EngineError::conflict(format!(
                "You cannot commit container {} which is Dead",
                record.id
            )));
        }
        if container.live().removed {
            return Err(EngineError::conflict(format!(
                "You cannot commit container {} which is being removed",
                record.id
            )));
        }
        let config = commit_config(&record.config, options.config.as_ref(), &options.changes)?;
        let mut freezes = options.pause && record.runs() && !record.state.paused;
        container.update(|record| record.paused_for_commit = freezes);
        // Where there is no control group nothing can be frozen, and `pause` is what clients send unasked.
        if freezes && let Err(error) = self.set_paused(&container, true).await {
            tracing::warn!(container.id = %container.id, %error, "A container is committed while it runs");
            container.update(|record| record.paused_for_commit = false);
            freezes = false;
        }
        let (inner, from) = (Arc::clone(&self.inner), Arc::clone(&container));
        let committed = blocking(move || inner.commit(&from, config, &options, target.as_ref())).await;
        container.update(|record| record.paused_for_commit = false);
        // Not where it was killed meanwhile: the end of the process thawed it.
        if freezes
            && container.record().state.paused
            && let Err(error) = self.set_paused(&container, false).await
        {
            tracing::warn!(container.id = %container.id, %error, "Cannot thaw a container that was committed");
        }
        committed
    }
}

impl Inner {
    fn commit(
        &self,
        container: &Container,
        config: RunConfig,
        options: &CommitOptions,
        target: Option<&ImageReference>,
    ) -> Result<String> {
        let record = container.record();
        let parent = self.store.image(record.image.as_str()).map_err(store_error)?;
        let mut layers = self.store.lease_layers(&record.image).map_err(store_error)?;
        let layer = self.commit_layer(&self.layered_files(container)?)?;
        fault_point!("commit.layer-made");
        let now = Timestamp::now();
        let platform = ImagePlatform::current();
        let mut image = ImageConfig {
            created: Some(now),
            author: options.author.clone(),
            comment: options.comment.clone(),
            architecture: platform.architecture,
            variant: parent.config.variant.clone(),
            os: platform.os,
            config,
            ..(*parent.config).clone()
        };
        image.history.push(HistoryEntry {
            created: Some(now),
            author: options.author.clone(),
            created_by: record.config.cmd.join(" "),
            comment: options.comment.clone(),
            empty_layer: layer.is_none(),
        });
        if let Some(layer) = layer {
            image.rootfs.diff_ids.push(layer.diff_id());
            layers.push(layer);
        }
        let bytes = serde_json::to_vec(&image)
            .map_err(|error| EngineError::failed("cannot serialise the image's configuration", error))?;
        let references: Vec<ImageReference> = target.cloned().into_iter().collect();
        let parent = Some(record.image.clone());
        let new = NewImage { config: &bytes, layers, references: &references, parent };
        let id = format!("sha256:{}", self.store.add_image(new).map_err(store_error)?.id);
        fault_point!("commit.image-added");
        let mut attributes = record.event_attributes();
        attributes.insert("comment".to_owned(), options.comment.clone());
        attributes.insert("imageID".to_owned(), id.clone());
        attributes.insert("imageRef".to_owned(), target.map(ImageReference::familiar).unwrap_or_default());
        self.events.publish("container", "commit", container.id.as_str(), attributes);
        Ok(id)
    }

    /// The changes as a layer of the store; `None` where nothing changed. They go through a pipe: the archive is hashed and
    /// unpacked while it is being written.
    pub(super) fn commit_layer(&self, files: &LayeredFiles) -> Result<Option<LayerLease>> {
        let failed = |error: io::Error| EngineError::failed("cannot make a pipe for the layer", error);
        let (reader, writer) = io::pipe().map_err(failed)?;
        std::thread::scope(|scope| {
            let packing = scope.spawn(move || {
                let mut writer = BufWriter::with_capacity(BUFFER, writer);
                let packed = files.pack_changes(&mut writer)?;
                writer.flush().map_err(dory_store::FileError::Write)?;
                Ok::<bool, dory_store::FileError>(packed)
            });
            let layer = self.store.ingest_layer(reader, &ExpectedLayer::default()).map_err(store_error);
            let packed = match packing.join() {
                Ok(packed) => packed,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            // A store that gave up breaks the pipe: its word is the better one.
            let layer = layer?;
            let packed =
                packed.map_err(|error| EngineError::failed("cannot read the container's files", error))?;
            Ok(packed.then_some(layer))
        })
    }
}

/// The image's configuration: what the request gives, changed by its instructions, and the container's for the rest.
fn commit_config(
    container: &ContainerConfig,
    given: Option<&ContainerConfig>,
    changes: &[String],
) -> Result<RunConfig> {
    let mut own = run_config(given.unwrap_or(container));
    apply_changes(&mut own, changes).map_err(|error| EngineError::invalid(error.to_string()))?;
    let mut merged = container_config(&own);
    merge_image(&mut merged, &run_config(container));
    Ok(run_config(&merged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StrSlice;

    fn words(words: &[&str]) -> StrSlice {
        StrSlice(Some(words.iter().map(|word| (*word).to_owned()).collect()))
    }

    #[test]
    fn configuration_is_the_containers_with_changes() {
        let container = ContainerConfig {
            cmd: words(&["sleep", "1"]),
            env: vec!["A=1".to_owned(), "B=2".to_owned()].into(),
            user: "nobody".to_owned(),
            ..ContainerConfig::default()
        };
        let changes = ["ENV A=9", "LABEL l=v", "EXPOSE 80", "WORKDIR /w", "USER root"].map(str::to_owned);
        let config = commit_config(&container, None, &changes).unwrap();
        assert_eq!(config.env, ["A=9", "B=2"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("root", "/w"));
        assert_eq!(config.cmd.as_deref(), Some(["sleep".to_owned(), "1".to_owned()].as_slice()));
        assert!(config.exposed_ports.contains_key("80/tcp") && config.labels["l"] == "v");
        let config = commit_config(&container, None, &["ENTRYPOINT [\"e\"]".to_owned()]).unwrap();
        assert_eq!((config.entrypoint, config.cmd), (words(&["e"]).0, None));
        let given = ContainerConfig { cmd: words(&["other"]), ..ContainerConfig::default() };
        let config = commit_config(&container, Some(&given), &[]).unwrap();
        assert_eq!((config.cmd, config.user.as_str()), (words(&["other"]).0, "nobody"));
        assert!(commit_config(&container, None, &["RUN x".to_owned()]).is_err());
    }
}
