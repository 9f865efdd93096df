//! Every path of the API and what answers it.

use axum::Router;

use crate::error::ApiError;

/// Answers what is no route, and a route with the wrong method, as dockerd does.
pub(crate) fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(async || ApiError::page_not_found())
        .method_not_allowed_fallback(async || ApiError::page_not_found())
}
