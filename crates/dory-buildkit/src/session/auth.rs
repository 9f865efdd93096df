//! Credentials of registries, which the client has (`docker login`).

use std::io;
use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, CredentialsResponse};
use dory_registry::{Credentials, Secret};
use tokio::runtime::Handle;

use super::Session;
use crate::grpc::Code;

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
/// Docker Hub, and the host of it that clients keep credentials for.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

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

    /// What the client has for the registry `domain`; anonymous where it has nothing. Blocks.
    ///
    /// # Errors
    /// A client that does not answer.
    pub fn of(&self, domain: &str) -> io::Result<Credentials> {
        let Ok(channel) = self.session.channel(CREDENTIALS) else { return Ok(Credentials::Anonymous) };
        let host = if domain == HUB { HUB_HOST } else { domain };
        let question = CredentialsRequest { host: host.to_owned() };
        let answer = self.runtime.block_on(channel.unary::<_, CredentialsResponse>(CREDENTIALS, &question));
        match answer {
            Ok(answer) if answer.secret.is_empty() => Ok(Credentials::Anonymous),
            // Without a name, the secret is an identity token.
            Ok(answer) if answer.username.is_empty() => {
                Ok(Credentials::IdentityToken(Secret::new(answer.secret)))
            }
            Ok(answer) => {
                Ok(Credentials::Basic { username: answer.username, password: Secret::new(answer.secret) })
            }
            // Clients without a configuration have no such service, or nothing for the host.
            Err(status) if matches!(status.code(), Code::Unimplemented | Code::NotFound) => {
                Ok(Credentials::Anonymous)
            }
            Err(status) => Err(io::Error::other(status)),
        }
    }
}
