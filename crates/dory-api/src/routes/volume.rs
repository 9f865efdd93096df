//! `/volumes`.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use dory_engine::{Engine, PrunedVolumes, VolumeCreate, VolumeDetails, VolumeList};
use http::StatusCode;

use crate::ApiVersion;
use crate::error::ApiError;
use crate::json::{Json, OptionalJson};
use crate::query::Query;

/// The routes.
pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove).put(update))
}

async fn list(State(engine): State<Engine>, query: Query) -> Result<Json<VolumeList>, ApiError> {
    Ok(Json(engine.list_volumes(&query.filters()?).await?))
}

async fn create(
    State(engine): State<Engine>,
    OptionalJson(request): OptionalJson<VolumeCreate>,
) -> Result<(StatusCode, Json<VolumeDetails>), ApiError> {
    let volume = engine.create_volume(request.unwrap_or_default()).await?;
    Ok((StatusCode::CREATED, Json(volume)))
}

async fn inspect(
    State(engine): State<Engine>,
    Path(name): Path<String>,
) -> Result<Json<VolumeDetails>, ApiError> {
    Ok(Json(engine.inspect_volume(&name).await?))
}

async fn remove(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    engine.remove_volume(&name, query.boolean("force")).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn update() -> ApiError {
    ApiError::not_supported("updating a cluster volume (PUT /volumes)")
}

async fn prune(
    State(engine): State<Engine>,
    version: ApiVersion,
    query: Query,
) -> Result<Json<PrunedVolumes>, ApiError> {
    let mut filters = query.filters()?;
    // Only anonymous ones since 1.42; before, every unused one.
    if version.before(42) {
        filters.add("all", "true");
    }
    Ok(Json(engine.prune_volumes(&filters).await?))
}
