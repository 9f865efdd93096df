//! Processes: the container's own, and those of `docker exec`.

use dory_types::ExecId;
use serde::{Deserialize, Serialize};

/// A process, before names are looked up inside the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; the program is looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// `NAME=value` entries. `HOME` is added from the user's passwd entry where it is missing.
    pub env: Vec<String>,
    /// Absolute working directory; made where missing (init only, as Docker does).
    pub cwd: String,
    /// Docker's `User`: `name`, `uid`, `name:group`, `uid:gid` or empty for root. Looked up in the container's own
    /// `/etc/passwd` and `/etc/group`, by the process itself, beneath its own root.
    pub user: String,
    /// Additional groups (`--group-add`), names or numbers.
    pub additional_groups: Vec<String>,
    /// Capabilities of the bounding, permitted and effective sets, `CAP_…` names.
    pub capabilities: Vec<String>,
    /// Set no_new_privs (prctl(2)) before exec.
    pub no_new_privileges: bool,
    /// Resource limits; a limit above the engine's own hard limit that cannot be raised is a stated failure.
    pub rlimits: Vec<Rlimit>,
    /// The compiled seccomp filter, `None` for unconfined.
    pub seccomp: Option<dory_seccomp::Filter>,
    /// AppArmor profile to enter at exec, where AppArmor is (`None`: stay).
    pub apparmor: Option<String>,
    /// `oom_score_adj`; `None` inherits.
    pub oom_score_adj: Option<i32>,
}

/// One resource limit (setrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Name without `RLIMIT_`, lower case, as Docker spells it: `nofile`, `nproc`, `core`...
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// Standard streams of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    /// Keep a standard input open (`-i`); otherwise it is `/dev/null`.
    pub open_stdin: bool,
    /// Close it when the first attached client has closed its side (Docker's `StdinOnce`).
    pub stdin_once: bool,
    /// A pseudo terminal for all three.
    pub tty: bool,
    /// Its first size.
    pub console_size: Option<ConsoleSize>,
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// A process to be added to a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The exec instance's id.
    pub id: ExecId,
    /// The process.
    pub process: Process,
    /// Its streams; `stdin_once` is always meant.
    pub stdio: Stdio,
    /// Connect standard output and error to the caller's stream; otherwise they go nowhere (`-d`).
    pub attach_output: bool,
    /// It is killed when the caller's stream closes, be it that the caller has died.
    #[serde(default)]
    pub ends_with_caller: bool,
}
