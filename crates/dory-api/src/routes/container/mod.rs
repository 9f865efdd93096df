//! `/containers`.

mod archive;
mod attach;
pub(crate) mod commit;
pub(crate) mod create;
mod inspect;
mod lifecycle;
mod logs;
mod older;
mod stats;
mod wait;

use axum::Router;
use axum::routing::{delete, get, post};
use dory_engine::Engine;

/// The routes.
pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/containers/json", get(inspect::list))
        .route("/containers/create", post(create::create))
        .route("/containers/prune", post(lifecycle::prune))
        .route("/containers/{id}", delete(lifecycle::remove))
        .route("/containers/{id}/{alias}", delete(lifecycle::remove_link))
        .route("/containers/{id}/json", get(inspect::inspect))
        .route("/containers/{id}/top", get(inspect::top))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/attach/ws", get(attach::attach_by_websocket))
        .route("/containers/{id}/wait", post(wait::wait))
        .route("/containers/{id}/start", post(lifecycle::start))
        .route("/containers/{id}/stop", post(lifecycle::stop))
        .route("/containers/{id}/restart", post(lifecycle::restart))
        .route("/containers/{id}/kill", post(lifecycle::kill))
        .route("/containers/{id}/pause", post(lifecycle::pause))
        .route("/containers/{id}/unpause", post(lifecycle::unpause))
        .route("/containers/{id}/rename", post(lifecycle::rename))
        .route("/containers/{id}/resize", post(lifecycle::resize))
        .route("/containers/{id}/update", post(lifecycle::update))
        .route("/commit", post(commit::commit))
        .route("/containers/{id}/changes", get(archive::changes))
        .route("/containers/{id}/export", get(archive::export))
        .route("/containers/{id}/archive", get(archive::read).head(archive::stat).put(archive::write))
}
