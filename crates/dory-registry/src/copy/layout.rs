//! OCI image layouts to read from, in a directory or in an archive, and the archives of older Dockers.
//!
//! Source: OCI image-spec 1.1, image-layout.md; Docker image specification 1.2 for `manifest.json`. Archives are read in
//! place, so they must not be compressed as a whole.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dory_types::{Digest, ImageReference};
use futures_util::stream;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::CopyError;
use crate::manifest::{Descriptor, Document, Index, IndexEntry, MANIFEST_LENGTH_MAX, MediaType};
use crate::remote::UploadStream;

/// The annotation with an image's tag in its layout (OCI image-spec, annotations.md).
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with its whole name, from containerd and Docker.
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";
/// How much of a blob is read at once, in bytes.
const PIECE: usize = 256 << 10;
/// The most members of an archive that are looked at.
const MEMBERS_MAX: usize = 1_000_000;

/// A layout that can be read.
#[derive(Debug)]
pub(super) struct Layout {
    path: PathBuf,
    blobs: Blobs,
    index: Index,
}

#[derive(Debug)]
enum Blobs {
    /// `blobs/sha256/` beneath the path.
    Directory,
    /// Where in the archive each blob begins, and how long it is.
    Archive(HashMap<Digest, (u64, u64)>),
    /// The same, beside documents that the archive lacks.
    Converted(HashMap<Digest, (u64, u64)>, HashMap<Digest, Vec<u8>>),
}

