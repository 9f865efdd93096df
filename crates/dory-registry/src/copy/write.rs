//! OCI image layouts to write to, in a directory or in an archive.
//!
//! A blob has its name when its digest is right; the index is replaced last, by rename: whoever reads meanwhile sees the
//! images that were there before. An archive is made beside its place and renamed into it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dory_types::{Digest, ImageReference};
use futures_util::StreamExt;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use super::CopyError;
use super::layout::{IMAGE_NAME, REF_NAME};
use crate::manifest::{Descriptor, ImageManifest, Index, IndexEntry, MediaType, Platform};
use crate::remote::UploadStream;

/// What kind of archive is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ArchiveKind {
    /// An OCI image layout.
    Oci,
    /// The same with `manifest.json` beside it, which every Docker loads.
    Docker(Option<ImageReference>),
}

/// A layout that is being written.
#[derive(Debug)]
pub(super) struct LayoutWriter {
    directory: PathBuf,
    archive: Option<(PathBuf, ArchiveKind)>,
}

impl LayoutWriter {
    /// Writes into `directory`, which may be a layout already. Blocks.
    pub(super) fn directory(directory: &Path) -> Result<Self, CopyError> {
        let error = |source| CopyError::Write { path: directory.to_owned(), source };
        fs::create_dir_all(directory.join("blobs/sha256")).map_err(error)?;
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(error)?;
        Ok(Self { directory: directory.to_owned(), archive: None })
    }

    /// Writes the archive `file`, which must not be there. Blocks.
    pub(super) fn archive(file: &Path, kind: ArchiveKind) -> Result<Self, CopyError> {
        if file.exists() {
            let source = io::ErrorKind::AlreadyExists.into();
            return Err(CopyError::Write { path: file.to_owned(), source });
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = parent.join(format!(".{name}.{}", std::process::id()));
        let mut writer = Self::directory(&directory)?;
        writer.archive = Some((file.to_owned(), kind));
        Ok(writer)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.hex())
    }

    /// True where the blob is there already.
    pub(super) fn has(&self, blob: &Descriptor) -> bool {
        fs::metadata(self.blob_path(&blob.digest)).is_ok_and(|metadata| metadata.len() == blob.size)
    }

    /// Takes a blob in, if it is the right one.
    pub(super) async fn put(&self, blob: &Descriptor, mut stream: UploadStream) -> Result<(), CopyError> {
        let path = self.blob_path(&blob.digest);
        let temporary = path.with_extension(std::process::id().to_string());
        let error = |source| CopyError::Write { path: path.clone(), source };
        let mut file = tokio::fs::File::create(&temporary).await.map_err(error)?;
        let mut hasher = Sha256::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|source| CopyError::Blob { digest: blob.digest, source })?;
            hasher.update(&piece);
            file.write_all(&piece).await.map_err(error)?;
        }
        file.flush().await.map_err(error)?;
        drop(file);
        if Digest::from_bytes(hasher.finalize().into()) != blob.digest {
            // Without its name it is only clutter.
            let _ = fs::remove_file(&temporary);
            return Err(CopyError::Mismatch(blob.digest));
        }
        tokio::fs::rename(&temporary, &path).await.map_err(error)
    }

    /// Takes a document in.
    pub(super) async fn put_document(&self, target: &Descriptor, bytes: &Bytes) -> Result<(), CopyError> {
        let bytes = bytes.clone();
        self.put(target, Box::pin(futures_util::stream::iter([Ok(bytes)]))).await
    }

    /// Names the image `root`, and makes the archive. `image` is what it is where it is one image. Blocks.
    pub(super) fn finish(
        &self,
        root: &Descriptor,
        tag: Option<&str>,
        platform: Option<&Platform>,
        image: Option<&ImageManifest>,
    ) -> Result<(), CopyError> {
        let path = self.directory.join("index.json");
        let error = |source| CopyError::Write { path: path.clone(), source };
        let mut entries = match fs::read(&path) {
            Ok(bytes) => {
                let index: Index = serde_json::from_slice(&bytes)
                    .map_err(|source| CopyError::Document { path: path.clone(), source })?;
                index.manifests
            }
            Err(_) => Vec::new(),
        };
        entries.retain(|entry| {
            let named = entry.target.annotations.get(REF_NAME).map(String::as_str);
            if tag.is_some() { named != tag } else { named.is_some() || entry.target.digest != root.digest }
        });
        let mut target = root.clone();
        target.annotations.extend(tag.map(|tag| (REF_NAME.to_owned(), tag.to_owned())));
        if let Some((_, ArchiveKind::Docker(Some(reference)))) = &self.archive {
            target.annotations.insert(IMAGE_NAME.to_owned(), reference.to_string());
        }
        entries.push(IndexEntry { target, platform: platform.cloned() });
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": entries,
        });
        let temporary = path.with_extension(std::process::id().to_string());
        fs::write(&temporary, index.to_string())
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(error)?;
        match &self.archive {
            Some((file, kind)) => self.pack(file, kind, image),
            None => Ok(()),
        }
    }

    fn pack(&self, file: &Path, kind: &ArchiveKind, image: Option<&ImageManifest>) -> Result<(), CopyError> {
        let error = |source| CopyError::Write { path: file.to_owned(), source };
        let temporary = self.directory.join("archive.tar");
        let mut archive = tar::Builder::new(File::create(&temporary).map_err(error)?);
        archive.mode(tar::HeaderMode::Deterministic);
        for name in ["oci-layout", "index.json"] {
            archive.append_path_with_name(self.directory.join(name), name).map_err(error)?;
        }
        if let (ArchiveKind::Docker(reference), Some(image)) = (kind, image) {
            let manifest = docker_manifest(reference.as_ref(), image);
            let mut header = tar::Header::new_gnu();
            header.set_size(manifest.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append_data(&mut header, "manifest.json", manifest.as_slice()).map_err(error)?;
        }
        archive.append_dir_all("blobs", self.directory.join("blobs")).map_err(error)?;
        archive.into_inner().and_then(|mut file| file.flush()).map_err(error)?;
        fs::rename(&temporary, file).map_err(error)
    }
}

impl Drop for LayoutWriter {
    fn drop(&mut self) {
        if self.archive.is_some() {
            // What could not be removed is a hidden directory beside the archive; the next try makes its own.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// `manifest.json` of Docker's archives, whose layers may be compressed.
fn docker_manifest(reference: Option<&ImageReference>, image: &ImageManifest) -> Vec<u8> {
    let path = |blob: &Descriptor| format!("blobs/sha256/{}", blob.digest.hex());
    let tags: Vec<_> = reference.map(ImageReference::familiar).into_iter().collect();
    let layers: Vec<_> = image.layers.iter().map(path).collect();
    serde_json::json!([{"Config": path(&image.config), "RepoTags": tags, "Layers": layers}])
        .to_string()
        .into_bytes()
}
