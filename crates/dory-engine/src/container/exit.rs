//! The end of a run: release, state, events, restart policy and `--rm`, in this order.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use dory_runtime::protocol::{EXIT_RECORD_NAME, Event, ExitRecord};
use dory_sys::fault_point;
use dory_types::Timestamp;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::object::Container;
use super::record::Record;
use super::state::Status;
use crate::engine::{Engine, blocking};

/// The first wait of the restart policy; each further one is twice as long (moby `restartmanager`).
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// No wait is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A run that lasted so long was no failure: the waits begin anew.
const RUN_GOOD: Duration = Duration::from_secs(10);
/// No event is longer.
const EVENT_LENGTH_MAX: u32 = 1 << 20;

impl Engine {
    /// Follows a run to its end, in a task of its own. `shim` is given where the shim is a child of this engine.
    pub(crate) fn watch(&self, container: &Arc<Container>, monitor: StdUnixStream, shim: Option<Child>) {
        let (engine, container) = (self.clone(), Arc::clone(container));
        self.inner.runtime().spawn(async move {
            let exit = follow(&engine, &container, monitor).await;
            if let Some(shim) = shim {
                // It has nothing left to do but to end.
                tokio::task::spawn_blocking(move || reap(shim));
            }
            engine.on_exit(&container, exit).await;
        });
    }

    /// A run has ended; `exit` is `None` where the shim did not say how.
    pub(crate) async fn on_exit(&self, container: &Arc<Container>, exit: Option<ExitRecord>) {
        if self.inner.is_ending() {
            return;
        }
        self.end_health_checks(container);
        let (inner, target) = (Arc::clone(&self.inner), Arc::clone(container));
        let released = blocking(move || {
            let exit = exit.unwrap_or_else(|| stored_exit(&target));
            inner.release_run(&target, false);
            Ok(exit)
        });
        fault_point!("exit.released");
        let exit = match released.await {
            Ok(exit) => exit,
            Err(error) => {
                tracing::error!(container.id = %container.id, %error, "Cannot release an ended container");
                lost()
            }
        };
        {
            let _order = container.telling.lock().await;
            self.publish_end(container, &exit);
        }
        let delay = self.restart_delay(container, &exit);
        container.update(|record| end(record, &exit, delay.is_some()));
        fault_point!("exit.told");
        self.end_execs(container);
        match delay {
            Some(delay) => self.restart_later(container, delay),
            None if container.record().host_config.auto_remove => {
                container.notify_exit();
                self.auto_remove(container).await;
                return;
            }
            None => {}
        }
        let target = Arc::clone(container);
        if let Err(error) = blocking(move || target.save()).await {
            tracing::warn!(container.id = %container.id, %error, "Cannot keep how a container ended");
        }
        fault_point!("exit.recorded");
        container.notify_exit();
    }

    fn publish_end(&self, container: &Container, exit: &ExitRecord) {
        let record = container.record();
        let finished = timestamp(exit.finished_at);
        let mut attributes = record.event_attributes();
        if exit.oom_killed {
            self.inner.events.publish("container", "oom", container.id.as_str(), attributes.clone());
        }
        attributes.insert("exitCode".to_owned(), exit.exit_code.to_string());
        attributes
            .insert("execDuration".to_owned(), finished.since(record.state.started_at).as_secs().to_string());
        self.inner.events.publish("container", "die", container.id.as_str(), attributes);
        for place in record.run.iter().flat_map(|run| &run.endpoints) {
            self.inner.publish_network("disconnect", &place.network, Some(container));
        }
        self.inner.publish_mounts(&record, "unmount");
    }

    /// How long to wait before the policy starts it again; `None` where it does not.
    fn restart_delay(&self, container: &Container, exit: &ExitRecord) -> Option<Duration> {
        let record = container.record();
        if record.stopped_by_user || container.live().removed || !wants_restart(&record, exit.exit_code) {
            return None;
        }
        let lasted = timestamp(exit.finished_at).since(record.state.started_at);
        let mut live = container.live();
        live.backoff = next_backoff(live.backoff, lasted);
        Some(live.backoff)
    }

    fn restart_later(&self, container: &Arc<Container>, delay: Duration) {
        let (engine, target) = (self.clone(), Arc::clone(container));
        let task = self.inner.runtime().spawn(async move {
            tokio::time::sleep(delay).await;
            let _lifecycle = target.lifecycle.lock().await;
            // Whoever stopped or removed it meanwhile did so under this lock.
            if target.live().restart.take().is_none() || engine.inner.is_ending() {
                return;
            }
            target.update(|record| record.restart_count += 1);
            // A start that fails is not tried again, as with dockerd; the record says why it failed.
            if let Err(error) = engine.launch(&target).await {
                tracing::warn!(container.id = %target.id, %error, "Cannot restart a container");
                target.notify_exit();
            }
        });
        container.live().restart = Some(task.abort_handle());
    }

