//! Exec instances.

use std::sync::{Arc, Mutex, PoisonError};

use dory_runtime::client::ShimError;
use dory_runtime::spec::{ConsoleSize, ExecSpec, Stdio};
use dory_sys::fault_point;
use dory_types::{ContainerId, ExecId};
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::config::{ExecConfig, ExecStartConfig};
use crate::container::{Container, random_bytes};
use crate::engine::{Engine, blocking};
use crate::{EngineError, ErrorKind, PrivilegedMode, Result};

/// What comes before the reason in Docker's message where a process cannot be executed.
const RUNTIME_PREFIX: &str = "OCI runtime exec failed: exec failed: unable to start container process: ";
/// Ended instances that a container keeps for inspection.
const KEPT: usize = 64;

/// An exec instance.
#[derive(Debug)]
pub(crate) struct Exec {
    id: ExecId,
    container: Arc<Container>,
    config: ExecConfig,
    state: Mutex<ExecState>,
    /// Wakes those who wait for the end, after the state says so.
    ended: Notify,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, Default)]
struct ExecState {
    started: bool,
    running: bool,
    pid: i32,
    exit_code: Option<i32>,
}

/// A started exec's streams, where it was not detached.
#[derive(Debug)]
pub struct ExecStream {
    /// A terminal: output is raw. Otherwise it is framed.
    pub tty: bool,
    /// As [`crate::PendingStream::connect`]'s.
    pub stream: UnixStream,
}

/// API 1.51, `ProcessConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExecProcess {
    /// A terminal.
    pub tty: bool,
    /// Program.
    pub entrypoint: String,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Privileged.
    pub privileged: bool,
    /// User.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}

/// API 1.51, `ExecInspectResponse`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecDetails {
    /// Id.
    #[serde(rename = "ID")]
    pub id: ExecId,
    /// Runs.
    pub running: bool,
    /// Exit code; `None` while it runs or has not begun.
    pub exit_code: Option<i32>,
    /// What runs.
    pub process_config: ExecProcess,
    /// Standard input was asked for.
    pub open_stdin: bool,
    /// Standard error was asked for.
    pub open_stderr: bool,
    /// Standard output was asked for.
    pub open_stdout: bool,
    /// May be removed; always false here.
    pub can_remove: bool,
    /// The container.
    #[serde(rename = "ContainerID")]
    pub container_id: ContainerId,
    /// Keys that detach.
    pub detach_keys: String,
    /// Pid as the engine numbers it; 0 before the start.
    pub pid: i32,
}

impl Exec {
    fn state(&self) -> ExecState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut ExecState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl crate::engine::Inner {
    /// The exec instances of a container that run or have not begun.
    pub(crate) fn unfinished_execs(&self, container: &Container) -> Vec<ExecId> {
        let mut ids = container.live().execs.clone();
        let execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        ids.retain(|id| execs.get(id).is_some_and(|exec| exec.state().exit_code.is_none()));
        ids
    }
}

impl Engine {
    fn exec(&self, id: &str) -> Result<Arc<Exec>> {
        let execs = self.inner.execs.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match id.parse::<ExecId>() {
            Ok(id) => execs.get(&id).cloned(),
            Err(_) => None,
        };
        found.ok_or_else(|| EngineError::not_found(format!("No such exec instance: {id}")))
    }

    /// Prepares one more process in a running container.
    ///
    /// # Errors
    /// `Conflict` where the container does not run or is paused, `Invalid` without a command, `Forbidden` for privilege
    /// that the container's own user namespace would not confine.
    pub async fn create_exec(&self, reference: &str, config: ExecConfig) -> Result<ExecId> {
        let container = self.inner.registry.find(reference)?;
        check_running(&container, reference)?;
        if config.cmd.is_empty() {
            return Err(EngineError::invalid("No exec command specified"));
        }
        let confines = self.inner.options.privileged == PrivilegedMode::Confined;
        if config.privileged && confines && !container.record().user_namespace.is_new() {
            // A full set of capabilities in the engine's own user namespace is root on the host, whatever is mounted.
            return Err(EngineError::new(
                ErrorKind::Forbidden,
                "exec --privileged in a container that has no user namespace of its own would hand over the host: \
                 run the container with --privileged, which this engine confines (or set privileged = \"host\" in its \
                 configuration to have Docker's meaning)",
            ));
        }
        let id = ExecId::from_bytes(random_bytes());
        let command = described(&config);
        let exec = Exec {
            id: id.clone(),
            container: Arc::clone(&container),
            config,
            state: Mutex::default(),
            ended: Notify::new(),
        };
        self.inner.execs.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Arc::new(exec));
        self.keep_few(&container, &id);
        self.publish_exec(&container, &format!("exec_create: {command}"), &id);
        Ok(id)
    }

