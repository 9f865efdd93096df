//! Packets, one after the other, for code that blocks.

use std::io;
use std::time::Duration;

use bollard_buildkit_proto::fsutil::types::Packet;
use dory_build::Cancel;
use tokio::runtime::Handle;

use crate::grpc::{Answers, Sender};

/// How often a conversation that waits looks whether its build still wants it.
const LOOK: Duration = Duration::from_millis(100);

/// The other side of a transfer.
pub trait Conversation {
    /// The next packet; nothing at the end.
    ///
    /// # Errors
    /// A connection that breaks, a client that fails, a build that is cancelled ([`io::ErrorKind::Interrupted`]).
    fn next(&mut self) -> io::Result<Option<Packet>>;

    /// Sends `packet`.
    ///
    /// # Errors
    /// As [`Conversation::next`].
    fn send(&mut self, packet: Packet) -> io::Result<()>;
}

/// The packets of one call of a session's service.
#[derive(Debug)]
pub struct PacketStream {
    sender: Sender,
    answers: Answers,
    runtime: Handle,
    cancel: Cancel,
}

impl PacketStream {
    /// Those of the call that these two are the ends of; it waits on `runtime`.
    pub fn new((sender, answers): (Sender, Answers), runtime: Handle, cancel: Cancel) -> Self {
        Self { sender, answers, runtime, cancel }
    }

    /// Ends our half and waits until the other side has ended its own.
    ///
    /// # Errors
    /// What the other side failed with.
    pub fn finish(self) -> io::Result<()> {
        let Self { sender, mut answers, runtime, cancel } = self;
        drop(sender);
        runtime.block_on(until_cancelled(&cancel, async move {
            while answers.next::<Packet>().await?.is_some() {}
            Ok(())
        }))
    }
}

impl Conversation for PacketStream {
    fn next(&mut self) -> io::Result<Option<Packet>> {
        self.runtime.block_on(until_cancelled(&self.cancel, self.answers.next()))
    }

    fn send(&mut self, packet: Packet) -> io::Result<()> {
        self.runtime.block_on(until_cancelled(&self.cancel, self.sender.send(&packet)))
    }
}

/// What `future` returns, unless the build is cancelled before.
async fn until_cancelled<T>(
    cancel: &Cancel,
    future: impl Future<Output = Result<T, crate::grpc::Status>>,
) -> io::Result<T> {
    tokio::pin!(future);
    loop {
        // The timer is made only where the future has to wait.
        match tokio::time::timeout(LOOK, &mut future).await {
            Ok(result) => return result.map_err(io::Error::other),
            Err(_) if cancel.is_cancelled() => return Err(io::ErrorKind::Interrupted.into()),
            Err(_) => {}
        }
    }
}
