//! Content by digest, unpacked layers, the image index and volumes, crash-safe.
//!
//! ```text
//! <data-root>/
//!   lock                              held by the one engine that uses the data-root; says which
//!   content/sha256/<hex>              blobs, immutable: the images' configurations
//!   layers/<diff-id hex>/{fs,layer.json,framing.zst}
//!   images.json                       which images there are, and their names
//!   distributions.json                as which blobs registries have the layers: a hint
//!   volumes/<name>/{volume.json,_data}
//!   containers/<id>/{snapshot.json,upper,work}, and what the engine adds
//!   children/, share/                 for stores that use this one from below
//!   store.json                        this store's name among the children of others
//!   build/{cache.log,mounts,files}     what builds have made, and what they keep
//!   tmp/, trash/                      what is being made, and what is being deleted
//! ```
//!
//! Invariants: a blob or a layer has its name only when its digest is right; the index
//! names only blobs and layers that are on the disk; what neither the index nor a container's snapshot names is deleted
//! with its last user, or at the next start. All calls block; the engine makes them on threads for that.

mod compression;
mod content;
mod directory;
mod error;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod image;
mod layer;
mod lock;
mod record;
mod snapshot;
mod store;
mod tar_stream;
mod trash;
mod volume;

pub use compression::is_archive;
pub use directory::make_and_open;
pub use error::{StoreError, StoreErrorKind};
pub use files::{
    Attributes, Change, ChangeKind, FileError, IdMap, IdRange, LayerArchive, LayeredFiles, Node, Ownership,
    PathStat, Tree, UnpackOptions, View,
};
pub use image::{
    Acceptance, ArchiveError, ChangeError, ConfigChange, HealthcheckConfig, HistoryEntry, Image, ImageConfig,
    ImageHistory, ImagePlatform, ImageUser, ImportOptions, LoadProgress, LoadedImage, NewImage, RemoveError,
    RemoveOptions, Removed, ResolveError, RootFilesystem, RunConfig, SavePlan, apply_changes,
};
pub use layer::{ExportError, ExtractError, LayerRecord, UnpackLimits};
pub use record::{
    Durability, RecordError, TEMPORARY_PREFIX, parse_record, read_record, remove_temporaries, write_record,
};
pub use snapshot::{Owner, Snapshot};
pub use store::{
    BackingFilesystem, BuildRecord, Distribution, ExpectedLayer, LayerLease, LowerOptions, Scratch, Share,
    Store,
};
pub use tar_stream::TarError;
pub use volume::{CopyUpError, Volume, VolumeError, copy_up};
