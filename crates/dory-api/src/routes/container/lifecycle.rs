//! What changes a container's state or settings.

use axum::body::{Body, HttpBody};
use axum::extract::{Path, State};
use dory_engine::config::UpdateConfig;
use dory_engine::{Engine, PrunedContainers, RemoveOptions, StopOptions};
use http::StatusCode;
use serde::Serialize;

use crate::error::ApiError;
use crate::json::Json;
use crate::query::Query;

/// API 1.51, `ContainerUpdateResponse`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UpdateResponse {
    /// `null` where there are none, as with dockerd.
    warnings: Option<Vec<String>>,
}

/// Longest body of a start that is no configuration: `null` and `{}` with spaces, as dockerd counts.
const START_BODY_LIMIT: u64 = 7;

/// `POST /containers/{id}/start`.
pub(super) async fn start(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
    body: Body,
) -> Result<StatusCode, ApiError> {
    if body.size_hint().upper().is_none_or(|length| length > START_BODY_LIMIT) {
        return Err(ApiError::bad_request(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if query.text("checkpoint").is_some() {
        return Err(ApiError::not_supported("starting from a checkpoint"));
    }
    engine.start_container(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `t` and `signal` of stop and restart.
fn stop_options(query: &Query) -> Result<StopOptions, ApiError> {
    Ok(StopOptions { signal: query.text("signal").map(str::to_owned), timeout: query.integer("t")? })
}

/// `POST /containers/{id}/stop`.
pub(super) async fn stop(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    engine.stop_container(&id, stop_options(&query)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/restart`.
pub(super) async fn restart(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    engine.restart_container(&id, stop_options(&query)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/kill`.
pub(super) async fn kill(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    engine.kill_container(&id, query.text("signal")).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/pause`.
pub(super) async fn pause(
    State(engine): State<Engine>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    engine.pause_container(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/unpause`.
pub(super) async fn unpause(
    State(engine): State<Engine>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    engine.unpause_container(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/rename`.
pub(super) async fn rename(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    engine.rename_container(&id, query.get("name").unwrap_or_default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/resize`.
pub(super) async fn resize(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
) -> Result<(), ApiError> {
    let (height, width) = query.console_size()?;
    Ok(engine.resize_container(&id, height, width).await?)
}

/// `POST /containers/{id}/update`.
pub(super) async fn update(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    Json(update): Json<UpdateConfig>,
) -> Result<Json<UpdateResponse>, ApiError> {
    let warnings = engine.update_container(&id, update).await?;
    let warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
    Ok(Json(UpdateResponse { warnings }))
}

/// `DELETE /containers/{id}`.
pub(super) async fn remove(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    let options = RemoveOptions {
        force: query.boolean("force"),
        volumes: query.boolean("v"),
        link: query.boolean("link"),
    };
    engine.remove_container(&id, options).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /containers/{id}/{alias}`: such a name is that of a link.
pub(super) async fn remove_link(
    State(engine): State<Engine>,
    Path((id, alias)): Path<(String, String)>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    remove(State(engine), Path(format!("{id}/{alias}")), query).await
}

/// `POST /containers/prune`.
pub(super) async fn prune(
    State(engine): State<Engine>,
    query: Query,
) -> Result<Json<PrunedContainers>, ApiError> {
    Ok(Json(engine.prune_containers(&query.filters()?).await?))
}
