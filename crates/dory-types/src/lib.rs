//! Ids, names, references and digests as newtypes, and nothing that does I/O.

mod id;

pub use id::{ContainerId, ExecId, IdError, ImageId, NetworkId};
