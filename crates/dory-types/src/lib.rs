//! Ids, names, references and digests as newtypes, and nothing that does I/O.

/// Label that marks what a session of the gateway, or a container's guarded socket, made. Its value is a secret of its owner,
/// so that no image from a registry can claim to be somebody's.
pub const OWNER_LABEL: &str = "io.dory.owner";

mod boolean;
mod causes;
mod digest;
mod duration;
mod id;
mod limit;
mod name;
mod reference;
mod signal;
mod size;
mod timestamp;

pub use boolean::parse_bool;
pub use causes::with_causes;
pub use digest::{Digest, DigestError};
pub use duration::{DurationError, GoDuration, human_duration};
pub use id::{ContainerId, ExecId, IdError, ImageId, NetworkId};
pub use limit::ULIMIT_NAMES;
pub use name::{ContainerName, NameError, VolumeName, VolumeNameError};
pub use reference::{ImageReference, ReferenceError, Repository, Tag};
pub use signal::{Signal, SignalError};
pub use size::{ByteSize, SizeError};
pub use timestamp::{Timestamp, TimestampError};
