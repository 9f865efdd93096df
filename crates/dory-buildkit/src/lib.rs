//! BuildKit's gRPC over a stream: control, gateway and the services of a client's session.
//!
//! ```text
//!  /grpc, or h2c on the socket ─▶ control  Solve, Status, history, cache      ┐
//!                                 gateway  a client that drives its own build ├─▶ solve ─▶ Host (the engine's builder)
//!  POST /build?version=2 ───────▶ service  BuildKit::solve                    ┘     │
//!  /session ◀──────────────────── session  files, secrets, agents, credentials ◀────┘
//! ```
//!
//! Clients open every connection, and the engine calls them back over those that they open as sessions. HTTP/1 and its hijacking
//! are the API's; here are streams. What the engine does for builds is behind [`Host`].
//!
//! The frontend is our own, whatever version of `docker/dockerfile` a client names; other frontends, raw LLB definitions and
//! containers of clients are refused by name.

mod attributes;
mod control;
mod exporter;
mod failure;
mod files;
mod filesync;
mod filter;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gateway;
mod grpc;
mod host;
mod jobs;
mod results;
mod service;
mod session;
mod solve;
mod status;

pub use filesync::ContextDirectories;
pub use filter::Filters;
pub use grpc::{Code, Outgoing, Status, connection_builder, is_call};
pub use host::{CacheRecord, Host, PruneOptions, ResolvedImage, Worker};
pub use service::{BuildKit, Solved, TracedBuild, TracedRequest};
pub use session::SessionCredentials;
pub use status::Follower;
