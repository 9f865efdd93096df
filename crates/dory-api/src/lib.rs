//! The Docker Engine API over HTTP: routes, hijack, versions, and the one table from error to status.

mod connection;
#[cfg(test)]
mod connection_tests;
mod detach;
mod dispatch;
mod error;
mod hijack;
mod json;
mod query;
mod routes;
mod server;
mod socket;
mod tunnel;
mod version;

pub use error::ApiError;
pub use hijack::{Hijack, StreamKind, Tunnel, UpgradeForm};
pub use server::{Listener, Server};
pub use version::ApiVersion;
