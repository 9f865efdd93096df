//! What goes wrong between us and a registry, in words that people who know Docker's recognise.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use dory_types::{Digest, ImageReference};
use http::{Method, StatusCode};
use serde::Deserialize;

use crate::auth::TokenError;
use crate::config::ConfigError;
use crate::http::{Location, TransportError};
use crate::manifest::ManifestError;

/// The longest part of a registry's own words that is passed on, in characters.
const MESSAGE_LENGTH_MAX: usize = 500;
/// The most errors of one answer that are passed on.
const MESSAGES_MAX: usize = 5;

/// A cause of which nothing is needed but its words.
type Cause = Box<dyn Error + Send + Sync>;

/// How a failure is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryErrorKind {
    /// There is no such repository or image, or it is not to be seen.
    NotFound,
    /// The credentials are missing or wrong.
    Unauthorized,
    /// The registry lets nobody in so often.
    RateLimited,
    /// The caller's input is wrong.
    Invalid,
    /// What the registry sent cannot be right.
    Untrustworthy,
    /// Everything else: the registry is away, or has troubles of its own.
    Unavailable,
}

/// An operation with a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What should be the address of a file is none.
    #[error("`{0}` is no http or https address")]
    Address(String),
    /// Connections to the registry cannot be set up.
    #[error("cannot set up connections to `{registry}`")]
    Setup {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A request got no answer; worded as Go's HTTP client does.
    #[error("{} \"{url}\"", capitalised(method))]
    Exchange {
        /// The request's method.
        method: Method,
        /// Where it went to, without a query.
        url: String,
        /// Why.
        #[source]
        source: Cause,
        /// True where a later try may succeed.
        temporary: bool,
    },
    /// The registry wants a name and a password, and there are none; worded as dockerd does.
    #[error("{} \"{url}\": no basic auth credentials", capitalised(method))]
    NoCredentials {
        /// The request's method.
        method: Method,
        /// Where it went to.
        url: String,
    },
    /// The token service gave no token.
    #[error("cannot sign in to `{registry}`")]
    Token {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The credentials do not count, or do not suffice.
    #[error("{message}")]
    Unauthorized {
        /// In the registry's words.
        message: String,
    },
    /// There is no such manifest; dockerd's words.
    #[error("manifest for {reference} not found: {message}")]
    ManifestUnknown {
        /// What was asked for.
        reference: String,
        /// In the registry's words.
        message: String,
    },
    /// There is no such repository; dockerd's words.
    #[error("repository {repository} not found: {message}")]
    RepositoryUnknown {
        /// What was asked for.
        repository: String,
        /// In the registry's words.
        message: String,
    },
    /// The repository is not for this user, or not there; dockerd's words.
    #[error(
        "pull access denied for {repository}, repository does not exist or may require 'docker login': {message}"
    )]
    Denied {
        /// What was asked for.
        repository: String,
        /// In the registry's words.
        message: String,
    },
    /// The repository is not for this user to write to; dockerd's words.
    #[error("{message}")]
    PushDenied {
        /// What was written to.
        repository: String,
        /// In the registry's words.
        message: String,
    },
    /// Too many requests.
    #[error("{message}{}", wait(retry_after))]
    RateLimited {
        /// In the registry's words.
        message: String,
        /// How long it wants to be left alone, where it says so.
        retry_after: Option<Duration>,
    },
    /// An answer that is none of those.
    #[error("{} \"{url}\": {message}", capitalised(method))]
    Status {
        /// The request's method.
        method: Method,
        /// Where it went to, without a query.
        url: String,
        /// The answer's status.
        status: StatusCode,
        /// In the registry's words.
        message: String,
    },
    /// A web server does not send the file that was asked for; dockerd's words.
    #[error("failed to GET {url} with status {status}")]
    Download {
        /// Which file, without a query.
        url: String,
        /// The answer's status.
        status: StatusCode,
    },
    /// A manifest is not one.
    #[error("invalid manifest for {reference}")]
    Manifest {
        /// What was asked for.
        reference: String,
        /// Why.
        #[source]
        source: Box<ManifestError>,
    },
    /// Indexes lead to indexes.
    #[error("the index of {reference} leads to indexes more than {depth} deep")]
    IndexDepth {
        /// What was asked for.
        reference: String,
        /// How deep is allowed.
        depth: usize,
    },
    /// More was sent than can be.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// What.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// What came is not what was asked for.
    #[error("{what} does not match its digest: expected {expected}, found {found}")]
    DigestMismatch {
        /// What.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A blob has another length than its manifest says.
    #[error("blob {digest} has {found} bytes, but its manifest says {expected}")]
    LengthMismatch {
        /// The blob.
        digest: Digest,
        /// What the manifest says, in bytes.
        expected: u64,
        /// What the registry says or sends, in bytes.
        found: u64,
    },
    /// A blob's transfer broke off again and again.
    #[error("blob {digest} broke off after {received} of {size} bytes, in {attempts} attempts")]
    BrokenOff {
        /// The blob.
        digest: Digest,
        /// What came, in bytes.
        received: u64,
        /// Its length in bytes.
        size: u64,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Cause,
    },
    /// A layer is to be had elsewhere only, which Docker allows for Windows alone.
    #[error("layer {digest} is a foreign layer of type `{media_type}`, which is not supported")]
    ForeignLayer {
        /// The layer.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// The manifest is of something else than a container image.
    #[error("{reference} is not a container image: its configuration has the type `{media_type}`")]
    NotAnImage {
        /// What was asked for.
        reference: String,
        /// The configuration's type.
        media_type: String,
    },
    /// What is uploaded cannot be read.
    #[error("cannot read what is to be uploaded")]
    Source(#[source] std::io::Error),
    /// An answer lacks what the protocol demands.
    #[error("{} \"{url}\": the answer has no usable `{header}`", capitalised(method))]
    Header {
        /// The request's method.
        method: Method,
        /// Where it went to.
        url: String,
        /// What is missing.
        header: &'static str,
    },
}

impl RegistryError {
    /// The failure of a request that got no answer.
    pub(crate) fn exchange(method: &Method, location: &Location, source: TransportError) -> Self {
        let temporary = source.is_temporary();
        Self::Exchange { method: method.clone(), url: location.to_string(), source: source.into(), temporary }
    }

    /// What the registry calls the manifest of `reference` is none.
    pub(crate) fn manifest(reference: &ImageReference, source: ManifestError) -> Self {
        Self::Manifest { reference: reference.familiar(), source: Box::new(source) }
    }

    /// The failure of a token service.
    pub(crate) fn token(registry: &str, source: TokenError) -> Self {
        match source {
            TokenError::Refused { status: StatusCode::TOO_MANY_REQUESTS, message } => {
                Self::RateLimited { message, retry_after: None }
            }
            TokenError::Refused { status, message } if status.is_client_error() => {
                Self::Unauthorized { message }
            }
            source => Self::Token { registry: registry.to_owned(), source: source.into() },
        }
    }

    /// How it is to be answered.
    pub fn kind(&self) -> RegistryErrorKind {
        match self {
            Self::ManifestUnknown { .. } | Self::RepositoryUnknown { .. } | Self::Denied { .. } => {
                RegistryErrorKind::NotFound
            }
            Self::NoCredentials { .. } | Self::Unauthorized { .. } => RegistryErrorKind::Unauthorized,
            Self::RateLimited { .. } => RegistryErrorKind::RateLimited,
            Self::Manifest { source, .. } if matches!(**source, ManifestError::NoMatch { .. }) => {
                RegistryErrorKind::NotFound
            }
            Self::Address(_) | Self::NotAnImage { .. } | Self::ForeignLayer { .. } => {
                RegistryErrorKind::Invalid
            }
            Self::Manifest { .. }
            | Self::IndexDepth { .. }
            | Self::TooLong { .. }
            | Self::DigestMismatch { .. }
            | Self::LengthMismatch { .. } => RegistryErrorKind::Untrustworthy,
            _ => RegistryErrorKind::Unavailable,
        }
    }

    /// True where the same request may succeed a moment later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Exchange { temporary, .. } => *temporary,
            Self::Status { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::RateLimited { .. } => true,
            _ => false,
        }
    }

    /// How long the registry wants to be left alone, where it says so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Go's form of a method in its client's errors.
fn capitalised(method: &Method) -> String {
    let (first, rest) = method.as_str().split_at(1);
    format!("{first}{}", rest.to_ascii_lowercase())
}

fn wait(retry_after: &Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| format!(" (try again in {} s)", wait.as_secs()))
}

/// What a registry says about a refused request (distribution-spec, "Error Codes"); shown as dockerd shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegistryMessage {
    status: StatusCode,
    errors: Vec<RegistryProblem>,
}

