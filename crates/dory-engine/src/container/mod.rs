//! Containers: one file per verb.

mod details;
mod request;
mod state;
mod streams;

pub use details::{
    ContainerDetails, ContainerSummary, GraphDriver, MountPoint, NetworkSettings, PortSummary, SummaryHostConfig,
    SummaryNetworkSettings, TopTable,
};
pub use request::{
    AttachOptions, CreateContainer, CreatedContainer, ListOptions, LogOptions, PrunedContainers, RemoveOptions,
    StopOptions, WaitCondition, WaitOutcome,
};
pub use state::{ContainerState, Health, HealthProbe, Status};
pub use streams::{Attachment, ContainerLogs, ContainerWait, LogStream, PendingStream};
