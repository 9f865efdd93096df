//! Secrets of the client, for `RUN --mount=type=secret`.

use std::io;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use dory_build::Secrets;
use tokio::runtime::Handle;

use super::Session;
use crate::grpc::Code;

const GET_SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";

/// Secrets of one client.
#[derive(Debug, Clone)]
pub struct SessionSecrets {
    session: Arc<Session>,
    runtime: Handle,
}

impl SessionSecrets {
    /// Those of `session`, asked for on `runtime`.
    pub fn new(session: Arc<Session>, runtime: Handle) -> Self {
        Self { session, runtime }
    }
}

impl Secrets for SessionSecrets {
    fn secret(&self, id: &str) -> io::Result<Option<Vec<u8>>> {
        // A client that was given no secrets does not serve them.
        let Ok(channel) = self.session.channel(GET_SECRET) else { return Ok(None) };
        let question = GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() };
        match self.runtime.block_on(channel.unary::<_, GetSecretResponse>(GET_SECRET, &question)) {
            Ok(answer) => Ok(Some(answer.data)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(io::Error::other(status)),
        }
    }
}
