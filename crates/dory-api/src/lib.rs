//! The Docker Engine API over HTTP: routes, hijack, versions, and the one table from error to status.
//!
//! ```text
//!  listener ── connection ── hyper ── dispatch ── route ── dory_engine::Engine
//!                  │                  /v1.41 off, common headers, access log
//!                  └─ hijacked: tunnel (client <-> process), hyper is out
//! ```
//!
//! - The engine answers in the field names of API 1.51; what an older version has otherwise is added or dropped in the
//!   route ([`ApiVersion`]), and nowhere else.
//! - A handler runs to its end even if its client goes away: a start or a removal is never half done because somebody
//!   pressed Ctrl-C. Only answers without an end (events, logs, stats, wait) end with their client.
//! - Memory per connection is bounded: JSON bodies are limited, archives and streams are passed on in pieces.
//! - What dory does not do is answered with 501 and a message that names it, never with 404.

mod builds;
mod connection;
#[cfg(test)]
mod connection_tests;
mod detach;
mod dispatch;
mod error;
mod framed;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hijack;
mod http2;
mod json;
mod preface;
mod query;
mod routes;
mod server;
mod socket;
mod tls;
mod tunnel;
mod version;
mod websocket;

pub use error::ApiError;
pub use hijack::{Hijack, StreamKind, Tunnel, UpgradeForm};
pub use server::{Connector, Listener, Server};
pub use tls::{ServerTls, TlsError};
pub use version::ApiVersion;
