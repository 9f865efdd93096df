//! A container's state in Docker's fields.

use dory_types::{Timestamp, human_duration};
use serde::{Deserialize, Serialize};

/// API 1.51, `ContainerState.Status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never run (or its start failed).
    #[default]
    Created,
    /// Runs.
    Running,
    /// Runs, frozen.
    Paused,
    /// Ended, and the restart policy is about to start it again.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Its removal failed; only another removal is possible.
    Dead,
}

impl Status {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// API 1.51, `ContainerState`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerState {
    /// Summary of the following.
    pub status: Status,
    /// True also while paused or restarting.
    pub running: bool,
    /// Frozen.
    pub paused: bool,
    /// Between two runs.
    pub restarting: bool,
    /// The OOM killer struck.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Removal failed.
    pub dead: bool,
    /// First process; 0 where none runs.
    pub pid: i32,
    /// Exit code of the last run.
    pub exit_code: i32,
    /// Why the last start failed.
    pub error: String,
    /// When the last run began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Where a health check is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// API 1.51, `Health`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy`, `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last five results.
    pub log: Vec<HealthProbe>,
}

/// API 1.51, `HealthcheckResult`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthProbe {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 is healthy.
    pub exit_code: i32,
    /// The first 4,096 bytes.
    pub output: String,
}

impl ContainerState {
    /// What `docker ps` shows in its STATUS column, at `now`.
    pub fn summary(&self, now: Timestamp) -> String {
        let up = || human_duration(now.since(self.started_at));
        let ago = || human_duration(now.since(self.finished_at));
        match self.status {
            Status::Paused => format!("Up {} (Paused)", up()),
            Status::Restarting => format!("Restarting ({}) {} ago", self.exit_code, ago()),
            Status::Running => match &self.health {
                Some(health) if health.status == "starting" => format!("Up {} (health: starting)", up()),
                Some(health) => format!("Up {} ({})", up(), health.status),
                None => format!("Up {}", up()),
            },
            Status::Removing => "Removal In Progress".to_owned(),
            Status::Dead => "Dead".to_owned(),
            Status::Created => "Created".to_owned(),
            Status::Exited if self.finished_at.is_zero() => String::new(),
            Status::Exited => format!("Exited ({}) {} ago", self.exit_code, ago()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn speaks_as_docker_ps() {
        let began = Timestamp::from_unix(1_000, 0).unwrap();
        let now = began.checked_add(Duration::from_secs(180)).unwrap();
        let state = |status, health: Option<&str>| ContainerState {
            status,
            exit_code: 3,
            started_at: began,
            finished_at: began,
            health: health.map(|status| Health { status: status.to_owned(), ..Health::default() }),
            ..ContainerState::default()
        };
        let cases = [
            (state(Status::Created, None), "Created"),
            (state(Status::Running, None), "Up 3 minutes"),
            (state(Status::Running, Some("starting")), "Up 3 minutes (health: starting)"),
            (state(Status::Running, Some("healthy")), "Up 3 minutes (healthy)"),
            (state(Status::Paused, None), "Up 3 minutes (Paused)"),
            (state(Status::Restarting, None), "Restarting (3) 3 minutes ago"),
            (state(Status::Exited, None), "Exited (3) 3 minutes ago"),
            (state(Status::Dead, None), "Dead"),
        ];
        for (state, text) in cases {
            assert_eq!(state.summary(now), text);
        }
    }
}
