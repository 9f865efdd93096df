//! Routes of the 1.51 specification that dory answers without doing them: a clear refusal instead of a 404, which
//! clients would take for a missing object.
//!
//! Swarm is never spoken: `docker info`, prune and compose ask, and expect dockerd's own 503 from a node without one.

use axum::Router;
use axum::routing::{MethodFilter, MethodRouter, any, get, on, post};
use http::StatusCode;

use crate::error::ApiError;
use crate::json::Json;

/// dockerd's text for a node that is in no swarm.
const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                             connect this node to swarm and try again.";
/// Everything below these needs a swarm.
const SWARM_OBJECTS: [&str; 5] = ["/nodes", "/services", "/tasks", "/secrets", "/configs"];

/// The routes.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new()
        .route("/swarm", get(not_a_manager))
        .route("/swarm/{*action}", get(not_a_manager).post(not_a_manager))
        .route("/swarm/leave", post(not_in_a_swarm))
        .route("/swarm/init", refuse(MethodFilter::POST, "swarm mode (docker swarm init)"))
        .route("/swarm/join", refuse(MethodFilter::POST, "swarm mode (docker swarm join)"))
        .route("/plugins", get(async || Json::<[(); 0]>([])))
        .route("/plugins/{*name}", any(async || ApiError::not_supported("managed plugins (docker plugin)")));
    for path in SWARM_OBJECTS {
        router =
            router.route(path, any(not_a_manager)).route(&format!("{path}/{{*rest}}"), any(not_a_manager));
    }
    router
}

/// A route that names what is not there.
fn refuse<S: Clone + Send + Sync + 'static>(method: MethodFilter, what: &'static str) -> MethodRouter<S> {
    on(method, async move || ApiError::not_supported(what))
}

async fn not_in_a_swarm() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm")
}

async fn not_a_manager() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NOT_A_MANAGER)
}