    /// Adds an instance to its container, and forgets the oldest ones that have ended.
    fn keep_few(&self, container: &Container, id: &ExecId) {
        let mut live = container.live();
        live.execs.push(id.clone());
        let mut execs = self.inner.execs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut surplus = live.execs.len().saturating_sub(KEPT);
        live.execs.retain(|id| {
            let ended = execs.get(id).is_none_or(|exec| exec.state().exit_code.is_some());
            let drop = surplus > 0 && ended;
            if drop {
                surplus -= 1;
                execs.remove(id);
            }
            !drop
        });
    }

    /// Runs the process; its streams, or `None` where detached.
    ///
    /// # Errors
    /// `Conflict` where it has run already or the container does not run, `Invalid` where the program cannot be
    /// executed.
    pub async fn start_exec(&self, id: &str, start: ExecStartConfig) -> Result<Option<ExecStream>> {
        let exec = self.exec(id)?;
        check_running(&exec.container, exec.container.id.as_str())?;
        let first = exec.update(|state| !std::mem::replace(&mut state.started, true));
        if !first {
            let running = exec.state().running;
            return Err(EngineError::conflict(match running {
                true => format!("Error: Exec command {id} is already running"),
                false => format!("Error: Exec command {id} has already run"),
            }));
        }
        let command = described(&exec.config);
        self.publish_exec(&exec.container, &format!("exec_start: {command}"), &exec.id);
        let (inner, target) = (Arc::clone(&self.inner), Arc::clone(&exec));
        let started = blocking(move || {
            let spec = spec(&inner, &target, &start)?;
            exec_in_shim(&target, spec, start.detach)
        })
        .await;
        match started {
            Ok(stream) => stream.map(|stream| into_stream(&exec, stream)).transpose(),
            Err(error) => {
                let code = if error.message().contains("executable file not found") { 127 } else { 126 };
                exec.update(|state| state.exit_code = Some(code));
                Err(error)
            }
        }
    }

    /// What is known of an exec instance.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecDetails> {
        let exec = self.exec(id)?;
        let (state, config) = (exec.state(), &exec.config);
        let mut words = config.cmd.iter().cloned();
        Ok(ExecDetails {
            id: exec.id.clone(),
            running: state.running,
            exit_code: state.exit_code,
            process_config: ExecProcess {
                tty: config.tty,
                entrypoint: words.next().unwrap_or_default(),
                arguments: words.collect(),
                privileged: config.privileged,
                user: config.user.clone(),
            },
            open_stdin: config.attach_stdin,
            open_stderr: config.attach_stderr,
            open_stdout: config.attach_stdout,
            can_remove: false,
            container_id: exec.container.id.clone(),
            detach_keys: config.detach_keys.clone(),
            pid: state.pid,
        })
    }

    /// Waits until a started exec has ended; its exit code is known then. The end of its output comes first, and a
    /// client that inspects after it expects the code.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait_exec(&self, id: &str) -> Result<()> {
        let exec = self.exec(id)?;
        loop {
            let ended = exec.ended.notified();
            tokio::pin!(ended);
            // From here on no wake is missed.
            ended.as_mut().enable();
            if !exec.state().running {
                return Ok(());
            }
            ended.await;
        }
    }

    /// Resizes an exec's terminal.
    ///
    /// # Errors
    /// `Conflict` where it does not run.
    pub async fn resize_exec(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let exec = self.exec(id)?;
        if !exec.state().running {
            return Err(EngineError::conflict(format!("exec instance {id} is not running")));
        }
        blocking(move || {
            exec.container
                .shim()
                .resize(Some(exec.id.clone()), ConsoleSize { height, width })
                .map_err(|error| EngineError::failed("cannot resize the terminal", error))
        })
        .await
    }

    /// An exec's process ended.
    pub(crate) fn on_exec_exit(&self, container: &Container, id: &ExecId, exit_code: i32) {
        let exec = self.inner.execs.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(exec) = exec {
            exec.update(|state| {
                state.running = false;
                state.exit_code = Some(exit_code);
            });
            exec.ended.notify_waiters();
        }
        let mut attributes = container.record().event_attributes();
        attributes.insert("execID".to_owned(), id.to_string());
        attributes.insert("exitCode".to_owned(), exit_code.to_string());
        self.inner.events.publish("container", "exec_die", container.id.as_str(), attributes);
    }

    /// The container ended, and every exec with it.
    pub(crate) fn end_execs(&self, container: &Container) {
        let ids = container.live().execs.clone();
        let execs = self.inner.execs.lock().unwrap_or_else(PoisonError::into_inner);
        for exec in ids.iter().filter_map(|id| execs.get(id)) {
            exec.update(|state| {
                if std::mem::take(&mut state.running) {
                    state.exit_code = Some(137);
                }
            });
            exec.ended.notify_waiters();
        }
    }

    /// The container is gone, and its exec instances with it.
    pub(crate) fn forget_execs(&self, container: &Container) {
        let ids = std::mem::take(&mut container.live().execs);
        let mut execs = self.inner.execs.lock().unwrap_or_else(PoisonError::into_inner);
        ids.iter().for_each(|id| drop(execs.remove(id)));
    }

    fn publish_exec(&self, container: &Container, action: &str, id: &ExecId) {
        let mut attributes = container.record().event_attributes();
        attributes.insert("execID".to_owned(), id.to_string());
        self.inner.events.publish("container", action, container.id.as_str(), attributes);
    }
}

