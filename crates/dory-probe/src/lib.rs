//! What the surroundings allow, found by trying, and the tier that follows.
//!
//! Version strings, capability names and the presence of files say little about what a nested engine may do: a seccomp
//! profile, a security module or an outer user namespace can refuse any of it. So everything is tried, in processes
//! that exist for nothing else.
//!
//! ```text
//! engine ── spawn ──> probe child (this binary in its role, single-threaded: only such a process may fork and go on)
//!                      ├── trial in new namespaces           mounts, /proc, overlay on the data-root, veth, NAT …
//!                      ├── trial in a new user namespace     the same as its root
//!                      └── trial with nothing new            device nodes, chroot, seccomp, foreign ids …
//!         <── JSON ── [`Facilities`]
//! ```
//!
//! A trial runs a list of attempts one after the other in one process, because a namespace costs more than an attempt,
//! and writes each outcome to a pipe at once, so that one that kills or hangs its process costs no other.

mod attempt;
mod environment;
mod facilities;
mod id_map;
mod launch;
mod missing;
mod namespaced;
mod network;
mod plain;
mod role;
mod tier;
mod trial;

pub use attempt::{Attempt, Feature};
pub use environment::{ContainerHint, Environment};
pub use facilities::{Facilities, UserNamespace};
pub use id_map::IdMap;
pub use launch::{ProbeError, full, quick};
pub use missing::{Grant, Missing};
pub use role::{PROBE_ROLE, run_child_role};
pub use tier::Tier;
