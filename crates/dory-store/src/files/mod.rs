//! Files of containers: packed into archives, taken from archives, and compared with the image's.
//!
//! ```text
//! Tree           a container's files as it sees them: its root directory, mounts included    stat, pack, unpack
//! LayeredFiles   its writable layer over the image's layers, read without any mount          changes, export
//! View           a directory or layers to copy from; LayerArchive is what the copies become  build
//! ```
//!
//! A container is hostile and may change its files while they are read. Every path is resolved by the kernel beneath the
//! root descriptor (openat2(2), `RESOLVE_IN_ROOT`), every file is opened once as a mere reference, looked at, and only
//! then opened for reading through that very reference: whatever is swapped in between, nothing outside of the root is
//! reached, no device is opened and no fifo waited for (CVE-2018-15664).

mod assemble;
mod error;
mod header;
mod ids;
mod layered;
mod links;
mod pack;
mod place;
mod tree;
mod unpack;
mod view;

pub use assemble::{Attributes, LayerArchive};
pub use error::FileError;
pub use ids::{IdMap, IdRange};
pub use layered::{Change, ChangeKind, LayeredFiles};
pub use tree::{PathStat, Tree};
pub use unpack::{Ownership, UnpackOptions};
pub use view::{Node, View};
