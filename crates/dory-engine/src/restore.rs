//! What an engine finds when it opens: containers that run, that ended meanwhile, and what is left of dead ones.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use dory_cgroup::CgroupError;
use dory_runtime::protocol::ShimState;
use dory_types::{ContainerId, Timestamp};

use crate::container::{Container, Status, stored_exit};
use crate::engine::{Engine, Inner, blocking};
use crate::{EngineError, ErrorKind, Result};

/// A container that was found, and its shim where it runs.
struct Found {
    container: Arc<Container>,
    monitor: Option<(ShimState, UnixStream)>,
}

impl Engine {
    /// Finds every container of the data-root and brings it, and what it holds, into a true state.
    pub(crate) async fn restore(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let found = blocking(move || {
            let found = inner.find_containers()?;
            inner.take_resources(&found);
            Ok(found)
        })
        .await?;
        let mut restarts = Vec::new();
        for Found { container, monitor } in found {
            let record = container.record();
            if let Some((_, monitor)) = monitor {
                self.watch(&container, monitor, None);
                self.begin_health_checks(&container);
                continue;
            }
            if record.state.running {
                let target = Arc::clone(&container);
                let exit = blocking(move || Ok(stored_exit(&target))).await?;
                tracing::info!(container.id = %container.id, exit.code = exit.exit_code, "A container ended without an engine");
                let restarts_now = wants_restart_at_open(&container);
                // The policy's own waits are for containers that fail in front of an engine.
                container.update(|record| record.stopped_by_user |= restarts_now);
                self.on_exit(&container, Some(exit)).await;
                if restarts_now {
                    container.update(|record| record.stopped_by_user = false);
                    restarts.push(container);
                }
                continue;
            }
            if wants_restart_at_open(&container) {
                restarts.push(container);
            } else if record.host_config.auto_remove && record.state.status != Status::Created {
                let _lifecycle = container.lifecycle.lock().await;
                self.remove_locked(&container, true).await?;
            }
        }
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.sweep();
            inner.sweep_bridges();
            Ok(())
        })
        .await?;
        // Not before: to the sweep, what a start has just made for a container that does not run yet is left over.
        let engine = self.clone();
        self.inner.runtime().spawn(async move {
            for container in restarts {
                engine.restart_at_open(&container).await;
            }
        });
        Ok(())
    }

    async fn restart_at_open(&self, container: &Arc<Container>) {
        let _lifecycle = container.lifecycle.lock().await;
        if container.live().removed || container.record().state.running || self.inner.is_ending() {
            return;
        }
        if let Err(error) = self.launch(container).await {
            tracing::warn!(container.id = %container.id, %error, "Cannot restart a container at the engine's start");
        }
    }
}

/// moby `daemon.restore`: `always` even where somebody stopped it, `unless-stopped` unless so, `on-failure` after one.
fn wants_restart_at_open(container: &Container) -> bool {
    let record = container.record();
    let ran = record.state.status != Status::Created;
    match record.host_config.restart_policy.name.as_str() {
        "always" => ran,
        "unless-stopped" => ran && !record.stopped_by_user,
        "on-failure" => {
            let policy = &record.host_config.restart_policy;
            record.state.running
                && !record.stopped_by_user
                && (policy.maximum_retry_count == 0
                    || i64::from(record.restart_count) < policy.maximum_retry_count)
        }
        _ => false,
    }
}

/// Freezes or thaws a container that runs, as its record says: the last engine may have died between the one and the
/// other, or while it committed the container.
fn settle_freezer(container: &Container) {
    let record = container.record();
    let Some(run) = record.present_run() else { return };
    let settled = if record.state.paused { run.group.freeze() } else { run.group.thaw() };
    match settled {
        // Where nothing can be frozen nothing is.
        Ok(()) | Err(CgroupError::NotAvailable(_)) => {}
        Err(error) => {
            tracing::warn!(container.id = %container.id, %error, "Cannot freeze or thaw a container as it should be");
        }
    }
}

