//! What registries are asked: `/auth`, `/distribution`, `/images/search`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use dory_engine::{Credentials, DistributionInspect, Engine, LoginResult, SearchResult};
use http::HeaderMap;

use super::registry_auth;
use crate::error::ApiError;
use crate::json::Json;
use crate::query::Query;

/// The routes.
pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/auth", post(login))
        .route("/distribution/{*path}", get(inspect))
        .route("/images/search", get(search))
}

async fn login(State(engine): State<Engine>, body: Bytes) -> Result<Json<LoginResult>, ApiError> {
    let (credentials, address) = Credentials::from_auth_config(&body)
        .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))?;
    Ok(Json(engine.login(&address, &credentials).await?))
}

/// `GET /distribution/{name}/json`.
async fn inspect(
    State(engine): State<Engine>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Json<DistributionInspect>, ApiError> {
    let Some(name) = path.strip_suffix("/json") else { return Err(ApiError::page_not_found()) };
    let credentials = registry_auth::credentials(&headers).unwrap_or_default();
    Ok(Json(engine.inspect_distribution(name, credentials).await?))
}

async fn search(
    State(engine): State<Engine>,
    query: Query,
    headers: HeaderMap,
) -> Result<Json<Vec<SearchResult>>, ApiError> {
    let limit = match query.integer("limit")? {
        None | Some(0) => None,
        Some(limit @ 1..=100) => Some(limit as usize),
        Some(limit) => {
            return Err(ApiError::bad_request(format!("limit {limit} is outside the range of [1, 100]")));
        }
    };
    let credentials = registry_auth::credentials(&headers).unwrap_or_default();
    Ok(Json(engine.search_images(query.get("term").unwrap_or_default(), limit, &credentials).await?))
}
