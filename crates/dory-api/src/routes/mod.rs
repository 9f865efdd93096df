//! Every path of the API and what answers it: one file per resource.

mod body;
mod build;
mod build_trace;
mod buildkit;
pub(crate) mod container;
mod events;
mod exec;
mod image;
pub(crate) mod network;
mod registry;
mod registry_auth;
mod system;
mod unsupported;
mod volume;

use axum::Router;
use axum::middleware::from_fn;
use build_trace::TracedBuilds;
use dory_buildkit::BuildKit;
use dory_engine::Engine;

use crate::error::ApiError;

/// All routes over `engine` and its `buildkit`.
pub(crate) fn router(engine: Engine, buildkit: &BuildKit) -> Router {
    let router = Router::new()
        .merge(system::routes())
        .merge(events::routes())
        .merge(container::routes())
        .merge(exec::routes())
        .merge(image::routes())
        .merge(build::routes())
        .merge(registry::routes())
        .merge(volume::routes())
        .merge(network::routes())
        .merge(buildkit::routes(buildkit))
        .merge(unsupported::routes());
    let traced = TracedBuilds::new(buildkit.clone());
    let intercept = from_fn(move |request, next| traced.clone().intercept(request, next));
    with_fallbacks(router.with_state(engine)).layer(intercept)
}

/// Answers what is no route, and a route with the wrong method, as dockerd does.
pub(crate) fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(async || ApiError::page_not_found())
        .method_not_allowed_fallback(async || ApiError::page_not_found())
}
