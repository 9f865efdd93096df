//! Containers: one file per verb.

mod archive;
mod attach;
mod build;
mod commit;
mod cpuset;
mod create;
mod details;
mod exec_process;
mod exit;
mod files;
mod guard;
mod health;
mod inspect;
mod launch;
mod list;
mod logs;
mod merge;
mod name;
mod object;
mod process_usage;
mod record;
mod registry;
mod remove;
mod request;
mod state;
mod stats;
mod stop;
mod streams;
mod top;
mod update;
mod validate;
mod volumes;

pub(crate) use exit::stored_exit;
pub(crate) use files::update_etc_files;
pub(crate) use guard::Guards;
pub(crate) use inspect::STORAGE_DRIVER;
pub(crate) use name::random_bytes;
pub(crate) use object::Container;
pub(crate) use record::{PublishedOn, Record, RunEndpoint};
pub(crate) use registry::Registry;
pub(crate) use remove::prune_until;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use validate::check;
pub(crate) use validate::platform as validate_platform;

pub use archive::{ArchiveStream, WriteArchiveOptions};
pub use commit::CommitOptions;
pub use details::{
    ContainerDetails, ContainerSummary, GraphDriver, MountPoint, NetworkSettings, PortSummary,
    SummaryHostConfig, SummaryNetworkSettings, TopTable,
};
pub use guard::{CallerPath, GuardEvent, GuardedSocket};
pub use request::{
    AttachOptions, CreateContainer, CreatedContainer, ListOptions, LogOptions, PrunedContainers,
    RemoveOptions, StopOptions, WaitCondition, WaitOutcome,
};
pub use state::{ContainerState, Health, HealthProbe, Status};
pub use stats::{
    BlkioEntry, BlkioStats, ContainerStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats,
    ThrottlingData,
};
pub use streams::{Attachment, ClientStdin, ContainerLogs, ContainerWait, LogStream, PendingStream};
