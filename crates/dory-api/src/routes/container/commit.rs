//! `POST /commit`.

use axum::extract::State;
use dory_engine::config::{ContainerConfig, json};
use dory_engine::{CommitOptions, Engine};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::json::{Json, OptionalJson};
use crate::query::Query;

/// API 1.51, `IDResponse`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Created {
    id: String,
}

/// Makes an image of a container.
pub(super) async fn commit(
    State(engine): State<Engine>,
    query: Query,
    OptionalJson(body): OptionalJson<Value>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    let text = |name| query.get(name).unwrap_or_default().to_owned();
    let options = CommitOptions {
        repository: text("repo"),
        tag: text("tag"),
        author: text("author"),
        comment: text("comment"),
        pause: query.boolean_or("pause", true),
        changes: query.all("changes").map(str::to_owned).collect(),
        config: config(body)?,
    };
    let id = engine.commit_container(query.get("container").unwrap_or_default(), options).await?;
    Ok((StatusCode::CREATED, Json(Created { id })))
}

/// The configuration that the body asks for.
///
/// No body, `null` and `{}` all stand for the container's own configuration.
///
/// # Errors
/// 400 for what is none.
pub(crate) fn config(body: Option<Value>) -> Result<Option<ContainerConfig>, ApiError> {
    match body {
        Some(Value::Object(fields)) if !fields.is_empty() => json::from_value(Value::Object(fields))
            .map(Some)
            .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}"))),
        _ => Ok(None),
    }
}