/// One error of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RegistryProblem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The forms in which registries and token services refuse.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<RegistryProblem>,
    /// Token services of several makers.
    #[serde(default, alias = "error_description", alias = "message")]
    details: String,
}

impl RegistryMessage {
    /// Reads an answer's body, whatever it is.
    pub(crate) fn of(status: StatusCode, body: &[u8]) -> Self {
        let mut errors = match serde_json::from_slice(body) {
            Ok(Refusal { errors, .. }) if !errors.is_empty() => errors,
            Ok(Refusal { details, .. }) if !details.is_empty() => {
                vec![RegistryProblem { code: String::new(), message: details }]
            }
            _ => Vec::new(),
        };
        errors.truncate(MESSAGES_MAX);
        Self { status, errors }
    }

    /// True where the registry says `code` (distribution-spec, "Error Codes").
    pub(crate) fn has(&self, code: &str) -> bool {
        self.errors.iter().any(|error| error.code.eq_ignore_ascii_case(code))
    }
}

impl fmt::Display for RegistryMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors.is_empty() {
            return write!(formatter, "received unexpected HTTP status: {}", self.status);
        }
        let texts = self.errors.iter().map(|error| {
            let code = error.code.to_lowercase().replace('_', " ");
            match (code.as_str(), error.message.as_str()) {
                ("", message) => message.to_owned(),
                (code, "") => code.to_owned(),
                (code, message) => format!("{code}: {message}"),
            }
        });
        let text = texts.collect::<Vec<_>>().join("; ");
        // The registry's words reach terminals.
        let clean = text.chars().map(|character| if character.is_control() { ' ' } else { character });
        formatter.write_str(&clean.take(MESSAGE_LENGTH_MAX).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_words() {
        let not_found = StatusCode::NOT_FOUND;
        for (body, shown) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                "manifest unknown: manifest unknown",
            ),
            (r#"{"errors":[{"code":"DENIED"},{"message":"b\u001b[31m"}]}"#, "denied; b [31m"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            ("<html>", "received unexpected HTTP status: 404 Not Found"),
            ("{}", "received unexpected HTTP status: 404 Not Found"),
        ] {
            assert_eq!(RegistryMessage::of(not_found, body.as_bytes()).to_string(), shown);
        }
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(10_000));
        assert_eq!(RegistryMessage::of(not_found, long.as_bytes()).to_string().len(), MESSAGE_LENGTH_MAX);
    }
}