/// `manifest.json` of Docker's archives.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Layout {
    /// Opens a directory. Blocks.
    pub(super) fn directory(path: &Path) -> Result<Self, CopyError> {
        let bytes = read_bounded(&path.join("index.json"))?;
        Ok(Self { path: path.to_owned(), blobs: Blobs::Directory, index: parse_index(path, &bytes)? })
    }

    /// Opens an archive. Blocks.
    pub(super) fn archive(path: &Path) -> Result<Self, CopyError> {
        let mut members = members(path)?;
        if let Some(range) = members.remove("index.json") {
            let index = parse_index(path, &read_member(path, range)?)?;
            let blobs = members.into_iter().filter_map(|(name, range)| {
                let hex = name.strip_prefix("blobs/sha256/")?;
                Some((Digest::from_hex(hex).ok()?, range))
            });
            return Ok(Self { path: path.to_owned(), blobs: Blobs::Archive(blobs.collect()), index });
        }
        match members.remove("manifest.json") {
            Some(range) => Self::converted(path, &read_member(path, range)?, &members),
            None => Err(CopyError::NoImages(path.to_owned())),
        }
    }

    /// Makes manifests for an archive that has none.
    fn converted(
        path: &Path,
        manifest: &[u8],
        members: &HashMap<String, (u64, u64)>,
    ) -> Result<Self, CopyError> {
        let images: Vec<DockerImage> = serde_json::from_slice(manifest)
            .map_err(|source| CopyError::Document { path: path.to_owned(), source })?;
        let member = |name: &String| {
            members
                .get(name)
                .copied()
                .ok_or_else(|| CopyError::Member { path: path.to_owned(), member: name.clone() })
        };
        let (mut ranges, mut documents, mut entries) = (HashMap::new(), HashMap::new(), Vec::new());
        for image in images {
            let mut blob = |name: &String, media_type: &str| {
                let range = member(name)?;
                let (digest, compressed) = hash_member(path, range)?;
                ranges.insert(digest, range);
                let suffix = if compressed { "+gzip" } else { "" };
                Ok::<_, CopyError>(Descriptor::new(&format!("{media_type}{suffix}"), digest, range.1))
            };
            let mut config = blob(&image.config, "")?;
            config.media_type = MediaType::new(MediaType::OCI_CONFIG);
            let layers =
                image.layers.iter().map(|layer| blob(layer, "application/vnd.oci.image.layer.v1.tar"));
            let layers = layers.collect::<Result<Vec<_>, _>>()?;
            let document = serde_json::json!({
                "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": layers,
            });
            let document = document.to_string().into_bytes();
            let manifest = Descriptor::of(MediaType::OCI_MANIFEST, &document);
            documents.insert(manifest.digest, document);
            for name in image.repo_tags.unwrap_or_default() {
                let mut target = manifest.clone();
                target.annotations.insert(IMAGE_NAME.to_owned(), name);
                entries.push(IndexEntry { target, platform: None });
            }
            if !entries.iter().any(|entry| entry.target.digest == manifest.digest) {
                entries.push(IndexEntry { target: manifest, platform: None });
            }
        }
        let index = Index { media_type: MediaType::new(MediaType::OCI_INDEX), manifests: entries };
        Ok(Self { path: path.to_owned(), blobs: Blobs::Converted(ranges, documents), index })
    }

    /// The image that is called `name`, a tag or a whole name; the only one where nothing is named.
    pub(super) fn find(&self, name: Option<&str>) -> Result<Descriptor, CopyError> {
        let called = |entry: &IndexEntry, name: &str| {
            let annotations = &entry.target.annotations;
            let full = |name: &str| name.parse::<ImageReference>().ok();
            annotations.get(REF_NAME).is_some_and(|tag| tag == name)
                || annotations
                    .get(IMAGE_NAME)
                    .is_some_and(|image| full(image).is_some() && full(image) == full(name))
        };
        let mut candidates: Vec<&IndexEntry> = self.index.manifests.iter().collect();
        if let Some(name) = name {
            candidates.retain(|entry| called(entry, name));
        }
        let mut digests: Vec<_> = candidates.iter().map(|entry| entry.target.digest).collect();
        digests.sort();
        digests.dedup();
        match (digests.len(), candidates.first()) {
            (1, Some(entry)) => Ok(entry.target.clone()),
            (0, _) => Err(CopyError::NoSuchImage {
                path: self.path.clone(),
                name: name.unwrap_or_default().to_owned(),
            }),
            (count, _) => Err(CopyError::Several { path: self.path.clone(), count }),
        }
    }

    /// A document whose digest is right. Blocks.
    pub(super) fn document(&self, target: &Descriptor) -> Result<(Bytes, Document), CopyError> {
        if target.size > MANIFEST_LENGTH_MAX {
            return Err(CopyError::Blob {
                digest: target.digest,
                source: io::ErrorKind::FileTooLarge.into(),
            });
        }
        let mut bytes = Vec::new();
        let error = |source| CopyError::Blob { digest: target.digest, source };
        let (reader, _) = self.open(&target.digest).map_err(error)?;
        reader.take(MANIFEST_LENGTH_MAX + 1).read_to_end(&mut bytes).map_err(error)?;
        if Digest::of(&bytes) != target.digest {
            return Err(CopyError::Mismatch(target.digest));
        }
        let document = Document::parse(&bytes, &target.media_type)
            .map_err(|source| CopyError::Manifest { digest: target.digest, source: Box::new(source) })?;
        Ok((bytes.into(), document))
    }

    /// A blob and its length. Blocks.
    fn open(&self, digest: &Digest) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let range = match &self.blobs {
            Blobs::Directory => {
                let file = File::open(self.path.join("blobs/sha256").join(digest.hex()))?;
                let length = file.metadata()?.len();
                return Ok((Box::new(file), length));
            }
            Blobs::Converted(_, documents) if documents.contains_key(digest) => {
                let bytes = documents.get(digest).cloned().unwrap_or_default();
                let length = bytes.len() as u64;
                return Ok((Box::new(io::Cursor::new(bytes)), length));
            }
            Blobs::Archive(ranges) | Blobs::Converted(ranges, _) => {
                *ranges.get(digest).ok_or_else(missing)?
            }
        };
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(range.0))?;
        Ok((Box::new(file.take(range.1)), range.1))
    }

    /// A blob as a stream.
    pub(super) fn stream(&self, digest: &Digest) -> UploadStream {
        let opened = self.open(digest).map(|(reader, _)| reader);
        Box::pin(stream::unfold(Some(opened), async |state| {
            let mut reader = match state? {
                Ok(reader) => reader,
                Err(error) => return Some((Err(error), None)),
            };
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE];
                let length = reader.read(&mut piece)?;
                piece.truncate(length);
                Ok((piece, reader))
            });
            match read.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok((piece, _)) if piece.is_empty() => None,
                Ok((piece, reader)) => Some((Ok(Bytes::from(piece)), Some(Ok(reader)))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

fn parse_index(path: &Path, bytes: &[u8]) -> Result<Index, CopyError> {
    serde_json::from_slice(bytes).map_err(|source| CopyError::Document { path: path.to_owned(), source })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, CopyError> {
    let error = |source| CopyError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(error)?.take(MANIFEST_LENGTH_MAX).read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}

/// Where the regular members of an archive are; a hard or symbolic link is where what it means is, as old Dockers share
/// layers so.
fn members(path: &Path) -> Result<HashMap<String, (u64, u64)>, CopyError> {
    let error = |source| CopyError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(error)?;
    let mut archive = tar::Archive::new(file);
    let (mut found, mut links) = (HashMap::new(), Vec::new());
    for entry in archive.entries_with_seek().map_err(error)?.take(MEMBERS_MAX) {
        let entry = entry.map_err(error)?;
        let Some(name) = clean(&entry.path().map_err(error)?) else { continue };
        let kind = entry.header().entry_type();
        if kind.is_file() {
            found.insert(name, (entry.raw_file_position(), entry.size()));
        } else if (kind.is_symlink() || kind.is_hard_link())
            && let Some(target) = entry.link_name().map_err(error)?
        {
            let base = if kind.is_symlink() { Path::new(&name).parent().map(Path::to_owned) } else { None };
            links.extend(clean(&base.unwrap_or_default().join(target)).map(|target| (name, target)));
        }
    }
    for (name, target) in links {
        if let Some(range) = found.get(&target).copied() {
            found.insert(name, range);
        }
    }
    Ok(found)
}

/// A member's name without `.` and `..`; `None` where it climbs out.
fn clean(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(part) => parts.push(part.to_str()?),
            std::path::Component::ParentDir => drop(parts.pop()?),
            _ => {}
        }
    }
    Some(parts.join("/"))
}

fn read_member(path: &Path, (position, length): (u64, u64)) -> Result<Vec<u8>, CopyError> {
    let error = |source| CopyError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(error)?;
    file.seek(SeekFrom::Start(position)).map_err(error)?;
    let mut bytes = Vec::new();
    file.take(length.min(MANIFEST_LENGTH_MAX)).read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}

/// A member's digest, and whether it is compressed with gzip.
fn hash_member(path: &Path, (position, length): (u64, u64)) -> Result<(Digest, bool), CopyError> {
    let error = |source| CopyError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(error)?;
    file.seek(SeekFrom::Start(position)).map_err(error)?;
    let mut reader = file.take(length);
    let (mut hasher, mut piece, mut start) = (Sha256::new(), vec![0; PIECE], None);
    loop {
        let length = reader.read(&mut piece).map_err(error)?;
        if length == 0 {
            break;
        }
        start.get_or_insert_with(|| piece[..length].starts_with(&[0x1f, 0x8b]));
        hasher.update(&piece[..length]);
    }
    Ok((Digest::from_bytes(hasher.finalize().into()), start.unwrap_or(false)))
}
