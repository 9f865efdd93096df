//! `/networks`.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use dory_engine::config::EndpointSettings;
use dory_engine::{Engine, NetworkCreate, NetworkDetails};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::ApiVersion;
use crate::error::ApiError;
use crate::json::Json;
use crate::query::Query;

/// API 1.51, `NetworkCreateResponse`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkCreateResponse {
    id: String,
    warning: &'static str,
}

/// API 1.51, `NetworkConnectRequest`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NetworkConnectRequest {
    container: String,
    endpoint_config: Option<EndpointSettings>,
}

/// API 1.51, `NetworkDisconnectRequest`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NetworkDisconnectRequest {
    container: String,
    force: bool,
}

/// API 1.51, `NetworkPruneResponse`; `null` where nothing was deleted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkPruneResponse {
    networks_deleted: Option<Vec<String>>,
}

/// The routes.
pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

async fn list(
    State(engine): State<Engine>,
    version: ApiVersion,
    query: Query,
) -> Result<Json<Vec<NetworkDetails>>, ApiError> {
    let mut networks = engine.list_networks(&query.filters()?).await?;
    if version.before(28) {
        // The list told everything then; one that is removed meanwhile stays as it was.
        for network in &mut networks {
            if let Ok(details) = engine.inspect_network(&network.id).await {
                *network = details;
            }
        }
    }
    Ok(Json(networks))
}

async fn inspect(
    State(engine): State<Engine>,
    Path(id): Path<String>,
) -> Result<Json<NetworkDetails>, ApiError> {
    Ok(Json(engine.inspect_network(&id).await?))
}

async fn create(
    State(engine): State<Engine>,
    Json(request): Json<NetworkCreate>,
) -> Result<(StatusCode, Json<NetworkCreateResponse>), ApiError> {
    let id = engine.create_network(request).await?;
    Ok((StatusCode::CREATED, Json(NetworkCreateResponse { id, warning: "" })))
}

async fn connect(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    Json(request): Json<NetworkConnectRequest>,
) -> Result<(), ApiError> {
    Ok(engine.connect_network(&id, &request.container, request.endpoint_config.unwrap_or_default()).await?)
}

async fn disconnect(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    Json(request): Json<NetworkDisconnectRequest>,
) -> Result<(), ApiError> {
    Ok(engine.disconnect_network(&id, &request.container, request.force).await?)
}

async fn remove(State(engine): State<Engine>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    engine.remove_network(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(State(engine): State<Engine>, query: Query) -> Result<Json<NetworkPruneResponse>, ApiError> {
    let deleted = engine.prune_networks(&query.filters()?).await?;
    Ok(Json(NetworkPruneResponse { networks_deleted: Some(deleted).filter(|names| !names.is_empty()) }))
}
