//! API versions: the optional `/v1.xx` before every path, and its limits.
//!
//! Docker Engine API, "Versioning": a path without a version means the newest one that the server speaks.

use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::error::ApiError;

/// A version of the Docker Engine API, `1.41` for example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// Before the dot.
    pub major: u32,
    /// After the dot.
    pub minor: u32,
}

impl ApiVersion {
    /// The newest version served.
    pub const MAXIMUM: Self = Self::new(1, 51);
    /// The oldest version served: what Docker's own engines still speak.
    pub const MINIMUM: Self = Self::new(1, 24);

    const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// True for version `1.minor` and every later one.
    pub fn at_least(self, minor: u32) -> bool {
        self >= Self::new(1, minor)
    }

    /// True for every version before `1.minor`.
    pub fn before(self, minor: u32) -> bool {
        !self.at_least(minor)
    }

    /// Reads digits and dots. A missing or oversized part counts as dockerd counts it: as zero.
    fn parse(text: &str) -> Self {
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
        Self::new(parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }
}

impl<S: Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = Infallible;

    /// The version that the request's path began with.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self::MAXIMUM))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// Splits `/v1.41/info` into the version and `/info`; a path without a version stands for [`ApiVersion::MAXIMUM`].
///
/// # Errors
/// 400 with dockerd's words for a version outside the limits.
pub(crate) fn negotiate(path: &str) -> Result<(ApiVersion, &str), ApiError> {
    let Some((text, rest)) = version_prefix(path) else { return Ok((ApiVersion::MAXIMUM, path)) };
    let version = ApiVersion::parse(text);
    if version < ApiVersion::MINIMUM {
        return Err(ApiError::bad_request(format!(
            "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a \
             newer version",
            ApiVersion::MINIMUM
        )));
    }
    if version > ApiVersion::MAXIMUM {
        return Err(ApiError::bad_request(format!(
            "client version {text} is too new. Maximum supported API version is {}",
            ApiVersion::MAXIMUM
        )));
    }
    Ok((version, rest))
}

/// The digits and dots of `/v<digits and dots>/…`, and what follows, with its slash.
fn version_prefix(path: &str) -> Option<(&str, &str)> {
    let versioned = path.strip_prefix("/v")?;
    let (text, _) = versioned.split_once('/')?;
    let is_version = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_version.then(|| (text, &versioned[text.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_the_version_off() {
        let cases = [
            ("/info", "1.51", "/info"),
            ("/v1.24/info", "1.24", "/info"),
            ("/v1.41/containers/v1.2/json", "1.41", "/containers/v1.2/json"),
            ("/v1.51/", "1.51", "/"),
            ("/volumes/create", "1.51", "/volumes/create"),
            ("/v1.41", "1.51", "/v1.41"),
            ("/v/info", "1.51", "/v/info"),
            ("/version", "1.51", "/version"),
        ];
        for (path, version, rest) in cases {
            let (negotiated, stripped) = negotiate(path).unwrap();
            assert_eq!((negotiated.to_string().as_str(), stripped), (version, rest), "{path}");
        }
    }

    #[test]
    fn refuses_in_dockers_words() {
        let cases = [
            ("/v1.99/info", "client version 1.99 is too new. Maximum supported API version is 1.51"),
            ("/v2.0/info", "client version 2.0 is too new. Maximum supported API version is 1.51"),
            (
                "/v1.12/info",
                "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client \
                 to a newer version",
            ),
            (
                "/v1/info",
                "client version 1 is too old. Minimum supported API version is 1.24, please upgrade your client to \
                 a newer version",
            ),
        ];
        for (path, message) in cases {
            let error = negotiate(path).unwrap_err();
            assert_eq!((error.status().as_u16(), error.message()), (400, message), "{path}");
        }
    }

    #[test]
    fn orders_versions_by_number() {
        assert!(ApiVersion::parse("1.9") < ApiVersion::parse("1.24"));
        assert!(ApiVersion::parse("1.44").at_least(44) && ApiVersion::parse("1.43").before(44));
    }
}
