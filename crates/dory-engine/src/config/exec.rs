//! `ExecConfig`: one more process in a running container.

use serde::{Deserialize, Serialize};

use super::json::{GoSlice, StrSlice};

/// API 1.51, the body of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecConfig {
    /// As in `ContainerConfig`; empty means the container's.
    pub user: String,
    /// Every capability that the container's user namespace gives.
    pub privileged: bool,
    /// A pseudo terminal.
    pub tty: bool,
    /// Its first size, as height and width.
    pub console_size: Option<[u16; 2]>,
    /// Connect standard input.
    pub attach_stdin: bool,
    /// Connect standard error.
    pub attach_stderr: bool,
    /// Connect standard output.
    pub attach_stdout: bool,
    /// Obsolete; the start's own `Detach` decides.
    pub detach: bool,
    /// Keys that detach, e.g. `ctrl-p,ctrl-q`.
    pub detach_keys: String,
    /// Additional environment.
    pub env: GoSlice<String>,
    /// Working directory; empty means the container's.
    pub working_dir: String,
    /// Program and arguments.
    pub cmd: StrSlice,
}

/// API 1.51, the body of `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecStartConfig {
    /// Do not connect the streams.
    pub detach: bool,
    /// What the client believes; the exec's own setting decides.
    pub tty: bool,
    /// First size of the terminal, as height and width.
    pub console_size: Option<[u16; 2]>,
    /// The process is killed when its stream closes, be it that the engine has died; for the engine's own checks.
    #[serde(skip)]
    pub ends_with_caller: bool,
}
