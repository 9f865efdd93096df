//! The client's SSH agents, for `RUN --mount=type=ssh`.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use dory_build::Agents;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::OwnedReadHalf;
use tokio::runtime::Handle;

use super::Session;
use crate::grpc::{Sender, Status};

const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
/// Metadata that names the agent.
const AGENT_ID: &str = "buildkit.ssh.id";
/// Bytes of the agent's protocol that are read at once.
const BUFFER: usize = 32 << 10;

/// Agents of one client.
#[derive(Debug, Clone)]
pub struct SessionAgents {
    session: Arc<Session>,
    runtime: Handle,
}

impl SessionAgents {
    /// Those of `session`, asked for on `runtime`.
    pub fn new(session: Arc<Session>, runtime: Handle) -> Self {
        Self { session, runtime }
    }
}

impl Agents for SessionAgents {
    fn has(&self, id: &str) -> io::Result<bool> {
        let Ok(channel) = self.session.channel(CHECK_AGENT) else { return Ok(false) };
        let question = CheckAgentRequest { id: id.to_owned() };
        let answer = self.runtime.block_on(channel.unary::<_, CheckAgentResponse>(CHECK_AGENT, &question));
        // The client's answer to an agent that it does not have is an error of no particular kind.
        Ok(answer.is_ok())
    }

    fn connect(&self, id: &str) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (session, id) = (self.session.clone(), id.to_owned());
        let _runtime = self.runtime.enter();
        let ours = tokio::net::UnixStream::from_std(ours)?;
        self.runtime.spawn(async move {
            if let Err(status) = forward(&session, &id, ours).await {
                tracing::debug!(error = %status, "Forwarding of an SSH agent ended");
            }
        });
        Ok(theirs)
    }
}

/// Copies between `local` and the client's agent until either side ends.
async fn forward(session: &Session, id: &str, local: tokio::net::UnixStream) -> Result<(), Status> {
    let channel = session.channel(FORWARD_AGENT)?;
    let (sender, mut answers) = channel.stream(FORWARD_AGENT, &[(AGENT_ID, id)])?;
    let (reader, mut writer) = local.into_split();
    let questions = tokio::spawn(send(reader, sender));
    let answered = async {
        while let Some(message) = answers.next::<BytesMessage>().await? {
            writer.write_all(&message.data).await.map_err(|error| Status::unknown(error.to_string()))?;
        }
        Ok(())
    };
    let result = answered.await;
    questions.abort();
    result
}

async fn send(mut reader: OwnedReadHalf, sender: Sender) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        if sender.send(&BytesMessage { data: buffer[..length].to_vec() }).await.is_err() {
            return;
        }
    }
}
