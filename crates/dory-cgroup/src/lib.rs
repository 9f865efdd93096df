//! Control groups v1, v2, hybrid or none behind one interface; a limit that cannot be set is a value, not a crash.
//!
//! ```text
//! <hierarchy>/…/dory               the parent: made once, controllers enabled for children
//!               └── <container id>  limits: written by the engine only
//!                    └── container  exists where the group is delegated: chowned to the container's root, which may
//!                                   make groups beneath it; the container's cgroup namespace is rooted here
//! ```
//!
//! Without delegation the processes live in the group that carries the limits, so that programs which size themselves
//! by the limits at the root of their cgroup namespace (Java, Go, Node) find them. With delegation limits and
//! processes are apart, because whoever owns a group's directory could otherwise lift its limits; the limits are then
//! repeated in the leaf for those programs to see.
//!
//! On v1 every controller has a tree of its own, and all trees get the same groups. Beside v1 controllers an empty v2
//! tree (hybrid) is used too, for its reliable freezing and killing.

mod control_file;
mod controller;
mod device;
mod device_program;
mod entrance;
mod error;
mod group;
mod hierarchies;
mod limits;
mod limits_v1;
mod limits_v2;
mod manager;
mod mounts;
mod resources;
mod usage;
mod usage_v1;
mod usage_v2;

pub use controller::Controller;
pub use device::{Access, DeviceKind, DeviceRule};
pub use entrance::Entrance;
pub use error::{CgroupError, Refusal};
pub use group::Group;
pub use hierarchies::{Hierarchies, Mode, Position};
pub use manager::{Delegation, Manager};
pub use resources::{DeviceNumber, DeviceRate, DeviceWeight, Resources};
pub use usage::{BlockIo, BlockIoUsage, CpuUsage, MemoryUsage, PidsUsage, Usage};
