//! Images: their configurations, their names, and the archives they come in.

mod archive;
mod config;
mod index;
mod load;
mod member;
mod oci;
mod resolve;

pub use archive::ArchiveError;
pub use config::{HealthcheckConfig, HistoryEntry, ImageConfig, RootFilesystem, RunConfig};
pub(crate) use index::{ImageEntry, ImageIndex};
pub use load::{LoadProgress, LoadedImage};
pub use resolve::{Image, ResolveError};
