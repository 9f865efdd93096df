//! `/session` and `/grpc`: BuildKit's HTTP/2 over connections that begin as HTTP/1.1.
//!
//! Docker Engine API 1.51, `Session`. `/grpc` is in no specification; docker's clients build through it since API 1.40.

use axum::Router;
use axum::response::Response;
use axum::routing::post;
use dory_buildkit::BuildKit;
use dory_engine::Engine;
use http::HeaderMap;
use http::header::UPGRADE;

use crate::error::ApiError;
use crate::hijack::{Hijack, StreamKind, UpgradeForm};

/// The routes.
pub(super) fn routes(buildkit: &BuildKit) -> Router<Engine> {
    let (sessions, calls) = (buildkit.clone(), buildkit.clone());
    Router::new()
        .route("/session", post(async move |headers: HeaderMap| session(sessions, headers)))
        .route("/grpc", post(async move |headers: HeaderMap| grpc(calls, &headers)))
}

/// Keeps the connection for calls of the client's services.
fn session(buildkit: BuildKit, headers: HeaderMap) -> Result<Response, ApiError> {
    check_upgrade(&headers)?;
    Ok(Hijack::response(UpgradeForm::Http2, StreamKind::Raw, async move |tunnel| {
        buildkit.serve_session(&headers, tunnel).await
    }))
}

/// Serves calls of BuildKit's own services.
fn grpc(buildkit: BuildKit, headers: &HeaderMap) -> Result<Response, ApiError> {
    check_upgrade(headers)?;
    Ok(Hijack::response(UpgradeForm::Http2, StreamKind::Raw, async move |tunnel| {
        buildkit.serve(tunnel).await
    }))
}

/// What dockerd says where the client does not ask for HTTP/2.
fn check_upgrade(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(UPGRADE).map(|value| value.to_str().unwrap_or_default()) {
        Some("h2c") => Ok(()),
        None => Err(ApiError::bad_request("no upgrade proto in request")),
        Some(other) => Err(ApiError::bad_request(format!("protocol {other} not supported"))),
    }
}