/// The command as dockerd's events have it: program, blank, arguments.
fn described(config: &ExecConfig) -> String {
    let (program, arguments) =
        config.cmd.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    format!("{program} {}", arguments.join(" "))
}

/// `reference` is what the caller said, as dockerd gives it back.
fn check_running(container: &Container, reference: &str) -> Result<()> {
    let record = container.record();
    if record.state.paused {
        return Err(EngineError::conflict(format!(
            "Container {reference} is paused, unpause the container before exec"
        )));
    }
    if record.state.restarting {
        return Err(EngineError::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        )));
    }
    if !record.state.running {
        return Err(EngineError::conflict(format!("container {} is not running", container.id)));
    }
    Ok(())
}

fn spec(inner: &crate::engine::Inner, exec: &Exec, start: &ExecStartConfig) -> Result<ExecSpec> {
    let size = start.console_size.or(exec.config.console_size).unwrap_or_default();
    let attach = !start.detach;
    Ok(ExecSpec {
        id: exec.id.clone(),
        process: inner.exec_process(&exec.container, &exec.config)?,
        stdio: Stdio {
            open_stdin: exec.config.attach_stdin && attach,
            stdin_once: true,
            tty: exec.config.tty,
            console_size: crate::spec::console_size(size),
        },
        attach_output: attach && (exec.config.attach_stdout || exec.config.attach_stderr),
        ends_with_caller: attach && start.ends_with_caller,
    })
}

/// Runs the process. Its end may be reported before this returns: then it stays ended.
fn exec_in_shim(exec: &Exec, spec: ExecSpec, detach: bool) -> Result<Option<std::os::unix::net::UnixStream>> {
    exec.update(|state| state.running = true);
    fault_point!("exec.before-request");
    let started = exec.container.shim().exec(spec).map_err(|error| {
        exec.update(|state| state.running = false);
        match error {
            ShimError::Failed(failure) => {
                EngineError::new(ErrorKind::Invalid, format!("{RUNTIME_PREFIX}{}: unknown", failure.message))
            }
            other => EngineError::failed("cannot exec in the container", other),
        }
    });
    let (pid, stream) = started?;
    fault_point!("exec.started");
    exec.update(|state| state.pid = pid);
    Ok((!detach).then_some(stream))
}

fn into_stream(exec: &Exec, stream: std::os::unix::net::UnixStream) -> Result<ExecStream> {
    let failed = |error| EngineError::failed("cannot use the exec's stream", error);
    stream.set_nonblocking(true).map_err(failed)?;
    Ok(ExecStream { tty: exec.config.tty, stream: UnixStream::from_std(stream).map_err(failed)? })
}
