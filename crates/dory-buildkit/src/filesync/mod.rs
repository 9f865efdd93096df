//! Files between a client and the engine, by fsutil's packets (`github.com/tonistiigi/fsutil`, receive.go).
//!
//! ```text
//!  sender                          receiver
//!  STAT path, mode, size, times ─▶ compares with what it has     one for each file, parents first, names in order
//!  STAT (empty)                 ─▶                               all are told
//!                               ◀─ REQ id                        the id is the place among the stats
//!  DATA id, bytes …             ─▶
//!  DATA id (empty)              ─▶                               the file is complete
//!                               ◀─ FIN
//!  FIN                          ─▶
//! ```
//!
//! The engine receives contexts into directories that it keeps ([`ContextDirectories`]), so that an unchanged context costs
//! its stats alone, and sends results (`--output type=local`).

mod context;
mod directories;
mod entry;
mod packet;
mod receive;
#[cfg(any(test, feature = "fuzzing"))]
mod script;
mod send;
#[cfg(test)]
mod tests;

pub use context::SessionContext;
pub use directories::{ContextDirectories, Lease};
pub use entry::{Entry, EntryKind};
#[cfg(test)]
use packet::Conversation;
pub use packet::PacketStream;
#[cfg(any(test, feature = "fuzzing"))]
pub use receive::receive;
#[cfg(test)]
use receive::{ReceiveError, Received};
#[cfg(any(test, feature = "fuzzing"))]
pub use script::Script;
pub use send::{SendError, send};
