//! What goes wrong in the store, and of which kind it is for the engine's answers.

use std::io;
use std::path::PathBuf;

use dory_types::{ContainerId, Digest, ImageId};

use crate::image::{ArchiveError, ChangeError, RemoveError, ResolveError};
use crate::layer::{ExportError, ExtractError};
use crate::record::RecordError;
use crate::volume::VolumeError;

/// How an error is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The named object does not exist (404).
    NotFound,
    /// The object's state does not allow it (409).
    Conflict,
    /// The caller's input is wrong (400).
    InvalidParameter,
    /// Something of the store itself failed (500).
    Internal,
}

/// An operation of the store failed; nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another engine uses the data-root.
    #[error("data-root `{}` is in use by another engine: {holder}", data_root.display())]
    InUse {
        /// The data-root.
        data_root: PathBuf,
        /// What that engine wrote about itself: its process id and its sockets.
        holder: String,
    },
    /// The data-root, or a directory of it, cannot be made or used.
    #[error("cannot use `{}`", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No such image, or more than one.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// An archive is not what it should be.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An image of an archive is not wanted.
    #[error("{0}")]
    Refused(String),
    /// A layer cannot be unpacked.
    #[error("cannot unpack layer `{layer}`")]
    Extract {
        /// The layer's name in its archive, or its digest.
        layer: String,
        /// Why.
        #[source]
        source: ExtractError,
    },
    /// A blob cannot be stored.
    #[error("cannot store blob `{digest}`")]
    StoreBlob {
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A blob that should be there is not, or cannot be read, or is not what its name says.
    #[error("cannot read blob `{digest}`")]
    ReadBlob {
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An image's configuration has not the form of one.
    #[error("the configuration of image `{image}` is malformed")]
    Config {
        /// The digest of the configuration.
        image: Digest,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// A layer could not be given its name.
    #[error("cannot store layer `{layer}`")]
    StoreLayer {
        /// Its diff-id.
        layer: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer's archive cannot be written again.
    #[error("cannot export layer `{layer}`")]
    ExportLayer {
        /// Its diff-id.
        layer: Digest,
        /// Why.
        #[source]
        source: ExportError,
    },
    /// Whoever takes an archive takes no more of it.
    #[error("cannot write the image archive")]
    WriteArchive(#[source] io::Error),
    /// A new image's layers are not those of its configuration.
    #[error("the layers are not those of the configuration of image `{image}`")]
    Layers {
        /// The digest of the configuration.
        image: Digest,
    },
    /// An image may not be removed.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// An instruction of an import cannot be applied.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A name with a digest says what an image is and cannot be given; dockerd's message.
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest,
    /// A new image's configuration has no JSON form.
    #[error("cannot serialise an image's configuration")]
    SerialiseConfig(#[source] serde_json::Error),
    /// A volume cannot be made, found or removed.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Somebody deleted a layer behind the store's back.
    #[error("layer `{layer}` of image `{}` is missing: load or pull the image again", image.short())]
    MissingLayer {
        /// The image.
        image: ImageId,
        /// The diff-id.
        layer: Digest,
    },
    /// A container's snapshot cannot be made or removed.
    #[error("cannot {operation} the snapshot of container `{container}`")]
    Snapshot {
        /// What was tried.
        operation: &'static str,
        /// The container.
        container: ContainerId,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// How the error is to be answered.
    pub fn kind(&self) -> StoreErrorKind {
        match self {
            Self::InUse { .. } => StoreErrorKind::Conflict,
            Self::Resolve(error) => error.kind(),
            Self::Remove(_) => StoreErrorKind::Conflict,
            Self::Volume(error) => error.kind(),
            Self::Refused(_) => StoreErrorKind::NotFound,
            Self::Archive(_)
            | Self::Config { .. }
            | Self::Layers { .. }
            | Self::Change(_)
            | Self::TagWithDigest => StoreErrorKind::InvalidParameter,
            Self::Extract { source, .. } => match source {
                ExtractError::Root(_)
                | ExtractError::Framing(_)
                | ExtractError::Record(_)
                | ExtractError::Entry { .. } => StoreErrorKind::Internal,
                _ => StoreErrorKind::InvalidParameter,
            },
            _ => StoreErrorKind::Internal,
        }
    }
}
