//! `stop`, `kill`, `restart`, `pause`, `unpause` and `wait`.

use std::sync::Arc;
use std::time::Duration;

use super::object::Container;
use super::request::{StopOptions, WaitCondition};
use super::state::Status;
use super::streams::ContainerWait;
use crate::engine::{Engine, blocking};
use crate::{EngineError, ErrorKind, Result};
use dory_sys::fault_point;
use dory_types::Signal;

/// Seconds between the stop signal and SIGKILL where nobody says otherwise.
const STOP_TIMEOUT: i64 = 10;
/// How long the end of a killed process may take before the caller is told.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops a container: its stop signal, then SIGKILL.
    ///
    /// # Errors
    /// `NotModified` where it does not run, `Invalid` for an unknown signal.
    pub async fn stop_container(&self, reference: &str, options: StopOptions) -> Result<()> {
        let container = self.inner.registry.find(reference)?;
        let _lifecycle = container.lifecycle.lock().await;
        if !container.record().state.running {
            return Err(EngineError::new(ErrorKind::NotModified, "container is not running"));
        }
        self.stop_locked(&container, &options).await
    }

    /// Stops and starts a container; one that does not run is started.
    ///
    /// # Errors
    /// As `stop_container` and `start_container`.
    pub async fn restart_container(&self, reference: &str, options: StopOptions) -> Result<()> {
        let container = self.inner.registry.find(reference)?;
        let _lifecycle = container.lifecycle.lock().await;
        if container.live().removed || container.record().state.dead {
            return Err(EngineError::conflict("container is marked for removal and cannot be started"));
        }
        if container.record().state.running {
            self.stop_locked(&container, &options).await?;
        }
        container.update(|record| {
            record.stopped_by_user = false;
            record.restart_count = 0;
        });
        self.launch(&container).await?;
        self.publish(&container, "restart");
        Ok(())
    }

    /// Stops a container whose lifecycle lock the caller holds.
    pub(crate) async fn stop_locked(&self, container: &Arc<Container>, options: &StopOptions) -> Result<()> {
        let record = container.record();
        let signal = match options.signal.as_deref().filter(|signal| !signal.is_empty()) {
            Some(signal) => signal.parse::<Signal>()?,
            None => stop_signal(&record.config.stop_signal)?,
        };
        container.update(|record| record.stopped_by_user = true);
        if self.end_pending_restart(container).await? {
            self.publish(container, "stop");
            return Ok(());
        }
        let seconds = options.timeout.or(record.config.stop_timeout).unwrap_or(STOP_TIMEOUT);
        let exit = container.wait(WaitCondition::NotRunning);
        if self.send_signal(container, signal).await.is_err() {
            // It is ending by itself, or cannot be reached: what follows makes sure.
            self.send_signal(container, Signal::KILL).await.ok();
        }
        fault_point!("stop.signalled");
        let ended = match u64::try_from(seconds) {
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), exit).await.is_ok(),
            Err(_) => exit.await.is_ok(),
        };
        if !ended {
            self.kill_and_wait(container).await?;
        }
        fault_point!("stop.ended");
        self.publish(container, "stop");
        Ok(())
    }

    /// Kills a container's process and waits for its end.
    pub(crate) async fn kill_and_wait(&self, container: &Arc<Container>) -> Result<()> {
        let exit = container.wait(WaitCondition::NotRunning);
        if let Err(error) = self.send_signal(container, Signal::KILL).await {
            tracing::debug!(container.id = %container.id, %error, "A container ended before it was killed");
        }
        match tokio::time::timeout(KILL_PATIENCE, exit).await {
            Ok(_) => Ok(()),
            Err(_) => Err(EngineError::internal(format!(
                "cannot kill container {}: tried to kill container, but did not receive an exit event",
                container.id
            ))),
        }
    }

    /// A container between two runs becomes one that ended; true where that was so.
    pub(crate) async fn end_pending_restart(&self, container: &Arc<Container>) -> Result<bool> {
        if !container.cancel_restart() {
            return Ok(false);
        }
        container.update(|record| {
            record.state.running = false;
            record.state.restarting = false;
            record.state.status = Status::Exited;
        });
        let target = Arc::clone(container);
        blocking(move || target.save()).await?;
        container.notify_exit();
        Ok(true)
    }

    /// Signals a container's process; `signal` is a name or number, `None` or empty is SIGKILL.
    ///
    /// # Errors
    /// `Conflict` where it does not run, `Invalid` for an unknown signal.
    pub async fn kill_container(&self, reference: &str, signal: Option<&str>) -> Result<()> {
        let container = self.inner.registry.find(reference)?;
        let signal = match signal.filter(|signal| !signal.is_empty()) {
            Some(signal) => signal.parse()?,
            None => Signal::KILL,
        };
        let record = container.record();
        if !record.state.running {
            return Err(EngineError::conflict(format!(
                "cannot kill container: {reference}: container {} is not running",
                container.id
            )));
        }
        // A kill by hand ends the restart policy's work where the signal is one that ends the container.
        let ends = signal == Signal::KILL
            || stop_signal(&record.config.stop_signal).is_ok_and(|stop| stop == signal);
        if ends {
            container.update(|record| record.stopped_by_user = true);
            if self.end_pending_restart(&container).await? {
                return Ok(());
            }
        }
        self.send_signal(&container, signal).await?;
        if signal == Signal::KILL {
            let exit = container.wait(WaitCondition::NotRunning);
            // dockerd answers after the end where it comes soon.
            let _ = tokio::time::timeout(KILL_PATIENCE, exit).await;
        }
        Ok(())
    }

    async fn send_signal(&self, container: &Arc<Container>, signal: Signal) -> Result<()> {
        let target = Arc::clone(container);
        let _order = container.telling.lock().await;
        blocking(move || {
            let record = target.record();
            if record.state.paused && signal == Signal::KILL {
                // A frozen process does not die of a signal on cgroup v1.
                if let Some(run) = record.present_run() {
                    run.group.thaw().ok();
                }
            }
            target
                .shim()
                .signal(None, signal.0)
                .map_err(|error| EngineError::failed("cannot kill container", error))
        })
        .await?;
        let mut attributes = container.record().event_attributes();
        attributes.insert("signal".to_owned(), signal.0.to_string());
        self.inner.events.publish("container", "kill", container.id.as_str(), attributes);
        Ok(())
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// `Conflict` where it does not run, or is paused; `Internal` without a freezer.
    pub async fn pause_container(&self, reference: &str) -> Result<()> {
        let container = self.inner.registry.find(reference)?;
        let _lifecycle = container.lifecycle.lock().await;
        let record = container.record();
        if !record.state.running {
            return Err(EngineError::conflict(format!("Container {} is not running", container.id)));
        }
        if record.state.paused {
            return Err(EngineError::conflict(format!("Container {} is already paused", container.id)));
        }
        if record.state.restarting {
            return Err(EngineError::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        self.set_paused(&container, true).await
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// `Conflict` where it is not paused.
    pub async fn unpause_container(&self, reference: &str) -> Result<()> {
        let container = self.inner.registry.find(reference)?;
        let _lifecycle = container.lifecycle.lock().await;
        if !container.record().state.paused {
            return Err(EngineError::conflict(format!("Container {} is not paused", container.id)));
        }
        self.set_paused(&container, false).await
    }

    pub(super) async fn set_paused(&self, container: &Arc<Container>, paused: bool) -> Result<()> {
        let target = Arc::clone(container);
        blocking(move || {
            let record = target.record();
            let run = record
                .present_run()
                .ok_or_else(|| EngineError::conflict(format!("Container {} is not running", target.id)))?;
            let (verb, done) =
                if paused { ("pause", run.group.freeze()) } else { ("unpause", run.group.thaw()) };
            done.map_err(|error| {
                EngineError::failed(format!("Cannot {verb} container {}", target.id), error)
            })?;
            target.update(|record| {
                // Its process may have been killed meanwhile.
                if record.state.running {
                    record.state.paused = paused;
                    record.state.status = if paused { Status::Paused } else { Status::Running };
                }
            });
            target.save()
        })
        .await?;
        match paused {
            true => self.end_health_checks(container),
            false => self.begin_health_checks(container),
        }
        self.publish(container, if paused { "pause" } else { "unpause" });
        Ok(())
    }

    /// Begins a wait: returns once it is registered, [`ContainerWait::outcome`] then waits.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait_container(&self, reference: &str, condition: WaitCondition) -> Result<ContainerWait> {
        let container = self.inner.registry.find(reference)?;
        Ok(ContainerWait { receiver: container.wait(condition) })
    }

    /// Publishes an event of `container` without particulars.
    pub(crate) fn publish(&self, container: &Container, action: &str) {
        let attributes = container.record().event_attributes();
        self.inner.events.publish("container", action, container.id.as_str(), attributes);
    }
}

/// The container's own stop signal.
fn stop_signal(configured: &str) -> Result<Signal> {
    if configured.is_empty() { Ok(Signal::TERM) } else { Ok(configured.parse()?) }
}
