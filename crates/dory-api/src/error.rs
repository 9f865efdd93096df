//! What a request that fails is answered with: Docker's `{"message": …}` and one status per kind of error.

use std::error::Error;

use axum::response::{IntoResponse, Response};
use dory_engine::{EngineError, ErrorKind};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    message: String,
    cause: String,
}

/// The body of every error, Docker Engine API `ErrorResponse`.
#[derive(Debug, Serialize)]
struct ErrorResponse<'a> {
    message: &'a str,
}

impl ApiError {
    /// An error with this status and text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), cause: String::new() }
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404 for a path that is no route, in dockerd's words.
    pub fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    /// 501 for something of the API that the engine does not do; `what` begins the sentence.
    pub fn not_supported(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not supported by dory yet"))
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The text that people see.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What caused it, for the log only; empty where the message says all.
    pub fn cause(&self) -> &str {
        &self.cause
    }
}

/// The one table from kind to status.
fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        // Many messages tell the cause already.
        let cause = Some(causes.join(": ")).filter(|cause| !error.message().contains(cause.as_str()));
        Self { cause: cause.unwrap_or_default(), ..Self::new(status_of(error.kind()), error.message()) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        let mut body =
            serde_json::to_vec(&ErrorResponse { message: &self.message }).expect("a string is always JSON");
        body.push(b'\n');
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], body).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn maps_kinds_and_keeps_causes_for_the_log() {
        let cases = [
            (ErrorKind::NotFound, 404),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Invalid, 400),
            (ErrorKind::Unauthorized, 401),
            (ErrorKind::Forbidden, 403),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::NotImplemented, 501),
            (ErrorKind::Internal, 500),
        ];
        for (kind, status) in cases {
            let error = EngineError::new(kind, "No \"such\" thing").caused_by("disk on fire");
            let error = ApiError::from(error);
            assert_eq!(error.cause(), "disk on fire");
            let response = error.into_response();
            assert_eq!(response.status().as_u16(), status);
            let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
            assert_eq!(body, "{\"message\":\"No \\\"such\\\" thing\"}\n");
        }
        let response = ApiError::from(EngineError::new(ErrorKind::NotModified, "runs")).into_response();
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert!(axum::body::to_bytes(response.into_body(), 1024).await.unwrap().is_empty());
    }
}
