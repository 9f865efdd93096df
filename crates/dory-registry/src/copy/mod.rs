//! Images from one place to another with no engine: registries, OCI layouts, archives. Every byte of what has a digest
//! stays as it is, so digests do too.

mod layout;
mod place;
mod write;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use dory_types::{Digest, ImageReference, ReferenceError};
use futures_util::{TryStreamExt, stream};

use crate::error::RegistryError;
use crate::manifest::{Descriptor, Document, ImageManifest, ManifestError, Platform};
use crate::remote::{BlobStream, Remote, UploadStream};
use layout::Layout;
use write::{ArchiveKind, LayoutWriter};

pub use place::Place;

/// How deep indexes may lead to indexes.
const DEPTH_MAX: usize = 4;

/// An image could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The text is no place.
    #[error(
        "invalid place `{0}`: docker://NAME, oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] or \
         dory:NAME is needed"
    )]
    Place(String),
    /// A name in a place is none.
    #[error("invalid name `{text}`")]
    Reference {
        /// The text.
        text: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// A registry failed.
    #[error(transparent)]
    Registry(Box<RegistryError>),
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A document of a layout is not JSON of the right shape.
    #[error("malformed index in `{}`", path.display())]
    Document {
        /// The layout.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest is not one.
    #[error("invalid manifest {digest}")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<ManifestError>,
    },
    /// An archive lacks what it should have.
    #[error("`{}` has no `{member}`", path.display())]
    Member {
        /// The archive.
        path: PathBuf,
        /// What is missing.
        member: String,
    },
    /// An archive has neither an index nor a manifest.
    #[error("`{}` is no archive of images, or it is compressed as a whole", .0.display())]
    NoImages(PathBuf),
    /// No image has that name.
    #[error("`{}` has no image `{name}`", path.display())]
    NoSuchImage {
        /// The layout.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// Several images are there, and none is named.
    #[error("`{}` has {count} images: name one of them", path.display())]
    Several {
        /// The layout.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A blob cannot be read.
    #[error("cannot read blob {digest}")]
    Blob {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A blob is not what its name says.
    #[error("blob {0} does not match its digest")]
    Mismatch(Digest),
    /// Indexes lead to indexes.
    #[error("indexes lead to indexes more than {DEPTH_MAX} deep")]
    Depth,
    /// An engine's images are not to be had here.
    #[error("`dory:` needs an engine")]
    Engine,
    /// The copy's own task failed.
    #[error("the copy ended early")]
    Task(#[source] tokio::task::JoinError),
}

impl From<RegistryError> for CopyError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Box::new(error))
    }
}

/// What is copied of an index.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// Everything, with the index itself.
    pub all: bool,
    /// The image for this platform, where not everything; this machine's by default.
    pub platform: Option<Platform>,
}

