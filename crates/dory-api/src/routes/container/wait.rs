//! `POST /containers/{id}/wait`.

use axum::extract::{Path, State};
use axum::response::Response;
use dory_engine::{Engine, WaitCondition, WaitOutcome};
use serde::Serialize;

use crate::ApiVersion;
use crate::error::ApiError;
use crate::query::Query;
use crate::routes::body::{StreamEnd, json_line, streamed};

/// API 1.51, `ContainerWaitResponse`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct WaitResponse {
    status_code: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<WaitExitError>,
}

/// API 1.51, `ContainerWaitExitError`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct WaitExitError {
    message: String,
}

impl From<WaitOutcome> for WaitResponse {
    fn from(outcome: WaitOutcome) -> Self {
        let error = Some(outcome.error).filter(|message| !message.is_empty());
        Self {
            status_code: i64::from(outcome.exit_code),
            error: error.map(|message| WaitExitError { message }),
        }
    }
}

/// The head goes out as soon as the wait is registered: `docker run` starts the container only when it has the head.
pub(super) async fn wait(
    State(engine): State<Engine>,
    version: ApiVersion,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    // Conditions exist since API 1.30.
    let condition: WaitCondition = match query.get("condition").filter(|_| version.at_least(30)) {
        Some(text) => text.parse()?,
        None => WaitCondition::default(),
    };
    let waiting = engine.wait_container(&id, condition).await?;
    let answer = async {
        let response = match waiting.outcome().await {
            Ok(outcome) => WaitResponse::from(outcome),
            Err(error) => WaitResponse::from(WaitOutcome { exit_code: -1, error: error.to_string() }),
        };
        json_line(&response)
    };
    Ok(streamed("application/json", StreamEnd::Client, futures_util::stream::once(answer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_dockerd_does() {
        let cases = [
            (WaitOutcome { exit_code: 137, error: String::new() }, "{\"StatusCode\":137}\n"),
            (
                WaitOutcome { exit_code: 127, error: "no".to_owned() },
                "{\"StatusCode\":127,\"Error\":{\"Message\":\"no\"}}\n",
            ),
        ];
        for (outcome, text) in cases {
            assert_eq!(json_line(&WaitResponse::from(outcome)), text);
        }
    }
}
