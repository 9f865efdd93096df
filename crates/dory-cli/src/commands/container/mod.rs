//! The verbs of containers.

mod attach;
mod content;
mod copy;
mod exec;
mod lifecycle;
mod list;
mod logs;
mod ports;
mod prune;
mod run;
mod start;
mod stats;
mod top;

use serde::Deserialize;

use crate::command::{Entry, entry};

pub(super) use attach::ATTACH;
pub(super) use content::{COMMIT, DIFF, EXPORT, UPDATE};
pub(super) use copy::COPY;
pub(super) use exec::EXEC;
pub(super) use lifecycle::{KILL, PAUSE, REMOVE, RENAME, RESTART, STOP, UNPAUSE, WAIT};
pub(super) use list::{ContainerSummary, LIST, ellipsis, render_usage};
pub(super) use logs::LOGS;
pub(super) use ports::PORT;
pub(super) use prune::PRUNE;
pub(super) use run::{CREATE, RUN};
pub(super) use start::START;
pub(super) use stats::STATS;
pub(super) use top::TOP;

/// `dory container ...`.
pub(super) const COMMANDS: &[Entry] = &[
    entry(&["attach"], &ATTACH),
    entry(&["commit"], &COMMIT),
    entry(&["cp"], &COPY),
    entry(&["create"], &CREATE),
    entry(&["diff"], &DIFF),
    entry(&["exec"], &EXEC),
    entry(&["export"], &EXPORT),
    entry(&["inspect"], &super::inspect::INSPECT_CONTAINER),
    entry(&["kill"], &KILL),
    entry(&["logs"], &LOGS),
    entry(&["ls", "list", "ps"], &LIST),
    entry(&["pause"], &PAUSE),
    entry(&["port"], &PORT),
    entry(&["prune"], &PRUNE),
    entry(&["rename"], &RENAME),
    entry(&["restart"], &RESTART),
    entry(&["rm", "remove"], &REMOVE),
    entry(&["run"], &RUN),
    entry(&["start"], &START),
    entry(&["stats"], &STATS),
    entry(&["stop"], &STOP),
    entry(&["top"], &TOP),
    entry(&["unpause"], &UNPAUSE),
    entry(&["update"], &UPDATE),
    entry(&["wait"], &WAIT),
];

/// What of `GET /containers/{id}/json` decides how its streams are joined.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerDetails {
    id: String,
    config: ContainerConfig,
    state: ContainerState,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerConfig {
    #[serde(default)]
    tty: bool,
    #[serde(default)]
    open_stdin: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerState {
    #[serde(default)]
    running: bool,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    restarting: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    auto_remove: bool,
}
