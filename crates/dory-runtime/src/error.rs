//! Failures that cross the process boundary between init, shim and engine.

use serde::{Deserialize, Serialize};

/// What sort of failure kept a process from starting; it decides the exit code that Docker's clients print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program or its directory does not exist: exit code 127.
    NotFound,
    /// The program exists but may not be executed: exit code 126.
    NotExecutable,
    /// The request itself is wrong (an unknown user, a working directory that is a file): exit code 126 as Docker has it.
    Invalid,
    /// The kernel or the surroundings refused something that the container needs: exit code 128.
    Refused,
}

/// Why a container's or an exec's process did not start, in words made for its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StartFailure {
    /// The sort of failure.
    pub kind: FailureKind,
    /// The whole message, in the form that runc gives it, e.g.
    /// ``exec: "nope": executable file not found in $PATH``.
    pub message: String,
}

impl StartFailure {
    /// A failure of `kind` that says `message`.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A refusal by the kernel of `operation`.
    pub fn refused(operation: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::new(FailureKind::Refused, format!("{operation}: {error}"))
    }
}
