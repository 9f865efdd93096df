//! `rm`, `rename`, `prune`.

use std::sync::Arc;

use dory_sys::fault_point;
use dory_types::{ContainerName, Timestamp, VolumeName};

use super::object::Container;
use super::request::{PrunedContainers, RemoveOptions};
use super::state::Status;
use crate::config::HostConfig;
use crate::config::json::GoSlice;
use crate::engine::{Engine, Inner, blocking};
use crate::filters::Filters;
use crate::{EngineError, Result};

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// `Conflict` where it runs and `force` is not set.
    pub async fn remove_container(&self, reference: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return self.remove_link(reference).await;
        }
        let container = self.inner.registry.find(reference)?;
        let _lifecycle = container.lifecycle.lock().await;
        if container.live().removed {
            return Err(EngineError::not_found(format!("No such container: {reference}")));
        }
        let record = container.record();
        if record.state.running && !options.force {
            let advice = match record.state.status {
                Status::Paused => {
                    "Unpause and then stop the container before attempting removal or force remove"
                }
                _ => "stop the container before removing or force remove",
            };
            return Err(EngineError::conflict(format!(
                "cannot remove container \"{}\": container is {}: {advice}",
                record.name.with_slash(),
                record.state.status.as_str(),
            )));
        }
        if record.state.running {
            container.update(|record| record.stopped_by_user = true);
            if !self.end_pending_restart(&container).await? {
                self.kill_and_wait(&container).await?;
            }
        }
        // `--rm` took its volumes along; what was asked for now counts otherwise.
        self.remove_locked(&container, options.volumes || record.host_config.auto_remove).await
    }

    /// Removes a container that does not run, and whose lifecycle lock the caller holds.
    pub(crate) async fn remove_locked(&self, container: &Arc<Container>, volumes: bool) -> Result<()> {
        // Before it goes: an engine that dies in the middle leaves the container, and with it who to clean up after.
        self.clean_up_after(container).await;
        let (inner, target) = (Arc::clone(&self.inner), Arc::clone(container));
        blocking(move || inner.remove(&target, volumes)).await?;
        self.forget_execs(container);
        container.notify_removed();
        Ok(())
    }

    /// Removes the link that `reference` names by container and alias; both containers stay. A running one keeps the
    /// names in its hosts file until it starts again.
    ///
    /// # Errors
    /// `NotFound` where there is none, `Internal` as with dockerd where `reference` names a container.
    async fn remove_link(&self, reference: &str) -> Result<()> {
        let reference = reference.trim_matches('/');
        let no_such = || EngineError::not_found(format!("No such container: {reference}"));
        let Some((parent, alias)) = reference.split_once('/') else {
            self.inner.registry.find(reference)?;
            return Err(EngineError::internal(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let container = self.inner.registry.find(parent).map_err(|_| no_such())?;
        let _lifecycle = container.lifecycle.lock().await;
        let host = Arc::clone(&container.record().host_config);
        let (removed, kept): (Vec<_>, Vec<_>) =
            host.links.iter().cloned().partition(|link| link.rsplit('/').next() == Some(alias));
        if removed.is_empty() {
            return Err(no_such());
        }
        let changed = HostConfig { links: GoSlice(Some(kept)), ..HostConfig::clone(&host) };
        container.update(|record| record.host_config = Arc::new(changed));
        let target = Arc::clone(&container);
        if let Err(error) = blocking(move || target.save()).await {
            container.update(|record| record.host_config = host);
            return Err(error);
        }
        Ok(())
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// `Conflict` where another container has it, `Invalid` where it is none.
    pub async fn rename_container(&self, reference: &str, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(EngineError::invalid("Neither old nor new names may be empty"));
        }
        let container = self.inner.registry.find(reference)?;
        let _lifecycle = container.lifecycle.lock().await;
        let old = container.record().name.clone();
        let new: ContainerName = name.parse().map_err(|_| {
            let name = name.strip_prefix('/').unwrap_or(name);
            EngineError::invalid(format!(
                "Error when allocating new name: Invalid container name (/{name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are \
                 allowed"
            ))
        })?;
        if new == old {
            return Err(EngineError::invalid("Renaming a container with the same name as its current name"));
        }
        self.inner
            .registry
            .reserve(&new, &container.id)
            .map_err(|error| EngineError::conflict(format!("Error when allocating new name: {error}")))?;
        container.update(|record| record.name = new.clone());
        let target = Arc::clone(&container);
        if let Err(error) = blocking(move || target.save()).await {
            container.update(|record| record.name = old);
            self.inner.registry.release(&new, &container.id);
            return Err(error);
        }
        self.inner.registry.release(&old, &container.id);
        self.inner.announce(&container.record());
        let mut attributes = container.record().event_attributes();
        attributes.insert("oldName".to_owned(), old.with_slash());
        self.inner.events.publish("container", "rename", container.id.as_str(), attributes);
        Ok(())
    }

    /// Removes all containers that do not run.
    ///
    /// # Errors
    /// `Invalid` for an unknown filter.
    pub async fn prune_containers(&self, filters: &Filters) -> Result<PrunedContainers> {
        filters.validate(&["label", "label!", "until"])?;
        let until = prune_until(filters)?;
        let mut pruned = PrunedContainers::default();
        for container in self.inner.registry.all() {
            let Ok(_lifecycle) = container.lifecycle.try_lock() else { continue };
            let record = container.record();
            let wanted = !record.state.running
                && !container.live().removed
                && until.is_none_or(|until| record.created < until)
                && filters.prune_labels(&record.config.labels);
            if !wanted {
                continue;
            }
            let inner = Arc::clone(&self.inner);
            let id = container.id.clone();
            let size = blocking(move || Ok(inner.writable_size(&id))).await?;
            self.remove_locked(&container, false).await?;
            pruned.space_reclaimed += size;
            pruned.containers_deleted.get_or_insert_default().push(container.id.clone());
        }
        self.inner.events.publish(
            "container",
            "prune",
            "",
            [("reclaimed".to_owned(), pruned.space_reclaimed.to_string())].into(),
        );
        Ok(pruned)
    }
}

/// The `until` filter of a prune: at most one.
pub(crate) fn prune_until(filters: &Filters) -> Result<Option<Timestamp>> {
    match filters.get("until") {
        [] => Ok(None),
        [text] => Timestamp::parse_relative(text, Timestamp::now())
            .map(Some)
            .map_err(|error| EngineError::invalid(error.to_string())),
        _ => Err(EngineError::invalid("more than one until filter specified")),
    }
}

impl Inner {
    fn remove(&self, container: &Container, volumes: bool) -> Result<()> {
        {
            let mut live = container.live();
            live.removed = true;
            // Clients that waited for a start wait for nothing now.
            live.pending.clear();
        }
        fault_point!("remove.marked");
        // From here on the container is gone, also for the next engine: its directory has left its place.
        if let Err(error) = self.store.remove_snapshot(&container.id) {
            let mut live = container.live();
            live.removed = false;
            drop(live);
            container.update(|record| {
                record.state.status = Status::Dead;
                record.state.dead = true;
            });
            return Err(EngineError::failed("cannot remove the container's files", error));
        }
        fault_point!("remove.files-discarded");
        self.registry.remove(&container.id);
        let record = container.record();
        self.ids.release(&record.user_namespace);
        let _ = std::fs::remove_dir_all(&container.runtime_directory);
        fault_point!("remove.runtime-directory-removed");
        if volumes {
            self.remove_anonymous_volumes(&record);
        }
        fault_point!("remove.volumes-removed");
        self.events.publish("container", "destroy", container.id.as_str(), record.event_attributes());
        Ok(())
    }

    /// Removes the volumes that were made for this container, unless another one uses them.
    fn remove_anonymous_volumes(&self, record: &super::record::Record) {
        for point in record.points.iter().filter(|point| point.anonymous && !point.volume.is_empty()) {
            let Ok(name) = point.volume.parse::<VolumeName>() else { continue };
            match self.store.remove_volume(&name, true, &|name| self.volume_users(name)) {
                Ok(()) => self.publish_volume("destroy", name.as_str()),
                Err(error) => {
                    tracing::debug!(container.id = %record.id, volume = %name.as_str(), %error, "An anonymous volume stays");
                }
            }
        }
    }
}
