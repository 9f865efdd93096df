//! One line of JSON for each decision: who, what, which rule, why, what was changed.
//!
//! Names are written as JSON strings, so no name can make a line of its own. Bodies, environment and credentials are in no line.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use dory_policy::Change;
use dory_types::Timestamp;
use serde::Serialize;

/// Where lines go.
pub struct Audit(Mutex<Box<dyn Write + Send>>);

impl std::fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Audit")
    }
}

/// A decision.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'l> {
    pub session: &'l str,
    pub policy: &'l str,
    pub method: &'l str,
    /// The route, or the beginning of a path that is none.
    pub route: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'l str>,
    pub verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'l str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<&'l str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub dropped: &'l [String],
}

#[derive(Serialize)]
struct Stamped<'l> {
    time: String,
    #[serde(flatten)]
    line: &'l Line<'l>,
}

impl Audit {
    /// Writes to `sink`.
    pub fn new(sink: Box<dyn Write + Send>) -> Self {
        Self(Mutex::new(sink))
    }

    pub(crate) fn write(&self, line: &Line<'_>) {
        let stamped = Stamped { time: Timestamp::now().to_string(), line };
        let Ok(mut text) = serde_json::to_string(&stamped) else { return };
        text.push('\n');
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not stop anybody's work; the decision itself stands.
        if let Err(error) = sink.write_all(text.as_bytes()).and_then(|()| sink.flush()) {
            tracing::warn!(%error, "Cannot write to the audit");
        }
    }
}

/// The rules of changes, for a line.
pub(crate) fn rules(changes: &[Change]) -> Vec<&'static str> {
    changes.iter().map(|change| change.rule).collect()
}
