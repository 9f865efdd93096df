//! Who asks a registry: the `X-Registry-Auth` header (API 1.51, "Authentication").

use dory_engine::Credentials;
use http::{HeaderMap, HeaderName};

use crate::error::ApiError;

/// The header.
const HEADER: HeaderName = HeaderName::from_static("x-registry-auth");

/// The credentials that a request brings; nobody's where it brings none.
///
/// # Errors
/// 400 where the header is not Docker's.
pub(super) fn credentials(headers: &HeaderMap) -> Result<Credentials, ApiError> {
    let Some(value) = headers.get(HEADER) else { return Ok(Credentials::Anonymous) };
    Credentials::from_header(&String::from_utf8_lossy(value.as_bytes()))
        .map_err(|error| ApiError::bad_request(error.to_string()))
}
