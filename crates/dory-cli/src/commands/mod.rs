//! The commands, one file per verb or family of verbs.

mod container;
mod each;
mod filters;
mod image;
mod inspect;
mod moment;
mod network;
mod registry;
mod system;
mod unsupported;
mod volume;

use crate::command::{Entry, Node, entry};

/// All words that may stand first.
pub(crate) const COMMANDS: &[Entry] = &[
    Entry { names: &["container"], node: Node::Group("Manage containers", container::COMMANDS) },
    Entry { names: &["image"], node: Node::Group("Manage images", image::COMMANDS) },
    Entry { names: &["network"], node: Node::Group("Manage networks", network::COMMANDS) },
    Entry { names: &["system"], node: Node::Group("Manage the engine", system::COMMANDS) },
    Entry { names: &["volume"], node: Node::Group("Manage volumes", volume::COMMANDS) },
    entry(&["attach"], &container::ATTACH),
    entry(&["build"], &unsupported::BUILD),
    entry(&["commit"], &container::COMMIT),
    entry(&["cp"], &container::COPY),
    entry(&["create"], &container::CREATE),
    entry(&["diff"], &container::DIFF),
    entry(&["events"], &system::EVENTS),
    entry(&["exec"], &container::EXEC),
    entry(&["export"], &container::EXPORT),
    entry(&["history"], &image::HISTORY),
    entry(&["images"], &image::LIST),
    entry(&["import"], &image::IMPORT),
    entry(&["info"], &system::INFO),
    entry(&["inspect"], &inspect::INSPECT),
    entry(&["kill"], &container::KILL),
    entry(&["load"], &image::LOAD),
    entry(&["login"], &registry::LOGIN),
    entry(&["logout"], &registry::LOGOUT),
    entry(&["logs"], &container::LOGS),
    entry(&["pause"], &container::PAUSE),
    entry(&["port"], &container::PORT),
    entry(&["ps"], &container::LIST),
    entry(&["pull"], &image::PULL),
    entry(&["push"], &image::PUSH),
    entry(&["rename"], &container::RENAME),
    entry(&["restart"], &container::RESTART),
    entry(&["rm"], &container::REMOVE),
    entry(&["rmi"], &image::REMOVE),
    entry(&["run"], &container::RUN),
    entry(&["save"], &image::SAVE),
    entry(&["search"], &registry::SEARCH),
    entry(&["start"], &container::START),
    entry(&["stats"], &container::STATS),
    entry(&["stop"], &container::STOP),
    entry(&["tag"], &image::TAG),
    entry(&["top"], &container::TOP),
    entry(&["unpause"], &container::UNPAUSE),
    entry(&["update"], &container::UPDATE),
    entry(&["version"], &system::VERSION),
    entry(&["wait"], &container::WAIT),
];
