//! Credentials of registries, which the client has (`docker login`).

use std::io;
use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, CredentialsResponse};
use tokio::runtime::Handle;

use super::Session;
use crate::grpc::Code;

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";

/// A name and a password; without a name, the password is an identity token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name of the account; empty with a token.
    pub username: String,
    /// Password or token.
    pub secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Credentials of one client.
#[derive(Debug, Clone)]
pub struct SessionCredentials {
    session: Arc<Session>,
    runtime: Handle,
}

impl SessionCredentials {
    /// Those of `session`, asked for on `runtime`.
    pub fn new(session: Arc<Session>, runtime: Handle) -> Self {
        Self { session, runtime }
    }

    /// What the client has for `host`; nothing where it has nothing. Blocks.
    ///
    /// # Errors
    /// A client that does not answer.
    pub fn of(&self, host: &str) -> io::Result<Option<Credentials>> {
        let Ok(channel) = self.session.channel(CREDENTIALS) else { return Ok(None) };
        let question = CredentialsRequest { host: host.to_owned() };
        let answer = self.runtime.block_on(channel.unary::<_, CredentialsResponse>(CREDENTIALS, &question));
        match answer {
            Ok(answer) if answer.secret.is_empty() && answer.username.is_empty() => Ok(None),
            Ok(answer) => Ok(Some(Credentials { username: answer.username, secret: answer.secret })),
            // Clients without a configuration have no such service, or nothing for the host.
            Err(status) if matches!(status.code(), Code::Unimplemented | Code::NotFound) => Ok(None),
            Err(status) => Err(io::Error::other(status)),
        }
    }
}
