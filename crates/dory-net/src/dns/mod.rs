//! DNS: the embedded server of user-defined networks, and a forwarder for the default one.
//!
//! A container on a user-defined network asks 127.0.0.11 ([`RESOLVER`]), as with Docker. What answers there are two
//! sockets that the engine opened in the container's own network namespace, on ports of the kernel's choosing; a small
//! nftables table in that namespace sends port 53 of the address to them. One thread ([`DnsServer`]) serves the sockets
//! of all containers. It answers what [`DnsDirectory`] knows of the container's networks, and sends everything else on,
//! byte for byte, to the outer resolvers: out of the container's namespace, so that a container reaches no resolver
//! that its network does not reach, or out of the engine's, where the resolver listens on the engine's loopback only.
//!
//! When the engine dies, its sockets die with it, and questions are refused until the next engine opens sockets of its
//! own and replaces the table ([`DnsServer::attach`]); nothing of this is kept on disk.

mod client;
mod directory;
mod event_loop;
mod exchange;
mod forwarder;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod message;
mod query;
mod redirect;
mod server;

use std::io;

use crate::netlink::NetlinkError;

pub use client::{DnsClient, DnsNetwork, DnsOrigin, DnsUpstream};
pub use directory::{DnsDirectory, DnsMember};
pub use forwarder::{DnsForwarder, ForwarderError};
pub use redirect::RESOLVER;
pub use server::DnsServer;

/// The embedded server cannot start, or cannot answer a container.
#[derive(Debug, thiserror::Error)]
pub enum DnsServerError {
    /// No descriptors, or no thread.
    #[error("cannot start the embedded DNS server")]
    Start(#[source] io::Error),
    /// The container's network namespace could not be entered.
    #[error("cannot enter the container's network namespace")]
    Enter(#[source] io::Error),
    /// No socket in the container.
    #[error("cannot listen for DNS questions in the container")]
    Listen(#[source] io::Error),
    /// The packet filter refused to send port 53 to the server, and the port itself is not to be had.
    #[error("cannot send the container's DNS questions to the embedded server")]
    Redirect(#[source] NetlinkError),
}
