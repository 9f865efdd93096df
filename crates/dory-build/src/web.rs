//! Who asks web servers: for files of `ADD`, for contexts, for git repositories.

use std::fmt::{self, Debug};
use std::io::Read;

use crate::cancel::Cancel;

/// A question to a web server.
#[derive(Debug, Clone, Default)]
pub struct WebRequest {
    /// `http` or `https`.
    pub address: String,
    /// Names, in lower case, and values. A credential goes to the address's own host only, not where that redirects to.
    pub headers: Vec<(&'static str, String)>,
    /// What is posted; without it something is got, and redirects are followed.
    pub body: Option<Vec<u8>>,
}

/// What a web server answers.
pub struct WebAnswer {
    /// HTTP's status.
    pub status: u16,
    /// Where it came from in the end.
    pub address: String,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// Bytes of the body, where the server says it.
    pub length: Option<u64>,
    /// The body. A break of the connection is an error, never its end.
    pub body: Box<dyn Read + Send>,
}

impl Debug for WebAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WebAnswer").field("status", &self.status).finish_non_exhaustive()
    }
}

impl WebAnswer {
    /// The value of a header; `name` is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(header, value)| (header == name).then_some(value.as_str()))
    }
}

/// A web server does not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct WebError(pub String);

/// Asks web servers, by way of whatever proxies and with whatever authorities there are.
pub trait Web: Debug + Send + Sync {
    /// Asks, and waits for the head of the answer; one that refuses is an answer. Blocks.
    ///
    /// # Errors
    /// [`WebError`] where there is no answer.
    fn ask(&self, request: &WebRequest, cancel: &Cancel) -> Result<WebAnswer, WebError>;
}

/// Reaches nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offline;

impl Web for Offline {
    fn ask(&self, request: &WebRequest, _cancel: &Cancel) -> Result<WebAnswer, WebError> {
        Err(WebError(format!("cannot ask {}: there is no network here", request.address)))
    }
}
