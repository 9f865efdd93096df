//! Images: their configurations, their names, and the archives they come in.

mod add;
mod archive;
mod change;
mod config;
mod import;
mod index;
mod load;
mod member;
mod oci;
mod remove;
mod resolve;
mod save;

pub use add::NewImage;
pub use archive::ArchiveError;
pub use change::{ChangeError, ConfigChange, apply_changes};
pub use config::{HealthcheckConfig, HistoryEntry, ImageConfig, RootFilesystem, RunConfig};
pub use import::{ImageHistory, ImagePlatform, ImportOptions};
pub(crate) use index::{ImageEntry, ImageIndex};
pub use load::{Acceptance, LoadProgress, LoadedImage};
pub use remove::{ImageUser, RemoveError, RemoveOptions, Removed};
pub use resolve::{Image, ResolveError};
pub use save::SavePlan;
