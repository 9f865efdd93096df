//! What every request passes on its way to a route: version prefix, common headers, access log.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use dory_buildkit::BuildKit;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use tower::ServiceExt;

use crate::error::ApiError;
use crate::version::{ApiVersion, negotiate};

/// Routes requests; cheap to clone, one clone per connection.
#[derive(Debug, Clone)]
pub(crate) struct Dispatcher {
    router: Router,
    headers: Arc<HeaderMap>,
    buildkit: Option<BuildKit>,
}

impl Dispatcher {
    /// A dispatcher over `router`; `version` is the engine's, for the `Server` header.
    pub(crate) fn new(router: Router, version: &str) -> Self {
        let mut headers = HeaderMap::new();
        let server = HeaderValue::from_str(&format!("Docker/{version} (linux)"))
            .unwrap_or(HeaderValue::from_static("Docker (linux)"));
        let api_version = HeaderValue::from_str(&ApiVersion::MAXIMUM.to_string())
            .expect("digits and a dot are a header's value");
        headers.insert(HeaderName::from_static("api-version"), api_version);
        headers.insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false"));
        headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
        headers.insert(http::header::SERVER, server);
        Self { router, headers: Arc::new(headers), buildkit: None }
    }

    /// The same with BuildKit beside the routes, for connections that speak HTTP/2.
    pub(crate) fn with_buildkit(self, buildkit: BuildKit) -> Self {
        Self { buildkit: Some(buildkit), ..self }
    }

    /// BuildKit, where there is one.
    pub(crate) fn buildkit(&self) -> Option<&BuildKit> {
        self.buildkit.as_ref()
    }

    /// Answers one request.
    pub(crate) async fn dispatch(self, mut request: Request<Body>) -> Response {
        let started = Instant::now();
        let method = request.method().clone();
        let uri = request.uri().clone();
        let mut response = match rewrite(&uri) {
            Ok((version, uri)) => {
                *request.uri_mut() = uri;
                request.extensions_mut().insert(version);
                let Ok(response) = self.router.oneshot(request).await;
                response
            }
            Err(error) => error.into_response(),
        };
        for (name, value) in self.headers.iter() {
            response.headers_mut().insert(name, value.clone());
        }
        log(&method, &uri, &mut response, started);
        response
    }
}

/// Takes the version off the path, and doubled slashes (`docker inspect /name` sends them) out of it.
fn rewrite(uri: &Uri) -> Result<(ApiVersion, Uri), ApiError> {
    let (version, path) = negotiate(uri.path())?;
    if path.len() == uri.path().len() && !path.contains("//") {
        return Ok((version, uri.clone()));
    }
    let mut target = path.to_owned();
    while target.contains("//") {
        target = target.replace("//", "/");
    }
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| ApiError::page_not_found())?);
    let uri = Uri::from_parts(parts).map_err(|_| ApiError::page_not_found())?;
    Ok((version, uri))
}

/// One line per request; a request that the engine could not do is an error, one that was wrong is not.
fn log(method: &http::Method, uri: &Uri, response: &mut Response, started: Instant) {
    let status = response.status().as_u16();
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) if status == 500 => {
            tracing::error!(
                %method, path = uri.path(), status, error = error.message(), cause = error.cause(), "Request failed"
            );
        }
        Some(error) => {
            tracing::debug!(%method, path = uri.path(), status, milliseconds, error = error.message(), "Refused");
        }
        None => tracing::debug!(%method, path = uri.path(), status, milliseconds, "Answered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_paths_and_keeps_queries() {
        let cases = [
            ("/v1.41/containers/json?all=1&filters=%7B%7D", "/containers/json?all=1&filters=%7B%7D"),
            ("/containers//web/json", "/containers/web/json"),
            ("/v1.24/images/a/b/json", "/images/a/b/json"),
            ("http://docker/v1.24/_ping", "http://docker/_ping"),
            ("/info", "/info"),
        ];
        for (from, to) in cases {
            assert_eq!(rewrite(&from.parse().unwrap()).unwrap().1.to_string(), to, "{from}");
        }
    }
}
