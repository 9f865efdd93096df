//! `POST /build` as the classic builder answers it, `/build/cancel` and `/build/prune`.
//!
//! The solver is the same that BuildKit's clients get; what differs is how the request comes and what the answer says.

mod options;
mod text;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use dory_build::context::ArchiveContext;
use dory_build::{BuildError, Cancel, NoCache, Progress};
use dory_engine::Engine;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::body::{StreamEnd, streamed, upload};
use crate::error::ApiError;
use crate::json::Json;
use crate::query::Query;
use options::Options;
use text::ClassicText;

/// Lines that wait for a client that is slow to read; then the build waits.
const QUEUE: usize = 256;

/// The routes.
pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/build", post(build))
        .route("/build/cancel", post(cancel))
        .route("/build/prune", post(prune))
}

async fn build(
    State(engine): State<Engine>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let options = Options::read(&query, &headers)?;
    let cancel = Cancel::new();
    let (sender, mut lines) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let (client, wanted) = (sender.clone(), cancel.clone());
        let ended = upload(body, |archive| {
            tokio::task::spawn_blocking(move || run(&engine, options, archive, &sender, &cancel))
        });
        tokio::pin!(ended);
        let ended = tokio::select! {
            ended = &mut ended => ended,
            () = client.closed() => {
                // Whoever hangs up wants the image no more.
                wanted.cancel();
                ended.await
            }
        };
        if let Err(error) = ended {
            tracing::error!(%error, "A build's task ended early");
        }
    });
    // As with dockerd, what is wrong before the first line is the answer's status.
    match lines.recv().await {
        Some(Line::Failed(error)) => Err(error),
        first => {
            let mut first = first;
            let lines = futures_util::stream::poll_fn(move |context| match first.take() {
                Some(line) => std::task::Poll::Ready(Some(line)),
                None => lines.poll_recv(context),
            });
            let bytes = futures_util::StreamExt::filter_map(lines, |line| async move {
                match line {
                    Line::Text(bytes) => Some(bytes),
                    Line::Failed(_) => None,
                }
            });
            Ok(streamed("application/json", StreamEnd::Client, Box::pin(bytes)))
        }
    }
}

/// What goes to the client.
#[derive(Debug)]
enum Line {
    /// A line of the answer.
    Text(Bytes),
    /// Nothing was said before: an answer of its own.
    Failed(ApiError),
}

/// Builds, on a thread for that.
fn run(
    engine: &Engine,
    options: Options,
    archive: impl std::io::Read + Send + 'static,
    sender: &mpsc::Sender<Line>,
    cancel: &Cancel,
) {
    let text = Arc::new(ClassicText::new(sender.clone(), options.quiet));
    let builder = engine.builder();
    let _registered = builder.register(&options.build_id, cancel);
    let mut request = options.request;
    // COMPAT: dockerd looks at the images that are named and here, and at nothing else. What was built here is found by its key
    // and not by an image, so what matters is whether any of them is here.
    let is_here = |name: &String| builder.store().resolve(name).is_ok();
    if !options.cache_from.is_empty() && !options.cache_from.iter().any(is_here) {
        request.no_cache = NoCache::All;
    }
    request.images = Some(engine.build_images(options.credentials));
    request.context = Some(match &options.remote {
        Some(address) => builder.remote_context(address, None),
        None => Arc::new(ArchiveContext::new(Arc::clone(builder.store()), Box::new(archive))),
    });
    let progress: Arc<dyn Progress> = Arc::<ClassicText>::clone(&text);
    match builder.build(&request, &progress, cancel) {
        Ok(outcome) => {
            engine.publish_build(&outcome, &request.names);
            text.succeed(&outcome, &request.names);
        }
        Err(error) => text.fail(&error),
    }
}

/// The status of a build that failed before it said anything.
fn status(error: &BuildError) -> StatusCode {
    match error {
        BuildError::Parse { .. }
        | BuildError::Target(_)
        | BuildError::Invalid(_)
        | BuildError::Step { .. }
        | BuildError::NotEntitled { .. } => StatusCode::BAD_REQUEST,
        BuildError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// `POST /build/cancel`; one that is not there is no error.
async fn cancel(State(engine): State<Engine>, query: Query) -> Result<Response, ApiError> {
    let id = query.text("id").ok_or_else(|| ApiError::bad_request("build ID not provided"))?;
    engine.builder().cancel(id);
    Ok(StatusCode::OK.into_response())
}

/// API 1.51, `BuildPruneResponse`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct BuildPruneResponse {
    caches_deleted: Option<Vec<String>>,
    space_reclaimed: u64,
}

async fn prune(State(engine): State<Engine>, query: Query) -> Result<Json<BuildPruneResponse>, ApiError> {
    let options = options::prune(&query)?;
    let builder = engine.builder();
    let pruned = tokio::task::spawn_blocking(move || builder.prune(&options));
    let failed =
        |error: &dyn std::fmt::Display| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let pruned = pruned.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    Ok(Json(BuildPruneResponse {
        caches_deleted: Some(pruned.keys).filter(|keys| !keys.is_empty()),
        space_reclaimed: pruned.bytes,
    }))
}
