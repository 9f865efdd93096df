//! An OCI image layout in a directory (OCI image-spec 1.1, image-layout.md).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use dory_registry::{Descriptor, MediaType};
use dory_store::{LayerLease, Store, make_and_open};
use dory_types::{Digest, ImageReference};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{DOCUMENT_MAX, Depot, StoredDocument};
use crate::cancel::Cancel;
use crate::images::{ImagesError, TransferProgress};

/// The annotation with a document's tag (OCI image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same with the whole name, from containerd and Docker.
const IMAGE_NAME: &str = "io.containerd.image.name";
const INDEX: &str = "index.json";
const TEMPORARY: &str = ".new-blob";

/// A layout in a directory.
#[derive(Debug)]
pub struct LayoutDepot {
    store: Arc<Store>,
    root: OwnedFd,
    blobs: OwnedFd,
    tag: String,
    /// One writer at a time.
    writing: Mutex<()>,
}

/// `index.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutIndex {
    schema_version: u32,
    #[serde(default = "index_type")]
    media_type: String,
    manifests: Vec<Descriptor>,
}

fn index_type() -> String {
    MediaType::OCI_INDEX.to_owned()
}

fn failed(error: impl std::fmt::Display) -> ImagesError {
    ImagesError::Failed(error.to_string())
}

impl LayoutDepot {
    /// The layout in `directory`; with `make` it is made where it is missing.
    ///
    /// # Errors
    /// [`ImagesError::NotFound`] where there is none, [`ImagesError::Failed`] where it cannot be made.
    pub fn open(
        store: Arc<Store>,
        directory: &Path,
        tag: impl Into<String>,
        make: bool,
    ) -> Result<Self, ImagesError> {
        if make {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let missing = || ImagesError::NotFound { reference: directory.display().to_string() };
        let root = fs::open(directory, flags, Mode::empty()).map_err(|_| missing())?;
        Self::beneath(store, root, tag, make).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => failed(error),
        })
    }

    fn beneath(store: Arc<Store>, root: OwnedFd, tag: impl Into<String>, make: bool) -> io::Result<Self> {
        let child = |parent: &OwnedFd, name: &str| {
            if make {
                return make_and_open(parent, name, 0o755);
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::openat(parent, name, flags, Mode::empty())
        };
        let blobs = child(&child(&root, "blobs")?, "sha256")?;
        let depot = Self { store, root, blobs, tag: tag.into(), writing: Mutex::default() };
        if make {
            depot.write(&depot.root, "oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}")?;
        }
        Ok(depot)
    }

    /// Writes a file, which gets its name when it is complete.
    fn write(&self, directory: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = temporary(directory)?;
        file.write_all(bytes)?;
        Ok(fs::renameat(directory, TEMPORARY, directory, name)?)
    }

    /// Writes all of it as an archive, names in the order of their bytes.
    pub(crate) fn pack(&self, sink: &mut dyn Write) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.blobs)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(Digest::from_hex(&name).is_ok().then_some(name));
        }
        names.sort();
        let mut archive = tar::Builder::new(sink);
        let files = [(&self.root, INDEX, INDEX), (&self.root, "oci-layout", "oci-layout")]
            .map(|(directory, name, path)| (directory, name.to_owned(), path.to_owned()));
        let blobs = names.into_iter().map(|name| (&self.blobs, name.clone(), format!("blobs/sha256/{name}")));
        for (directory, name, path) in files.into_iter().chain(blobs) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(fs::openat(directory, name, flags, Mode::empty())?);
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(file.metadata()?.len());
            archive.append_data(&mut header, path, file)?;
        }
        archive.finish()
    }

    fn index(&self) -> Result<LayoutIndex, ImagesError> {
        let empty = LayoutIndex { schema_version: 2, media_type: index_type(), manifests: Vec::new() };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match fs::openat(&self.root, INDEX, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(empty),
            Err(errno) => return Err(failed(errno)),
        };
        let mut bytes = Vec::new();
        file.take(DOCUMENT_MAX).read_to_end(&mut bytes).map_err(failed)?;
        serde_json::from_slice(&bytes).map_err(failed)
    }

    fn open_blob(&self, digest: &Digest) -> Result<File, ImagesError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&self.blobs, digest.hex(), flags, Mode::empty()) {
            Ok(file) => Ok(file.into()),
            Err(Errno::NOENT) => Err(ImagesError::NotFound { reference: digest.to_string() }),
            Err(errno) => Err(failed(errno)),
        }
    }
}