impl Inner {
    fn find_containers(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for id in self.store.snapshots() {
            match self.find_container(&id) {
                Ok(Some(container)) => found.push(self.find_shim(container)?),
                // The engine died between making the files and writing the record: nobody was ever told of it.
                Ok(None) => self.discard(&id),
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) => {
                    tracing::error!(container.id = %id, %error, "A container's record cannot be used; its files stay");
                }
            }
        }
        Ok(found)
    }

    /// `None` where there is no record; `Unavailable` where nobody knows because this process lacks what reading takes.
    fn find_container(&self, id: &ContainerId) -> Result<Option<Arc<Container>>> {
        let Some(snapshot) = self.store.snapshot(id) else { return Ok(None) };
        let read = Container::read(snapshot.directory, self.runtime_directory(id));
        let container = read.map_err(|error| match error.is_scarcity() {
            // The record may be as good as any: an engine without its container would look like one that lost it.
            true => EngineError::new(
                ErrorKind::Unavailable,
                format!("cannot tell whether container {id} runs: {}", dory_types::with_causes(&error)),
            ),
            false => EngineError::failed("cannot read the container's record", error),
        })?;
        let Some(container) = container else { return Ok(None) };
        let container = Arc::new(container);
        let record = container.record();
        self.registry.reserve(&record.name, id)?;
        self.registry.insert(Arc::clone(&container));
        self.ids.restore(&record.user_namespace, id);
        Ok(Some(container))
    }

    /// Finds out whether the container runs; an error where that cannot be known, and so nothing of it may be touched.
    fn find_shim(&self, container: Arc<Container>) -> Result<Found> {
        let monitor = match container.shim().monitor() {
            Ok(monitor) => Some(monitor),
            Err(error) if error.is_gone() => None,
            // To take a container that runs for one that ended would take its group and its network from it.
            Err(error) => {
                return Err(EngineError::failed(
                    format!("cannot tell whether container {} runs", container.id),
                    error,
                ));
            }
        };
        if let Some((state, _)) = &monitor {
            container.update(|record| {
                let known = record.state.running && !record.state.restarting;
                record.state.paused &= !std::mem::take(&mut record.paused_for_commit);
                record.state.status = if record.state.paused { Status::Paused } else { Status::Running };
                record.state.running = true;
                record.state.restarting = false;
                record.state.pid = state.pid;
                if !known {
                    // The last engine died before it could write that the container runs.
                    record.state.started_at = Timestamp::now();
                }
            });
            settle_freezer(&container);
            container.live().attachable = true;
            self.begin_guard(&container);
            // On a full disk, too, an engine opens: the shim will be asked again.
            if let Err(error) = container.save() {
                tracing::warn!(container.id = %container.id, %error, "Cannot keep that a container runs");
            }
        }
        Ok(Found { container, monitor })
    }

    fn discard(&self, id: &ContainerId) {
        if let Err(error) = self.store.remove_snapshot(id) {
            tracing::warn!(container.id = %id, %error, "Cannot remove what is left of a container");
        }
    }

    /// Takes addresses and ports that running containers have; networks are touched only where there are some.
    fn take_resources(&self, found: &[Found]) {
        let (running, ended): (Vec<_>, Vec<_>) = found.iter().partition(|found| found.monitor.is_some());
        let containers =
            |found: Vec<&Found>| -> Vec<_> { found.iter().map(|it| Arc::clone(&it.container)).collect() };
        let running = containers(running);
        for container in &running {
            if let Err(error) = self.use_volumes(&container.record().points, &container.id) {
                tracing::warn!(container.id = %container.id, %error, "Cannot mount a running container's volume");
            }
        }
        self.sweep_volumes();
        self.restore_networks(&running, &containers(ended));
    }

    /// Removes control groups and runtime directories that belong to no container.
    fn sweep(&self) {
        let all = self.registry.all();
        let live: BTreeSet<ContainerId> = all
            .iter()
            .filter(|container| container.record().state.running)
            .map(|container| container.id.clone())
            // Of those whose records cannot be read nobody knows whether they run.
            .chain(self.store.snapshots().into_iter().filter(|id| self.registry.find(id.as_str()).is_err()))
            .collect();
        for error in self.cgroups.sweep(&live) {
            tracing::warn!(%error, "Cannot remove a dead container's control group");
        }
        let Ok(entries) = std::fs::read_dir(self.options.exec_root.join("containers")) else { return };
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<ContainerId>().ok());
            if id.is_some_and(|id| !live.contains(&id))
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "Cannot remove a dead container's directory");
            }
        }
    }
}
