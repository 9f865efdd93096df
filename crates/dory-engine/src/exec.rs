//! Exec instances.

use dory_types::{ContainerId, ExecId};
use serde::Serialize;
use tokio::net::UnixStream;

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
