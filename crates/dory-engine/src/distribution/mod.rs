//! Images from and to registries: pull, push, login, and what a registry knows.
//!
//! ```text
//!  pull ─┬─ manifest, configuration     by each client with its own credentials
//!        └─ one Transfer per blob       shared by everybody who needs it: downloaded, unpacked and verified once
//! ```
//!
//! A client's part ends when its stream is dropped. A transfer that nobody waits for pauses, and is given up a minute
//! later; whoever asks for the same blob before goes on where it stopped.

mod ask;
mod compress;
mod download;
mod import;
mod progress;
mod pull;
mod push;
mod transfer;

use std::sync::Arc;

use dory_registry::{RegistryError, RegistryErrorKind};

use crate::{EngineError, ErrorKind};

pub use ask::{DistributionDescriptor, DistributionInspect, LoginResult, SearchResult};
pub use progress::{ErrorDetail, ProgressDetail, ProgressMessage, ProgressStream};
pub use pull::PullImage;
pub use push::PushImage;

pub(crate) use progress::ProgressSender;
pub(crate) use push::Push;
pub(crate) use transfer::Transfers;

/// A registry's failure as the engine's. A refusal to let somebody in is no 401: Docker's client would ask for a
/// password there.
pub(crate) fn registry_error(error: RegistryError) -> EngineError {
    let kind = match error.kind() {
        RegistryErrorKind::NotFound => ErrorKind::NotFound,
        RegistryErrorKind::Invalid => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    EngineError::new(kind, dory_types::with_causes(&error)).caused_by(error)
}

/// A failure that several clients are told of.
#[derive(Debug, Clone)]
pub(crate) struct SharedError {
    kind: ErrorKind,
    message: Arc<str>,
}

impl From<EngineError> for SharedError {
    fn from(error: EngineError) -> Self {
        Self { kind: error.kind(), message: error.message().into() }
    }
}

impl From<SharedError> for EngineError {
    fn from(error: SharedError) -> Self {
        Self::new(error.kind, &*error.message)
    }
}
