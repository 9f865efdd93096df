//! Containers, exec, images, volumes, networks and events: the state machine, free of HTTP.
//!
//! [`Engine`] is the whole interface: an `Arc` inside, cloned freely, with one asynchronous method per thing that can be
//! asked. Requests carry [`config`]'s types, which are Docker's own; answers are plain structs that serialise with the
//! field names of API 1.51, so that a layer above only renames or drops what an older version had otherwise.
//!
//! ```text
//!  Engine ─┬─ containers: name index, one Container each ── lifecycle lock (async) + state (brief, never across I/O)
//!          ├─ store:      images, layers, snapshots, volumes, records        (blocking, in spawn_blocking)
//!          ├─ launcher:   one shim per running container                     (blocking)
//!          └─ events:     broadcast and a ring of the last 256
//! ```
//!
//! - Lifecycle operations of one container exclude one another by its own lock; list and inspect never take it.
//! - No lock is held while a client's stream is written: attach and logs hand a socket or a channel out.
//! - What was acknowledged survives `kill -9`: `docs/state.md` has the order.

mod apparmor;
mod build;
pub mod config;
mod container;
mod distribution;
mod engine;
mod error;
mod events;
mod exec;
mod filters;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod identity;
mod ids;
mod image;
mod link;
mod mount;
mod network;
mod options;
mod restore;
mod spec;
mod sync;
mod system;
mod volume;

pub use build::{Anonymous, CredentialSource};
pub use container::{
    ArchiveStream, AttachOptions, Attachment, CommitOptions, ContainerDetails, ContainerLogs, ContainerState,
    ContainerSummary, ContainerWait, CreateContainer, CreatedContainer, GraphDriver, Health, HealthProbe,
    ListOptions, LogOptions, LogStream, MountPoint, NetworkSettings, PendingStream, PortSummary,
    PrunedContainers, RemoveOptions, Status, StopOptions, SummaryHostConfig, SummaryNetworkSettings,
    TopTable, WaitCondition, WaitOutcome, WriteArchiveOptions,
};
pub use container::{
    BlkioEntry, BlkioStats, ClientStdin, ContainerStats, CpuStats, CpuUsage, MemoryStats, NetworkStats,
    PidsStats, ThrottlingData,
};
pub use container::{CallerPath, GuardEvent, GuardedSocket};
pub use distribution::{
    DistributionDescriptor, DistributionInspect, ErrorDetail, LoginResult, ProgressDetail, ProgressMessage,
    ProgressStream, PullImage, PushImage, SearchResult,
};
pub use dory_registry::{Credentials, ProxyConfig, RegistryConfig, RegistryEntry};
pub use dory_store::{Change, ChangeKind, LowerOptions, PathStat, UnpackLimits};
pub use engine::Engine;
pub use error::{EngineError, ErrorKind};
pub use events::{Actor, Event, EventOptions, EventStream};
pub use exec::{ExecDetails, ExecProcess, ExecStream};
pub use filters::{FilterError, Filters};
pub use image::{
    ImageDeletion, ImageDetails, ImageHistoryEntry, ImageMetadata, ImageRootFs, ImageSummary, ImportOptions,
    LoadOptions, PrunedImages,
};
pub use network::{
    ConfigReference, NetworkContainer, NetworkCreate, NetworkDetails, NetworkIpam, NetworkIpamConfig,
};
pub use options::{BridgeOptions, EngineConfig, IdRange, PrivilegedMode, SocketMount};
pub use system::{DEFAULT_RUNTIME, DiskUsage, SystemInfo, VersionInfo};
pub use volume::{PrunedVolumes, VolumeCreate, VolumeDetails, VolumeList, VolumeUsage};

pub use dory_net::AddressPool;

/// What every method answers.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;
