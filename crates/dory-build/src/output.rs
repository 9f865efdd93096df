//! Where the result of a build goes.

use std::fmt::Debug;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use dory_types::ImageReference;

/// Takes a stream: a file, standard output, a client.
pub trait Sink: Debug + Send + Sync {
    /// Opens it; called once, when everything is built.
    ///
    /// # Errors
    /// Where it cannot be had.
    fn open(&self) -> io::Result<Box<dyn Write + Send>>;
}

/// Where a result goes (`--output`).
#[derive(Debug, Clone)]
pub enum Output {
    /// An image, in the store unless `store` is false, and at a registry where `push` is true.
    Image {
        /// Its names; the request's where the list is empty.
        names: Vec<ImageReference>,
        /// Keep it in the store.
        store: bool,
        /// Bring it to the registries of its names.
        push: bool,
        /// These registries may speak plain HTTP, or have any certificate.
        insecure: bool,
    },
    /// The files of the result, in a directory.
    Local {
        /// Made where it is missing; files that are there are replaced.
        directory: PathBuf,
    },
    /// The files of the result, as an archive.
    Tar {
        /// Takes the archive.
        sink: Arc<dyn Sink>,
    },
    /// An OCI image layout, as an archive; the same that `docker` takes.
    Archive {
        /// Names of the image in it; the request's where the list is empty.
        names: Vec<ImageReference>,
        /// Takes the archive.
        sink: Arc<dyn Sink>,
    },
}