    /// `--rm`: whoever holds the lifecycle lock may be waiting for this exit, and removes it himself or lets it be
    /// removed afterwards.
    async fn auto_remove(&self, container: &Arc<Container>) {
        let (engine, target) = (self.clone(), Arc::clone(container));
        let removal = async move {
            let _lifecycle = target.lifecycle.lock().await;
            if target.live().removed {
                return;
            }
            if let Err(error) = engine.remove_locked(&target, true).await {
                tracing::warn!(container.id = %target.id, %error, "Cannot remove an ended container");
            }
        };
        self.inner.runtime().spawn(removal);
    }
}

/// Reads the shim's events until the run has ended.
async fn follow(engine: &Engine, container: &Arc<Container>, monitor: StdUnixStream) -> Option<ExitRecord> {
    let prepared = monitor.set_nonblocking(true).and_then(|()| UnixStream::from_std(monitor));
    let mut stream = match prepared {
        Ok(stream) => stream,
        Err(error) => {
            tracing::error!(container.id = %container.id, %error, "Cannot watch a container");
            return None;
        }
    };
    loop {
        match next_event(&mut stream).await {
            Ok(Event::Exited(exit)) => return Some(exit),
            Ok(Event::ExecExited { exec, exit_code }) => engine.on_exec_exit(container, &exec, exit_code),
            Ok(Event::LogFailed { message }) => {
                tracing::warn!(container.id = %container.id, error = message, "A container's output is not logged");
            }
            Ok(Event::LogRecovered { failures }) => {
                tracing::warn!(container.id = %container.id, failures, "A container's output is logged again");
            }
            Err(error) => {
                tracing::debug!(container.id = %container.id, %error, "A shim went away without a word");
                return None;
            }
        }
    }
}

/// One message of `dory_runtime::protocol`, read without blocking; events carry no descriptors.
async fn next_event(stream: &mut UnixStream) -> io::Result<Event> {
    let length = stream.read_u32_le().await?;
    if length > EVENT_LENGTH_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(io::Error::other)
}

fn reap(mut shim: Child) {
    if let Err(error) = shim.wait() {
        tracing::warn!(%error, "Cannot wait for a shim");
    }
}

/// What the shim left on the disk; a shim that was killed left nothing, and its container was killed with it.
pub(crate) fn stored_exit(container: &Container) -> ExitRecord {
    let path = container.directory.join(EXIT_RECORD_NAME);
    let stored = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    stored.unwrap_or_else(lost)
}

fn lost() -> ExitRecord {
    ExitRecord { exit_code: 137, oom_killed: false, finished_at: Timestamp::now().unix_nanoseconds() }
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_unix(0, nanoseconds).unwrap_or_else(Timestamp::now)
}

/// The record of a container whose run ended.
fn end(record: &mut Record, exit: &ExitRecord, restarts: bool) {
    let state = &mut record.state;
    state.status = if restarts { Status::Restarting } else { Status::Exited };
    // dockerd counts a container between two runs as running.
    state.running = restarts;
    state.restarting = restarts;
    state.paused = false;
    state.pid = 0;
    state.exit_code = exit.exit_code;
    state.oom_killed = exit.oom_killed;
    state.finished_at = timestamp(exit.finished_at);
    record.run = None;
}

/// moby `restartmanager.ShouldRestart`.
fn wants_restart(record: &Record, exit_code: i32) -> bool {
    let policy = &record.host_config.restart_policy;
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            exit_code != 0
                && (policy.maximum_retry_count == 0
                    || i64::from(record.restart_count) < policy.maximum_retry_count)
        }
        _ => false,
    }
}

fn next_backoff(last: Duration, lasted: Duration) -> Duration {
    if last.is_zero() || lasted >= RUN_GOOD { BACKOFF_FIRST } else { (last * 2).min(BACKOFF_MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time() {
        let short = Duration::from_secs(1);
        let mut backoff = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..12 {
            backoff = next_backoff(backoff, short);
            waits.push(backoff.as_millis());
        }
        assert_eq!(&waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        assert_eq!(next_backoff(backoff, Duration::from_secs(11)), BACKOFF_FIRST);
    }
}
