//! Health checks: a command in the container, now and again (moby `daemon/health.go`).

use std::sync::Arc;
use std::time::Duration;

use dory_log::{FrameDecoder, HEADER_LENGTH};
use dory_types::{GoDuration, Signal, Timestamp};
use tokio::io::AsyncReadExt;

use super::object::Container;
use super::record::Record;
use super::state::{ContainerState, Health, HealthProbe};
use crate::config::{ContainerConfig, ExecConfig, ExecStartConfig, HealthConfig, StrSlice};
use crate::engine::{Engine, blocking};
use crate::exec::ExecStream;
use crate::{EngineError, Result};

/// Defaults of dockerd.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// Results that are kept, and how much of the output of each.
const RESULTS: usize = 5;
const OUTPUT: usize = 4096;
/// How long the exit code may take once the output has ended.
const EXIT_PATIENCE: Duration = Duration::from_secs(5);

/// The command of a check; `None` where there is none.
fn command(config: &ContainerConfig) -> Option<Vec<String>> {
    let test = &config.healthcheck.as_ref()?.test;
    let (kind, words) = test.split_first()?;
    match kind.as_str() {
        "CMD" if !words.is_empty() => Some(words.to_vec()),
        "CMD-SHELL" => {
            let shell = match &config.shell {
                shell if shell.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned()],
                shell => shell.to_vec(),
            };
            Some(shell.into_iter().chain(words.iter().cloned()).collect())
        }
        _ => None,
    }
}

/// A configured time; zero means the default.
fn time(nanoseconds: i64, default: Duration) -> Duration {
    match u64::try_from(nanoseconds) {
        Ok(0) | Err(_) => default,
        Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
    }
}

impl Engine {
    /// Begins the checks of a container that has just started or was thawed, or that was found running.
    pub(crate) fn begin_health_checks(&self, container: &Arc<Container>) {
        let record = container.record();
        if record.state.paused {
            return;
        }
        let (Some(command), Some(check)) = (command(&record.config), record.config.healthcheck.clone())
        else {
            return;
        };
        container.update(|record| {
            record
                .state
                .health
                .get_or_insert_with(|| Health { status: "starting".to_owned(), ..Health::default() });
        });
        let (engine, target) = (self.clone(), Arc::clone(container));
        let task =
            self.inner.runtime().spawn(async move { engine.check_for_ever(&target, &command, &check).await });
        if let Some(earlier) = container.live().health.replace(task.abort_handle()) {
            earlier.abort();
        }
    }

    /// Ends the checks of a container that is frozen or has ended: what it last said of its health no longer holds (moby
    /// `Health.CloseMonitorChannel`).
    pub(crate) fn end_health_checks(&self, container: &Container) {
        if let Some(health) = container.live().health.take() {
            health.abort();
        }
        container.update(|record| {
            if let Some(health) = &mut record.state.health {
                "unhealthy".clone_into(&mut health.status);
            }
        });
    }

    async fn check_for_ever(&self, container: &Arc<Container>, command: &[String], check: &HealthConfig) {
        loop {
            tokio::time::sleep(next_wait(&container.record().state, check)).await;
            let record = container.record();
            if !record.runs() || self.inner.is_ending() {
                return;
            }
            // A frozen container says nothing, and is not to blame for it.
            if record.state.paused {
                continue;
            }
            let start = Timestamp::now();
            let limit = time(check.timeout, TIMEOUT);
            let (exit_code, output) = match self.probe(container, command, limit).await {
                Ok(result) => result,
                Err(error) => (-1, error.message().to_owned()),
            };
            let probe = HealthProbe { start, end: Timestamp::now(), exit_code, output };
            self.take_result(container, probe, check).await;
        }
    }

