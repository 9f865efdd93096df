//! The gateway: strict HTTP, policy, ownership, forwarding, audit.
//!
//! ```text
//!  client ── head ── model ── policy ⇄ resolve ── written anew ── engine
//!                                                    │
//!  client ◀── narrowed, warned, or as it comes ◀─────┘
//! ```
//!
//! - A client's connection serves one request at a time, and each request has a connection of its own to the engine: what a
//!   client sends behind a request is looked at as a request, never as part of anything else.
//! - A tunnel opens only on routes that may have one, when the client asked for it and the engine answered 101.
//! - Names are resolved to ids before anything is decided, and ids are sent on.
//! - Whoever reaches a session's socket is the session; there is no identity in requests.

mod answer;
mod audit;
mod cleanup;
mod connection;
mod head;
mod resolve;
mod server;
mod session;
mod upstream;
mod wire;

pub use audit::Audit;
pub use connection::serve;
pub use server::{Listener, listen};
pub use session::{Caller, CallerFuture, Session, SessionOptions};
pub use upstream::{AddressError, Upstream};
pub use wire::Stream;
