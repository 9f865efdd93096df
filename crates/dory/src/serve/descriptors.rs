//! How many descriptors the engine may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the engine's soft limit to its hard one, as Go's runtime does for dockerd: the usual 1,024 are used up by some
/// hundred containers with clients. Gives soft and hard limit as they were, for the containers.
///
/// A limit that cannot be raised stays; then the containers inherit it.
pub(super) fn raise_limit() -> Option<(u64, u64)> {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum }).ok()?;
    Some((before.current.unwrap_or(u64::MAX), before.maximum.unwrap_or(u64::MAX)))
}
