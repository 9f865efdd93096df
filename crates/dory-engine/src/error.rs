//! What goes wrong, and what sort of wrong it is.

use std::fmt;

use dory_types::with_causes;

/// The sort of a failure; the API layer maps it to a status in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The object does not exist (404).
    NotFound,
    /// The request contradicts the object's state or another object (409).
    Conflict,
    /// The request itself is wrong (400).
    Invalid,
    /// Whoever asks has not proved who he is (401).
    Unauthorized,
    /// Understood, and refused for good (403).
    Forbidden,
    /// The object is already in the state that was asked for (304).
    NotModified,
    /// Not now (503).
    Unavailable,
    /// This engine has no such feature (501).
    NotImplemented,
    /// Everything else (500).
    Internal,
}

/// A failure with a message made for the client, in dockerd's words where dockerd has words for it, and the cause for
/// the log.
#[derive(Debug)]
pub struct EngineError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl EngineError {
    /// A failure of `kind` that tells the client `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same failure with what caused it; the cause is for the log, not for the client.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// [`ErrorKind::NotImplemented`].
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }

    /// An internal failure of `operation`; the client sees the whole chain of `error`, as with dockerd.
    pub fn failed(
        operation: impl fmt::Display,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::internal(format!("{operation}: {}", with_causes(&error))).caused_by(error)
    }

    /// The sort of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message for the client.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<dory_types::SignalError> for EngineError {
    fn from(error: dory_types::SignalError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}
