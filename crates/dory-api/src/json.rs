//! JSON bodies, read and written as dockerd does.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::ApiError;

/// Longest JSON request. The largest real one is a create with a seccomp profile in it, some tens of kilobytes.
const BODY_LIMIT: usize = 8 << 20;
/// A longer one waits for its turn, so that many of them do not fill the engine's memory.
const SMALL_BODY: usize = 256 << 10;
/// How long a client may take to send the rest when its turn has come.
const TURN_TIME: Duration = Duration::from_secs(30);
/// Long bodies are read and parsed one at a time.
static TURNS: Semaphore = Semaphore::const_new(1);

/// A JSON body: in a handler's arguments the request's, which must be there; in its answer the response's.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON request body that may be missing or empty (`None`).
#[derive(Debug)]
pub(crate) struct OptionalJson<T>(pub(crate) Option<T>);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = read(request).await?;
        if body.bytes.is_empty() {
            return Err(ApiError::bad_request("invalid JSON: got EOF while reading request body"));
        }
        parse(body).map(Self)
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = read(request).await?;
        if body.bytes.is_empty() { Ok(Self(None)) } else { parse(body).map(|value| Self(Some(value))) }
    }
}

/// A body in memory.
#[derive(Debug, Default)]
struct WholeBody {
    bytes: Vec<u8>,
    /// Held until the body is parsed.
    turn: Option<SemaphorePermit<'static>>,
}

/// The whole body, checked to be announced as JSON if there is one.
async fn read(request: Request) -> Result<WholeBody, ApiError> {
    let (parts, body) = request.into_parts();
    let mut body = Limited::new(body, BODY_LIMIT);
    let mut whole = WholeBody::default();
    while let Some(piece) = next_piece(&mut body).await? {
        whole.bytes.extend_from_slice(&piece);
        if whole.bytes.len() > SMALL_BODY {
            // Never closed.
            whole.turn = TURNS.acquire().await.ok();
            // A vector that grows has its content twice for a while.
            let left = body.size_hint().lower().min(BODY_LIMIT as u64) as usize;
            whole.bytes.reserve_exact(left);
            let rest = async {
                while let Some(piece) = next_piece(&mut body).await? {
                    whole.bytes.extend_from_slice(&piece);
                }
                Ok::<(), ApiError>(())
            };
            let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the request body took too long");
            tokio::time::timeout(TURN_TIME, rest).await.map_err(late)??;
        }
    }
    if !whole.bytes.is_empty() {
        check_content_type(&parts.headers)?;
    }
    Ok(whole)
}

async fn next_piece(body: &mut Limited<Body>) -> Result<Option<Bytes>, ApiError> {
    match body.frame().await.transpose() {
        Ok(frame) => Ok(frame.map(|frame| frame.into_data().unwrap_or_default())),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request body too large"))
        }
        Err(_) => Err(ApiError::bad_request("invalid JSON: unexpected EOF")),
    }
}

/// dockerd's `CheckForJSON`.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "unsupported Content-Type header ({value}): must be 'application/json'"
    )))
}

fn parse<T: DeserializeOwned>(body: WholeBody) -> Result<T, ApiError> {
    let value = dory_engine::config::json::from_slice(&body.bytes);
    drop(body.turn);
    value.map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(mut body) => {
                body.push(b'\n');
                ([(CONTENT_TYPE, "application/json")], Body::from(body)).into_response()
            }
            Err(error) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    async fn body(content_type: Option<&str>, text: &str) -> Result<Json<BTreeMap<String, i64>>, ApiError> {
        let mut request = Request::builder();
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        Json::from_request(request.body(Body::from(text.to_owned())).unwrap(), &()).await
    }

    #[tokio::test]
    async fn refuses_what_is_not_json() {
        let json = Some("application/json");
        let cases = [
            (json, "", "invalid JSON: got EOF while reading request body"),
            (json, "{\"a\":", "invalid JSON: EOF while parsing a value at line 1 column 5"),
            (json, "{} {}", "invalid JSON: trailing characters at line 1 column 4"),
            (None, "{}", "unsupported Content-Type header (): must be 'application/json'"),
            (
                Some("text/plain"),
                "{}",
                "unsupported Content-Type header (text/plain): must be 'application/json'",
            ),
        ];
        for (content_type, text, message) in cases {
            let error = body(content_type, text).await.unwrap_err();
            assert_eq!((error.status().as_u16(), error.message()), (400, message), "{text}");
        }
        assert_eq!(body(Some("application/json; charset=utf-8"), "{\"a\":1}").await.unwrap().0["a"], 1);
        let long = format!("{{\"a\":{}}}", " ".repeat(BODY_LIMIT));
        assert_eq!(body(json, &long).await.unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
