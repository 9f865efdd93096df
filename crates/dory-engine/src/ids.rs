//! Ids for confined containers: 65,536 of the host's for each, or the engine's own range where it is nested.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dory_runtime::spec::{IdMapping, UserNamespace};
use dory_types::ContainerId;

use crate::options::IdRange;
use crate::spec::host::{HostFacts, subordinate_range};
use crate::{EngineError, ErrorKind, Result};

/// What a container needs for full images: `nobody` is 65534.
const IDS_PER_CONTAINER: u32 = 65_536;
/// Used where neither the configuration nor /etc/subuid names a range: above everything that systemd gives to
/// containers and dynamic users (it ends at 0x6fff_ffff), for 2,048 containers.
const DEFAULT_RANGE: IdRange = IdRange { first: 0x7000_0000, size: 2_048 * IDS_PER_CONTAINER };

/// The range and who has which part of it. What is taken is not kept on disk: each container's record has its own.
#[derive(Debug)]
pub(crate) struct IdAllocator {
    range: IdRange,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By first id.
    taken: BTreeMap<u32, ContainerId>,
    /// Where the search goes on: an id rests as long as possible before it is used again, because the files of a
    /// removed container are deleted behind everybody's back.
    next: u32,
}

impl IdAllocator {
    /// Uses `configured`, else root's entry in /etc/subuid where /etc/subgid has the same, else the built-in range.
    pub(crate) fn new(configured: Option<IdRange>) -> Result<Self> {
        let range = match configured {
            Some(range) => range,
            None => subordinate().unwrap_or(DEFAULT_RANGE),
        };
        if range.size < IDS_PER_CONTAINER || range.first.checked_add(range.size).is_none() || range.first == 0
        {
            return Err(EngineError::invalid(format!(
                "the range of ids for confined containers must have at least {IDS_PER_CONTAINER} ids and not begin \
                 at 0: {} ids from {}",
                range.size, range.first
            )));
        }
        Ok(Self { range, state: Mutex::default() })
    }

    /// A user namespace for `id`. A nested engine has no ids to give away: its confined containers keep all of its own,
    /// in a namespace beneath.
    pub(crate) fn allocate(&self, facts: &HostFacts, id: &ContainerId) -> Result<UserNamespace> {
        if facts.is_nested_in_user_namespace() {
            return Ok(UserNamespace::New {
                uid_mappings: facts.uid_mappings.clone(),
                gid_mappings: facts.gid_mappings.clone(),
            });
        }
        let slots = self.range.size / IDS_PER_CONTAINER;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let start = state.next;
        let slot = (0..slots)
            .map(|offset| (start + offset) % slots)
            .find(|slot| !state.taken.contains_key(&(self.range.first + slot * IDS_PER_CONTAINER)));
        let slot = slot.ok_or_else(|| {
            EngineError::new(
                ErrorKind::Unavailable,
                format!("all {slots} ranges of ids for confined containers are in use (userns-range configures more)"),
            )
        })?;
        let first = self.range.first + slot * IDS_PER_CONTAINER;
        state.next = (slot + 1) % slots;
        state.taken.insert(first, id.clone());
        let mapping = vec![IdMapping { container_id: 0, host_id: first, size: IDS_PER_CONTAINER }];
        Ok(UserNamespace::New { uid_mappings: mapping.clone(), gid_mappings: mapping })
    }

    /// Takes what a container of an earlier engine has.
    pub(crate) fn restore(&self, namespace: &UserNamespace, id: &ContainerId) {
        if let Some(first) = first_id(namespace) {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).taken.insert(first, id.clone());
        }
    }

    /// Gives a container's ids back.
    pub(crate) fn release(&self, namespace: &UserNamespace) {
        if let Some(first) = first_id(namespace) {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&first);
        }
    }
}

/// The first id of an allocation; `None` for the engine's own ids.
fn first_id(namespace: &UserNamespace) -> Option<u32> {
    if namespace.is_identity() { None } else { Some(namespace.root().0) }
}

/// Root's own entry, if both files agree on it and it is long enough.
fn subordinate() -> Option<IdRange> {
    let users = subordinate_range(Path::new("/etc/subuid"), "root")?;
    let groups = subordinate_range(Path::new("/etc/subgid"), "root")?;
    let (first, size) = users;
    (users == groups && size >= IDS_PER_CONTAINER && first > 0).then_some(IdRange { first, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(nested: bool) -> HostFacts {
        let map = |size| vec![IdMapping { container_id: 0, host_id: 0, size }];
        let size = if nested { 65_536 } else { u32::MAX };
        HostFacts { uid_mappings: map(size), gid_mappings: map(size), ..HostFacts::read() }
    }

    #[test]
    fn gives_each_container_its_own_ids() {
        let range = IdRange { first: 100_000, size: 2 * IDS_PER_CONTAINER };
        let allocator = IdAllocator::new(Some(range)).unwrap();
        let ids: Vec<ContainerId> = [1, 2, 3].map(|byte| ContainerId::from_bytes([byte; 32])).into();
        let first = allocator.allocate(&facts(false), &ids[0]).unwrap();
        let second = allocator.allocate(&facts(false), &ids[1]).unwrap();
        assert_eq!((first.root().0, second.root().0), (100_000, 165_536));
        assert_eq!(allocator.allocate(&facts(false), &ids[2]).unwrap_err().kind(), ErrorKind::Unavailable);
        allocator.release(&first);
        assert_eq!(allocator.allocate(&facts(false), &ids[2]).unwrap().root().0, 100_000);
    }

    #[test]
    fn a_nested_engine_shares_what_it_has() {
        let allocator = IdAllocator::new(None).unwrap();
        let namespace = allocator.allocate(&facts(true), &ContainerId::from_bytes([1; 32])).unwrap();
        assert!(namespace.is_new() && namespace.is_identity());
    }

    #[test]
    fn refuses_unusable_ranges() {
        for range in [
            IdRange { first: 1, size: 10 },
            IdRange { first: u32::MAX, size: 65_536 },
            IdRange { first: 0, size: 65_536 },
        ] {
            assert!(IdAllocator::new(Some(range)).is_err());
        }
    }
}
