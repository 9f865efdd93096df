//! Sessions: connections that clients open so that the engine can call *them*, for files, secrets and credentials.
//!
//! A client that builds opens `/session` first and names what it serves in headers of that request; a build names the session by
//! its id. The session's services are one file each beside this one. When the connection ends, so do the builds that need
//! it: they find it closed at their next call.

mod auth;
mod export;
mod registry;
mod secrets;
mod ssh;
mod upload;

use std::collections::HashSet;

use http::{HeaderMap, HeaderName};
use tokio::sync::watch;

use crate::grpc::{Channel, Code, Status};

pub use auth::SessionCredentials;
pub use export::{DirectoryExport, StreamExport};
pub use registry::Sessions;
pub use secrets::SessionSecrets;
pub use ssh::SessionAgents;
pub use upload::upload;

const ID: HeaderName = HeaderName::from_static("x-docker-expose-session-uuid");
const SHARED_KEY: HeaderName = HeaderName::from_static("x-docker-expose-session-sharedkey");
const METHOD: HeaderName = HeaderName::from_static("x-docker-expose-session-grpc-method");
/// Longest id that a client may choose; BuildKit's have 25 characters.
const ID_LIMIT: usize = 256;

/// One client's session.
#[derive(Debug)]
pub struct Session {
    id: String,
    shared_key: String,
    methods: HashSet<String>,
    channel: Channel,
    closed: watch::Receiver<bool>,
}

impl Session {
    fn new(headers: &HeaderMap, channel: Channel, closed: watch::Receiver<bool>) -> Result<Self, Status> {
        let text =
            |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let id = text(&ID);
        if id.is_empty() || id.len() > ID_LIMIT {
            return Err(Status::invalid(format!("`{ID}` is no id of a session: `{id}`")));
        }
        let methods = headers.get_all(METHOD).iter();
        let methods =
            methods.filter_map(|method| method.to_str().ok()).map(str::to_ascii_lowercase).collect();
        Ok(Self { id: id.to_owned(), shared_key: text(&SHARED_KEY).to_owned(), methods, channel, closed })
    }

    /// Its id, as the client chose it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the client calls the directory that it builds from; the same each time. Empty where it does not say.
    pub fn shared_key(&self) -> &str {
        &self.shared_key
    }

    /// Whether the client serves `method` (`/package.Service/Method`).
    pub fn serves(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    /// Where its services are called.
    ///
    /// # Errors
    /// The client does not serve `method`.
    pub fn channel(&self, method: &str) -> Result<&Channel, Status> {
        match self.serves(method) {
            true => Ok(&self.channel),
            false => Err(Status::new(Code::Unimplemented, format!("the client does not serve `{method}`"))),
        }
    }

    /// Whether the client has gone.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Completes when the client has gone.
    pub async fn closed(&self) {
        // An error means that the driver of the connection has gone, and with it the connection.
        let _ = self.closed.clone().wait_for(|closed| *closed).await;
    }
}
