//! Docker's own configuration types: what the API parses, what `inspect` prints and what a container's record stores.
//!
//! One set of types, as dockerd has its `config.v2.json` and `hostconfig.json`: field names are the API's (1.51).
//! Clients' documents are read with [`json::from_slice`], which is as lenient as Go. Values that are only meaningful
//! later (modes, mount strings, capability names) stay text here, because `inspect` must give back what was sent;
//! `create` validates them and `start` turns them into the runtime's types.

mod container;
mod exec;
#[cfg(test)]
mod fields;
mod host;
pub mod json;
mod mount;
mod network;

pub use container::{ContainerConfig, Empty, HealthConfig, PortMap, UpdateConfig};
pub use exec::{ExecConfig, ExecStartConfig};
pub use host::{
    DeviceMapping, DeviceRequest, HostConfig, LogConfig, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice,
};
pub use json::{GoSlice, JsonError, StrSlice};
pub use mount::{BindOptions, DriverConfig, ImageOptions, MountSpec, TmpfsOptions, VolumeOptions};
pub use network::{EndpointIpamConfig, EndpointSettings, NetworkingConfig, PortBinding};

/// True for the zero value, which Go's `omitempty` leaves out.
fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
