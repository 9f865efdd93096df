//! Networks: the three that every engine has, and those that people make.
//!
//! ```text
//! <data-root>/networks/<id>.json    one checksummed record for each network that somebody made
//! ```
//!
//! A network is first made in the kernel and then recorded; it is first taken out of the records and then removed from the
//! kernel. What bears the engine's mark and has no record is therefore left over, and goes when the engine opens. A
//! bridge that a record names and that is gone (after a reboot) is made again by the first container that needs it.
//!
//! Who is in a network is kept with the containers: the wishes in [`Record::endpoints`](crate::container::Record), what
//! came of them in the present run.

mod attach;
mod connect;
mod create;
mod details;
mod links;
mod list;
mod names;
mod object;
mod options;
mod publish;
mod record;
mod remove;
mod resolver;
mod restore;
mod set;
mod settings;
mod wishes;

pub use details::{
    ConfigReference, NetworkContainer, NetworkCreate, NetworkDetails, NetworkIpam, NetworkIpamConfig,
};
pub(crate) use links::Link;
pub(crate) use resolver::{Resolver, embedded_resolv_conf, uses_resolver};
pub(crate) use set::Networks;

/// Names of the networks that every engine has.
pub(crate) const BRIDGE: &str = "bridge";
/// The engine's own network namespace.
pub(crate) const HOST: &str = "host";
/// Loopback alone.
pub(crate) const NONE: &str = "none";

/// True for the networks that every engine has.
pub(crate) fn is_predefined(name: &str) -> bool {
    matches!(name, BRIDGE | HOST | NONE)
}
