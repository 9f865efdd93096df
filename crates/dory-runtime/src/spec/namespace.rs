//! Namespaces: which are made, joined or shared with the engine.

use serde::{Deserialize, Serialize};

/// Where a container's namespace of one kind comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one.
    New,
    /// The engine's (`host` in Docker's words).
    Host,
    /// That of a running process (`container:…`).
    Of {
        /// The process, as the engine's pid namespace numbers it.
        pid: i32,
    },
}

/// The user namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserNamespace {
    /// The engine's own: ids inside are the engine's ids.
    Host,
    /// A new one with these maps. It owns every other new namespace of the container.
    New {
        /// `/proc/<pid>/uid_map`.
        uid_mappings: Vec<IdMapping>,
        /// `/proc/<pid>/gid_map`.
        gid_mappings: Vec<IdMapping>,
    },
}

/// One line of a `uid_map` or `gid_map` (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub container_id: u32,
    /// First id outside, as the engine's own user namespace numbers it.
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// All namespaces of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// User namespace.
    pub user: UserNamespace,
    /// Process ids.
    pub pid: Namespace,
    /// Network. For [`Namespace::New`] the launcher's network callback is called with the new namespace.
    pub network: Namespace,
    /// System V IPC and POSIX queues.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// Control groups: `New` roots it at the container's own group.
    pub cgroup: Namespace,
}

impl UserNamespace {
    /// True where ids inside differ from the engine's, or privilege is confined to a namespace of its own.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New { .. })
    }

    /// The engine's ids of the container's root, as (uid, gid).
    pub fn root(&self) -> (u32, u32) {
        match self {
            Self::Host => (0, 0),
            Self::New { uid_mappings, gid_mappings } => (host_id(uid_mappings, 0), host_id(gid_mappings, 0)),
        }
    }

    /// True where every id inside is the same id outside: then no filesystem needs an id-mapped mount.
    pub fn is_identity(&self) -> bool {
        match self {
            Self::Host => true,
            Self::New { uid_mappings, gid_mappings } => {
                uid_mappings.iter().chain(gid_mappings).all(|map| map.container_id == map.host_id)
            }
        }
    }
}

/// The outside id of `id`; an unmapped id stays what it is, so that the kernel refuses it where it is used.
fn host_id(mappings: &[IdMapping], id: u32) -> u32 {
    mappings
        .iter()
        .find(|map| id >= map.container_id && id - map.container_id < map.size)
        .map_or(id, |map| map.host_id + (id - map.container_id))
}
