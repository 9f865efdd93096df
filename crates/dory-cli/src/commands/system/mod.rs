//! The verbs of the engine as a whole.

mod dial;
mod events;
mod info;
mod parts;
pub(super) mod prune;
mod usage;
mod version;

use crate::command::{Entry, entry};

pub(super) use events::EVENTS;
pub(super) use info::INFO;
pub(super) use version::VERSION;

/// `dory system ...`.
pub(super) const COMMANDS: &[Entry] = &[
    entry(&["df"], &usage::USAGE),
    entry(&["dial-stdio"], &dial::DIAL),
    entry(&["events"], &EVENTS),
    entry(&["info"], &INFO),
    entry(&["prune"], &prune::PRUNE),
];