/// How far a copy is; each blob is told of once.
#[derive(Debug, Clone)]
pub enum CopyEvent<'a> {
    /// A blob is on its way.
    Blob(&'a Descriptor),
    /// A blob is at its destination already.
    Present(&'a Descriptor),
    /// A manifest or an index is written.
    Manifest(&'a Descriptor),
}

/// Where an image comes from, opened.
#[derive(Debug)]
pub struct CopySource(Source);

#[derive(Debug)]
enum Source {
    Registry(Box<Remote>, ImageReference),
    Layout(Arc<Layout>, Option<String>),
}

impl CopySource {
    /// An image of a registry.
    pub fn registry(remote: Remote, reference: ImageReference) -> Self {
        Self(Source::Registry(Box::new(remote), reference))
    }

    /// An image of a layout or an archive. Blocks: archives are read through once.
    ///
    /// # Errors
    /// [`CopyError`]; [`CopyError::Engine`] for places that are neither.
    pub fn local(place: &Place) -> Result<Self, CopyError> {
        let (layout, name) = match place {
            Place::Layout { directory, tag } => (Layout::directory(directory)?, tag.clone()),
            Place::LayoutArchive { file, tag } => (Layout::archive(file)?, tag.clone()),
            Place::DockerArchive { file, reference } => {
                (Layout::archive(file)?, reference.as_ref().map(ToString::to_string))
            }
            Place::Registry(_) | Place::Engine(_) => return Err(CopyError::Engine),
        };
        Ok(Self(Source::Layout(Arc::new(layout), name)))
    }

    /// What the image's name leads to.
    async fn root(&self) -> Result<(Descriptor, Bytes, Document), CopyError> {
        match &self.0 {
            Source::Registry(remote, reference) => {
                let fetched = remote.manifest(reference).await?;
                let target = Descriptor::of(fetched.media_type.as_str(), &fetched.bytes);
                Ok((target, fetched.bytes, fetched.document))
            }
            Source::Layout(layout, name) => {
                let mut target = layout.find(name.as_deref())?;
                target.annotations.clear();
                self.document(target).await
            }
        }
    }

    async fn document(&self, mut target: Descriptor) -> Result<(Descriptor, Bytes, Document), CopyError> {
        let (bytes, document) = match &self.0 {
            Source::Registry(remote, _) => {
                let name = ImageReference::digested(remote.repository().clone(), target.digest);
                let fetched = remote.manifest(&name).await?;
                (fetched.bytes, fetched.document)
            }
            Source::Layout(layout, _) => {
                let (layout, target) = (Arc::clone(layout), target.clone());
                let read = tokio::task::spawn_blocking(move || layout.document(&target));
                read.await.map_err(CopyError::Task)??
            }
        };
        target.media_type = document.media_type(&target.media_type);
        Ok((target, bytes, document))
    }

    fn stream(&self, blob: &Descriptor) -> UploadStream {
        match &self.0 {
            Source::Registry(remote, _) => {
                let pieces = stream::try_unfold(remote.blob(blob), async |mut blob: BlobStream| {
                    Ok::<_, RegistryError>(blob.next().await?.map(|piece| (piece, blob)))
                });
                Box::pin(pieces.map_err(io::Error::other))
            }
            Source::Layout(layout, _) => layout.stream(&blob.digest),
        }
    }
}

/// Where an image goes to, opened.
#[derive(Debug)]
pub struct CopyDestination(Destination);

#[derive(Debug)]
enum Destination {
    Registry(Box<Remote>, ImageReference),
    Layout(Arc<LayoutWriter>, Option<String>),
}

impl CopyDestination {
    /// A name in a registry.
    pub fn registry(remote: Remote, reference: ImageReference) -> Self {
        Self(Destination::Registry(Box::new(remote), reference))
    }

    /// A layout or an archive. Blocks.
    ///
    /// # Errors
    /// [`CopyError`]; [`CopyError::Engine`] for places that are neither.
    pub fn local(place: &Place) -> Result<Self, CopyError> {
        let (writer, tag) = match place {
            Place::Layout { directory, tag } => (LayoutWriter::directory(directory)?, tag.clone()),
            Place::LayoutArchive { file, tag } => {
                (LayoutWriter::archive(file, ArchiveKind::Oci)?, tag.clone())
            }
            Place::DockerArchive { file, reference } => {
                let tag = reference.as_ref().and_then(ImageReference::tag).map(ToString::to_string);
                (LayoutWriter::archive(file, ArchiveKind::Docker(reference.clone()))?, tag)
            }
            Place::Registry(_) | Place::Engine(_) => return Err(CopyError::Engine),
        };
        Ok(Self(Destination::Layout(Arc::new(writer), tag)))
    }

    async fn has(&self, blob: &Descriptor) -> Result<bool, CopyError> {
        match &self.0 {
            Destination::Registry(remote, _) => Ok(remote.has_blob(&blob.digest).await?),
            Destination::Layout(writer, _) => Ok(writer.has(blob)),
        }
    }

    async fn put(&self, blob: &Descriptor, source: &CopySource) -> Result<(), CopyError> {
        match &self.0 {
            Destination::Registry(remote, _) => Ok(remote.push_blob(blob, || source.stream(blob)).await?),
            Destination::Layout(writer, _) => writer.put(blob, source.stream(blob)).await,
        }
    }

    /// Takes a document in by its digest.
    async fn put_document(&self, target: &Descriptor, bytes: &Bytes) -> Result<(), CopyError> {
        match &self.0 {
            Destination::Registry(remote, _) => {
                let name = ImageReference::digested(remote.repository().clone(), target.digest);
                Ok(remote.push_manifest(&name, target.media_type.as_str(), bytes).await?)
            }
            Destination::Layout(writer, _) => writer.put_document(target, bytes).await,
        }
    }

    /// Takes the image's own document in, by its name.
    async fn finish(&self, root: Root) -> Result<(), CopyError> {
        let Root { target, bytes, platform, image } = root;
        match &self.0 {
            Destination::Registry(remote, reference) => {
                Ok(remote.push_manifest(reference, target.media_type.as_str(), &bytes).await?)
            }
            Destination::Layout(writer, tag) => {
                writer.put_document(&target, &bytes).await?;
                let (writer, tag) = (Arc::clone(writer), tag.clone());
                let finish =
                    move || writer.finish(&target, tag.as_deref(), platform.as_ref(), image.as_ref());
                tokio::task::spawn_blocking(finish).await.map_err(CopyError::Task)?
            }
        }
    }
}

/// What gets the image's name at its destination.
struct Root {
    target: Descriptor,
    bytes: Bytes,
    platform: Option<Platform>,
    image: Option<ImageManifest>,
}

/// Copies an image; what has its name at the destination afterwards.
///
/// # Errors
/// [`CopyError`]. Blobs that have arrived stay; the name leads to what it led to before.
pub async fn copy(
    source: &CopySource,
    destination: &CopyDestination,
    options: &CopyOptions,
    tell: &(dyn Fn(CopyEvent<'_>) + Sync),
) -> Result<Descriptor, CopyError> {
    let (mut target, mut bytes, mut document) = source.root().await?;
    let (mut platform, mut depth) = (None, 0);
    while let Document::Index(index) = &document {
        if options.all {
            let mut left: Vec<_> = index.manifests.iter().map(|entry| (entry.target.clone(), 1)).collect();
            let mut done = Vec::new();
            while let Some((next, depth)) = left.pop() {
                if depth > DEPTH_MAX {
                    return Err(CopyError::Depth);
                }
                let (next, bytes, document) = source.document(next).await?;
                match document {
                    Document::Index(inner) => {
                        left.extend(inner.manifests.into_iter().map(|entry| (entry.target, depth + 1)));
                    }
                    Document::Manifest(manifest) => blobs(source, destination, &manifest, tell).await?,
                }
                done.push((next, bytes));
            }
            // What is named comes before what names it: registries check.
            for (document, bytes) in done.iter().rev() {
                tell(CopyEvent::Manifest(document));
                destination.put_document(document, bytes).await?;
            }
            break;
        }
        depth += 1;
        if depth > DEPTH_MAX {
            return Err(CopyError::Depth);
        }
        let wanted = options.platform.clone().unwrap_or_else(Platform::current);
        let entry = wanted
            .select(index)
            .map_err(|source| CopyError::Manifest { digest: target.digest, source: Box::new(source) })?;
        platform.clone_from(&entry.platform);
        (target, bytes, document) =
            source.document(Descriptor { annotations: Default::default(), ..entry.target.clone() }).await?;
    }
    let image = match document {
        Document::Manifest(manifest) => {
            blobs(source, destination, &manifest, tell).await?;
            Some(manifest)
        }
        Document::Index(_) => None,
    };
    tell(CopyEvent::Manifest(&target));
    destination.finish(Root { target: target.clone(), bytes, platform, image }).await?;
    Ok(target)
}

/// Copies what a manifest names.
async fn blobs(
    source: &CopySource,
    destination: &CopyDestination,
    manifest: &ImageManifest,
    tell: &(dyn Fn(CopyEvent<'_>) + Sync),
) -> Result<(), CopyError> {
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if destination.has(blob).await? {
            tell(CopyEvent::Present(blob));
            continue;
        }
        tell(CopyEvent::Blob(blob));
        destination.put(blob, source).await?;
    }
    Ok(())
}
