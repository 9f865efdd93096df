//! Ids that belong to a data-root for ever: the engine's own, and those of its built-in networks.

use dory_store::{Durability, Store, read_record, write_record};
use dory_types::{NetworkId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::container::random_bytes;
use crate::{EngineError, Result};

/// The record's file in the data-root.
const RECORD_NAME: &str = "engine.json";

/// Made with the data-root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Names the engine in `docker info`, and marks its interfaces.
    pub(crate) id: String,
    pub(crate) created: Timestamp,
    pub(crate) bridge: NetworkId,
    pub(crate) host: NetworkId,
    pub(crate) none: NetworkId,
}

impl Identity {
    /// The identity of the store's data-root.
    pub(crate) fn of(store: &Store) -> Result<Self> {
        let failed = |error| EngineError::failed("cannot use the engine's record", error);
        if let Some(identity) = read_record(store.root(), RECORD_NAME).map_err(failed)? {
            return Ok(identity);
        }
        let network = || NetworkId::from_bytes(random_bytes());
        let identity = Self {
            id: uuid(random_bytes()),
            created: Timestamp::now(),
            bridge: network(),
            host: network(),
            none: network(),
        };
        // A power cut that takes it takes everything that it marks along: interfaces, control groups.
        write_record(store.root(), RECORD_NAME, &identity, Durability::Unsynced).map_err(failed)?;
        Ok(identity)
    }

    /// What marks the engine's things where there is little room (an interface's alias has 255 bytes): the first part of
    /// its id is as good as all of it.
    pub(crate) fn owner(&self) -> &str {
        self.id.split('-').next().unwrap_or_default()
    }
}

/// A random UUID (RFC 9562, version 4), which Docker's engine id is today.
fn uuid(mut bytes: [u8; 32]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_uuids() {
        let text = uuid([0xff; 32]);
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