fn temporary(directory: &OwnedFd) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(directory, TEMPORARY, flags, Mode::from_raw_mode(0o644))?.into())
}

/// Hashes what is written.
struct Hashed {
    file: File,
    hasher: Sha256,
    length: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Depot for LayoutDepot {
    fn document(&self, digest: Option<&Digest>) -> Result<StoredDocument, ImagesError> {
        let index = self.index()?;
        let is_tagged = |entry: &&Descriptor| entry.annotations.get(REF_NAME) == Some(&self.tag);
        let found = match digest {
            Some(digest) => index.manifests.iter().find(|entry| entry.digest == *digest),
            // One that is alone needs no name.
            None => index.manifests.iter().find(is_tagged).or(match index.manifests.as_slice() {
                [only] => Some(only),
                _ => None,
            }),
        };
        let (digest, media_type) = match (found, digest) {
            (Some(entry), _) => (entry.digest, entry.media_type.to_string()),
            (None, Some(digest)) => (*digest, String::new()),
            (None, None) => return Err(ImagesError::NotFound { reference: self.tag.clone() }),
        };
        let mut bytes = Vec::new();
        self.open_blob(&digest)?.take(DOCUMENT_MAX).read_to_end(&mut bytes).map_err(failed)?;
        if Digest::of(&bytes) != digest {
            return Err(failed(format!("{digest} does not match its digest")));
        }
        Ok(StoredDocument { media_type, bytes })
    }

    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, ImagesError> {
        Ok(Box::new(self.open_blob(&blob.digest)?))
    }

    fn put_blob(&self, blob: &Descriptor, bytes: &[u8]) -> Result<(), ImagesError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&self.blobs, &blob.digest.hex(), bytes).map_err(failed)
    }

    fn put_layer(
        &self,
        layer: &LayerLease,
        progress: &TransferProgress<'_>,
        _cancel: &Cancel,
    ) -> Result<Descriptor, ImagesError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let file = temporary(&self.blobs).map_err(failed)?;
        let sink = Hashed { file, hasher: Sha256::new(), length: 0 };
        let mut encoder = GzEncoder::new(sink, Compression::default());
        self.store.export_layer(layer, &mut encoder).map_err(failed)?;
        let sink = encoder.finish().map_err(failed)?;
        let digest = Digest::from_bytes(sink.hasher.finalize().into());
        fs::renameat(&self.blobs, TEMPORARY, &self.blobs, digest.hex()).map_err(failed)?;
        progress(&format!("writing layer {digest}"), sink.length, sink.length, true);
        Ok(Descriptor::new(MediaType::OCI_LAYER_GZIP, digest, sink.length))
    }

    fn put_document(&self, media_type: &str, bytes: &[u8], tagged: bool) -> Result<(), ImagesError> {
        let mut entry = Descriptor::of(media_type, bytes);
        self.put_blob(&entry, bytes)?;
        if !tagged {
            return Ok(());
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.index()?;
        index.manifests.retain(|other| other.annotations.get(REF_NAME) != Some(&self.tag));
        // The tag of a whole name is what others look for.
        let tag = match self.tag.parse::<ImageReference>() {
            Ok(reference) if self.tag.contains([':', '/']) => {
                entry.annotations.insert(IMAGE_NAME.to_owned(), self.tag.clone());
                reference.tag().map_or_else(|| self.tag.clone(), ToString::to_string)
            }
            _ => self.tag.clone(),
        };
        entry.annotations.insert(REF_NAME.to_owned(), tag);
        index.manifests.push(entry);
        let bytes = serde_json::to_vec(&index).map_err(failed)?;
        self.write(&self.root, INDEX, &bytes).map_err(failed)
    }
}
