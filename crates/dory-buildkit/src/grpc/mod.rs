//! gRPC over one HTTP/2 connection, both sides: what BuildKit's protocol needs of it, on hyper.
//!
//! Both directions are needed: clients call the engine's services, and the engine calls those of the clients' sessions, each
//! over a connection that the client has opened. There are no compression, load balancing or reconnection, and thus
//! no library for them. Source: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md).

mod client;
mod message;
mod server;
mod status;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use client::{Answers, CHUNK, Channel};
pub use message::{Outgoing, Sender};
pub use server::{Answer, Call, Reply, Service, answer, connection_builder, is_call, serve};
pub use status::{Code, Status};

/// Bytes on their way that nobody has read yet, for a stream and for the connection. Contexts come over these: HTTP/2's
/// own 64 KiB cost a round trip for each.
const WINDOW: u32 = 4 << 20;
/// How often a quiet connection is asked whether it is there: a client whose machine has gone closes nothing.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to say so; BuildKit gives a session twice fifteen seconds.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(30);