    /// Runs the command once: its exit code and the beginning of its output.
    async fn probe(
        &self,
        container: &Arc<Container>,
        command: &[String],
        limit: Duration,
    ) -> Result<(i32, String)> {
        let config = ExecConfig {
            cmd: StrSlice(Some(command.to_vec())),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecConfig::default()
        };
        let id = self.create_exec(container.id.as_str(), config).await?;
        // The next engine knows nothing of this check: it ends with this one.
        let start = ExecStartConfig { ends_with_caller: true, ..ExecStartConfig::default() };
        let stream = self.start_exec(id.as_str(), start).await?;
        let mut output = ProbeOutput::default();
        if tokio::time::timeout(limit, read_output(stream, &mut output)).await.is_err() {
            let target = Arc::clone(container);
            let killed = blocking(move || Ok(target.shim().signal(Some(id), Signal::KILL.0))).await?;
            if let Err(error) = killed {
                tracing::debug!(container.id = %container.id, %error, "A health check ended by itself");
            }
            return Ok((-1, timeout_message(limit, &output.into_text())));
        }
        let text = output.into_text();
        let exit_code = async {
            loop {
                if let Some(code) = self.inspect_exec(id.as_str()).await?.exit_code {
                    return Ok::<_, EngineError>(code);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(EXIT_PATIENCE, exit_code).await {
            Ok(code) => Ok((code?, text)),
            Err(_) => Ok((-1, text)),
        }
    }

    async fn take_result(&self, container: &Arc<Container>, probe: HealthProbe, check: &HealthConfig) {
        let changed = container.update(|record| judge(record, probe, check));
        if let Some(status) = changed {
            self.publish(container, &format!("health_status: {status}"));
        }
        let target = Arc::clone(container);
        if let Err(error) = blocking(move || target.save()).await {
            tracing::warn!(container.id = %container.id, %error, "Cannot keep a health check's result");
        }
    }
}

/// The beginning of what a check prints.
#[derive(Debug, Default)]
struct ProbeOutput {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl ProbeOutput {
    fn take(&mut self, piece: &[u8]) {
        let room = OUTPUT.saturating_sub(self.bytes.len());
        self.is_cut |= piece.len() > room;
        self.bytes.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn into_text(self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.is_cut {
            text.push_str("...");
        }
        text
    }
}

fn timeout_message(limit: Duration, output: &str) -> String {
    let limit = GoDuration(i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX));
    match output {
        "" => format!("Health check exceeded timeout ({limit})"),
        output => format!("Health check exceeded timeout ({limit}): {output}"),
    }
}

/// Reads the process's output to its end, and keeps its beginning.
async fn read_output(stream: Option<ExecStream>, output: &mut ProbeOutput) {
    let Some(ExecStream { mut stream, .. }) = stream else { return };
    let mut decoder = FrameDecoder::default();
    let mut buffer = vec![0; HEADER_LENGTH + OUTPUT];
    while let Ok(count) = stream.read(&mut buffer).await
        && count > 0
    {
        let mut input = &buffer[..count];
        // What is no frame is no output.
        while let Ok(Some((_, piece))) = decoder.next(&mut input) {
            output.take(piece);
        }
    }
}

/// True while failures do not count yet.
fn is_starting(state: &ContainerState, check: &HealthConfig) -> bool {
    let lived = Timestamp::now().since(state.started_at);
    state.health.as_ref().is_some_and(|health| health.status == "starting")
        && lived < time(check.start_period, Duration::ZERO)
}

fn next_wait(state: &ContainerState, check: &HealthConfig) -> Duration {
    let interval = time(check.interval, INTERVAL);
    if !is_starting(state, check) {
        return interval;
    }
    let lived = Timestamp::now().since(state.started_at);
    let left = time(check.start_period, Duration::ZERO).saturating_sub(lived);
    // A long start interval (its default is one, beside a short start period) puts no check off beyond an interval after
    // the period's end (moby issue 46747).
    time(check.start_interval, START_INTERVAL).min(left + interval)
}

/// Takes a result in; the new status where it has changed.
fn judge(record: &mut Record, probe: HealthProbe, check: &HealthConfig) -> Option<String> {
    let starting = is_starting(&record.state, check);
    let health = record.state.health.as_mut()?;
    let before = health.status.clone();
    if probe.exit_code == 0 {
        health.failing_streak = 0;
        "healthy".clone_into(&mut health.status);
    } else if !starting {
        health.failing_streak += 1;
        let retries = if check.retries == 0 { RETRIES } else { check.retries };
        if health.failing_streak >= retries {
            "unhealthy".clone_into(&mut health.status);
        }
    }
    health.log.push(probe);
    let surplus = health.log.len().saturating_sub(RESULTS);
    health.log.drain(..surplus);
    (health.status != before).then(|| health.status.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(test: &[&str]) -> ContainerConfig {
        let test: Vec<String> = test.iter().map(|word| (*word).to_owned()).collect();
        let healthcheck = HealthConfig { test: test.into(), ..HealthConfig::default() };
        ContainerConfig { healthcheck: Some(healthcheck), ..ContainerConfig::default() }
    }

    #[test]
    fn reads_commands() {
        assert_eq!(command(&config(&["CMD", "test", "-e"])).unwrap(), ["test", "-e"]);
        assert_eq!(command(&config(&["CMD-SHELL", "a | b"])).unwrap(), ["/bin/sh", "-c", "a | b"]);
        for none in [&["NONE"][..], &[], &["CMD"]] {
            assert_eq!(command(&config(none)), None);
        }
        assert_eq!(command(&ContainerConfig::default()), None);
    }

    #[test]
    fn keeps_the_beginning_of_the_output() {
        let mut output = ProbeOutput::default();
        output.take(&[b'x'; OUTPUT - 1]);
        output.take(b"yz");
        let text = output.into_text();
        assert!(text.ends_with("xy...") && text.len() == OUTPUT + 3);
        let message = timeout_message(Duration::from_millis(90_500), "out");
        assert_eq!(message, "Health check exceeded timeout (1m30.5s): out");
    }

    #[test]
    fn a_long_start_interval_ends_soon_after_the_start_period() {
        let check = HealthConfig {
            interval: 2_000_000_000,
            start_period: 60_000_000_000,
            start_interval: 3_600_000_000_000,
            ..HealthConfig::default()
        };
        let state = ContainerState {
            started_at: Timestamp::now(),
            health: Some(Health { status: "starting".to_owned(), ..Health::default() }),
            ..ContainerState::default()
        };
        let wait = next_wait(&state, &check);
        assert!(wait > Duration::from_secs(55) && wait <= Duration::from_secs(62), "{wait:?}");
    }

    #[test]
    fn zero_means_the_default() {
        assert_eq!(time(0, INTERVAL), INTERVAL);
        assert_eq!(time(5_000_000, INTERVAL), Duration::from_millis(5));
    }
}
