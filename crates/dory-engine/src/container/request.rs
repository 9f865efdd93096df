//! What is asked of containers, and the short answers.

use std::str::FromStr;

use dory_types::{ContainerId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::config::{ContainerConfig, HostConfig, NetworkingConfig};
use crate::filters::Filters;

/// `POST /containers/create`.
#[derive(Debug, Clone, Default)]
pub struct CreateContainer {
    /// `name`; `None` or empty makes one up.
    pub name: Option<String>,
    /// `platform`, e.g. `linux/amd64`; empty takes the image's.
    pub platform: String,
    /// The body's top level.
    pub config: ContainerConfig,
    /// The body's `HostConfig`.
    pub host_config: HostConfig,
    /// The body's `NetworkingConfig`.
    pub networking_config: NetworkingConfig,
}

/// API 1.51, `ContainerCreateResponse`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreatedContainer {
    /// Its id.
    pub id: ContainerId,
    /// What was asked for and is not done.
    pub warnings: Vec<String>,
}

/// `stop` and `restart`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Name or number; `None` takes the container's.
    pub signal: Option<String>,
    /// Seconds before SIGKILL; negative waits for ever, `None` takes the container's.
    pub timeout: Option<i64>,
}

/// `wait`'s condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Not running: at once for a container that does not run.
    #[default]
    NotRunning,
    /// The next exit.
    NextExit,
    /// Removed.
    Removed,
}

impl FromStr for WaitCondition {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            _ => Err(EngineError::invalid(format!("invalid condition: \"{text}\""))),
        }
    }
}

/// What a waited-for container ended with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitOutcome {
    /// Exit code.
    pub exit_code: i32,
    /// Why the start, or the removal, failed; empty otherwise.
    pub error: String,
}

/// `attach`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Replay the log first.
    pub logs: bool,
    /// Join the streams.
    pub stream: bool,
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// `logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on until the container ends.
    pub follow: bool,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Put the attributes (`--log-opt labels`, `env`) before each line.
    pub details: bool,
    /// The last so many lines; `None` is all.
    pub tail: Option<u64>,
}

/// `DELETE /containers/{id}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
    /// A legacy link instead of the container.
    pub link: bool,
}

/// `GET /containers/json`.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// The newest so many, running or not; `None` is no limit.
    pub limit: Option<usize>,
    /// Fill `SizeRw` and `SizeRootFs`.
    pub size: bool,
    /// Filters.
    pub filters: Filters,
}

/// API 1.51, the answer of `POST /containers/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrunedContainers {
    /// Which.
    pub containers_deleted: Option<Vec<ContainerId>>,
    /// Bytes.
    pub space_reclaimed: u64,
}
