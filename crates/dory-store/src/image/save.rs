//! `docker save`: images as one archive that is both an OCI image layout and docker's own form, as dockerd writes it
//! since version 25.
//!
//! ```text
//! blobs/sha256/<hex>   layers (uncompressed, each once), configurations, manifests
//! index.json           OCI: the manifests, with the images' names as annotations
//! manifest.json        docker: configuration, names and layers of each image
//! oci-layout
//! ```
//!
//! The archive is written as it is read from the layers: nothing is stored in between, and of the same images always the
//! same bytes come. Each image's layers are leased until it is written.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::sync::Arc;

use dory_types::{Digest, ImageId, ImageReference, Tag};
use serde::Serialize;
use tar::{EntryType, Header};

use super::ResolveError;
use crate::error::StoreError;
use crate::store::{LayerLease, Store};
use crate::tar_stream::BLOCK;

/// Media types of the OCI image-spec, media-types.md.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image of the archive, and the names that it has there.
#[derive(Debug)]
struct Saved {
    id: ImageId,
    references: Vec<ImageReference>,
}

/// A descriptor (descriptor.md).
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<&'static str, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
}

/// For which machines an image is (image-index.md).
#[derive(Debug, Clone, Serialize)]
struct Platform {
    architecture: String,
    os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
}

/// A manifest (manifest.md).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// An index (image-index.md).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

/// One image of `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    layer_sources: BTreeMap<Digest, Descriptor>,
}

impl Descriptor {
    fn new(media_type: &'static str, digest: Digest, size: u64) -> Self {
        Self { media_type, digest, size, annotations: None, platform: None }
    }

    fn of(media_type: &'static str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// With the names by which other tools find the image.
    fn named(mut self, reference: &ImageReference) -> Self {
        let tag = reference.tag().map(Tag::as_str).unwrap_or_default();
        self.annotations = Some(BTreeMap::from([
            ("io.containerd.image.name", reference.to_string()),
            ("org.opencontainers.image.ref.name", tag.to_owned()),
        ]));
        self
    }
}

/// The member that has a blob.
fn member(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Store {
    /// Writes the images that `names` mean to `sink`. A name with a tag is in the archive, a repository alone means all
    /// of its tags, an id means the image without a name.
    ///
    /// # Errors
    /// [`StoreError::Resolve`] before anything is written; [`StoreError::WriteArchive`] and [`StoreError::ExportLayer`]
    /// where the sink or the disk fails.
    pub fn save(self: &Arc<Self>, names: &[String], sink: &mut dyn Write) -> Result<(), StoreError> {
        self.plan_save(names)?.write(sink)
    }

    /// The digest of the manifest under which an archive has `image`.
    ///
    /// # Errors
    /// [`StoreError::Resolve`], and [`StoreError::MissingLayer`] where the store is damaged.
    pub fn manifest_digest(self: &Arc<Self>, image: &ImageId) -> Result<Digest, StoreError> {
        let config = Descriptor::of(CONFIG, &self.config_bytes(image)?);
        let layers = self.lease_layers(image)?.iter().map(|lease| self.layer_descriptor(lease)).collect();
        let manifest = Manifest { schema_version: 2, media_type: MANIFEST, config, layers };
        Ok(Digest::of(&json(&manifest)?))
    }

    fn layer_descriptor(&self, lease: &LayerLease) -> Descriptor {
        let digest = lease.diff_id();
        Descriptor::new(LAYER, digest, self.layer(&digest).unwrap_or_default().archive_size)
    }

    /// Finds what `names` mean, and holds it until the plan is written.
    ///
    /// # Errors
    /// [`StoreError::Resolve`].
    pub fn plan_save(self: &Arc<Self>, names: &[String]) -> Result<SavePlan, StoreError> {
        let mut images: Vec<Saved> = Vec::new();
        for name in names {
            for (id, reference) in self.named(name)? {
                let position = images.iter().position(|image| image.id == id).unwrap_or_else(|| {
                    images.push(Saved { id, references: Vec::new() });
                    images.len() - 1
                });
                let references = &mut images[position].references;
                references.extend(reference.filter(|reference| !references.contains(reference)));
            }
        }
        let leases = images.iter().map(|image| self.lease_layers(&image.id)).collect::<Result<_, _>>()?;
        Ok(SavePlan { store: Arc::clone(self), images, leases })
    }

    /// The images that one argument of a save means, and the name that each has by it.
    fn named(&self, name: &str) -> Result<Vec<(ImageId, Option<ImageReference>)>, StoreError> {
        let state = self.lock();
        if let Ok(reference) = ImageReference::parse_untagged(name)
            && reference.tag().is_none()
            && reference.digest().is_none()
        {
            let of_repository = state.index.references.iter().filter(|(known, _)| {
                known.repository() == reference.repository() && known.digest().is_none()
            });
            let all: Vec<_> = of_repository.map(|(known, id)| (id.clone(), Some(known.clone()))).collect();
            if !all.is_empty() {
                return Ok(all);
            }
        }
        let has_tag = ImageReference::parse_untagged(name).is_ok_and(|reference| reference.tag().is_some());
        let id = state.index.resolve(name).map_err(|error| match error {
            ResolveError::NotFound(_) if has_tag => ResolveError::NoReference,
            error => error,
        })?;
        let reference = name.parse::<ImageReference>().ok();
        let tagged = reference.filter(|reference| state.index.references.get(reference) == Some(&id));
        Ok(vec![(id, tagged.filter(|reference| reference.digest().is_none()))])
    }
}

/// What a save will write.
#[derive(Debug)]
pub struct SavePlan {
    store: Arc<Store>,
    images: Vec<Saved>,
    /// Of each image, the lowest layer first.
    leases: Vec<Vec<LayerLease>>,
}

impl SavePlan {
    /// The images, each with the first name that it will have, or its id.
    pub fn images(&self) -> impl Iterator<Item = (&ImageId, String)> {
        self.images.iter().map(|image| {
            let name = image.references.first().map(ImageReference::familiar);
            (&image.id, name.unwrap_or_else(|| format!("sha256:{}", image.id)))
        })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// As [`Store::save`].
    pub fn write(self, sink: &mut dyn Write) -> Result<(), StoreError> {
        let mut writer = Writer { store: &self.store, sink, written: HashSet::new() };
        let mut index = Index { schema_version: 2, media_type: INDEX, manifests: Vec::new() };
        let mut docker = Vec::new();
        for (image, leases) in self.images.iter().zip(&self.leases) {
            let (manifest, entry) = writer.image(image, leases)?;
            match image.references.as_slice() {
                [] => index.manifests.push(manifest),
                names => index.manifests.extend(names.iter().map(|name| manifest.clone().named(name))),
            }
            docker.push(entry);
        }
        writer.document("index.json", &json(&index)?)?;
        writer.document("manifest.json", &json(&docker)?)?;
        writer.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        sink.write_all(&[0; 2 * BLOCK]).and_then(|()| sink.flush()).map_err(StoreError::WriteArchive)
    }
}

/// An archive in the making.
struct Writer<'a> {
    store: &'a Arc<Store>,
    sink: &'a mut dyn Write,
    /// Blobs that are in the archive already.
    written: HashSet<Digest>,
}

impl Writer<'_> {
    /// Writes an image's blobs; its manifest's descriptor, and its entry in `manifest.json`.
    fn image(
        &mut self,
        image: &Saved,
        leases: &[LayerLease],
    ) -> Result<(Descriptor, DockerImage), StoreError> {
        let config = self.store.config_bytes(&image.id)?;
        let parsed = self.store.image(image.id.as_str())?.config;
        let created = parsed.created.map_or(0, |created| created.unix_seconds());
        let mut layers = Vec::new();
        for lease in leases {
            layers.push(self.layer(lease, created)?);
        }
        let config_descriptor = Descriptor::of(CONFIG, &config);
        self.blob(&config, created)?;
        let entry = DockerImage {
            config: member(&config_descriptor.digest),
            repo_tags: Some(image.references.iter().map(ImageReference::familiar).collect::<Vec<_>>())
                .filter(|tags| !tags.is_empty()),
            layers: layers.iter().map(|layer| member(&layer.digest)).collect(),
            layer_sources: layers.iter().map(|layer| (layer.digest, layer.clone())).collect(),
        };
        let manifest =
            json(&Manifest { schema_version: 2, media_type: MANIFEST, config: config_descriptor, layers })?;
        self.blob(&manifest, created)?;
        let mut descriptor = Descriptor::of(MANIFEST, &manifest);
        descriptor.platform = Some(Platform {
            architecture: parsed.architecture.clone(),
            os: parsed.os.clone(),
            variant: parsed.variant.clone(),
        });
        Ok((descriptor, entry))
    }

    /// Writes a layer, unless another image brought it.
    fn layer(&mut self, lease: &LayerLease, created: i64) -> Result<Descriptor, StoreError> {
        let descriptor = self.store.layer_descriptor(lease);
        let Descriptor { digest, size, .. } = descriptor;
        if self.written.insert(digest) {
            self.header(&member(&digest), size, created)?;
            self.store.export(&digest, self.sink)?;
            self.padding(size)?;
        }
        Ok(descriptor)
    }

    /// Writes a small blob.
    fn blob(&mut self, bytes: &[u8], created: i64) -> Result<(), StoreError> {
        let digest = Digest::of(bytes);
        if self.written.insert(digest) {
            self.file(&member(&digest), bytes, created)?;
        }
        Ok(())
    }

    /// Writes a document. Its time is the same in every archive.
    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.file(name, bytes, 0)
    }

    fn file(&mut self, name: &str, bytes: &[u8], modified: i64) -> Result<(), StoreError> {
        self.header(name, bytes.len() as u64, modified)?;
        self.sink.write_all(bytes).map_err(StoreError::WriteArchive)?;
        self.padding(bytes.len() as u64)
    }

    /// Writes the header of a file. No name here is longer than a header's field, and a size beyond its octal digits is
    /// written in GNU's binary form, as Go does.
    fn header(&mut self, name: &str, size: u64, modified: i64) -> Result<(), StoreError> {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(modified).unwrap_or(0));
        header.set_size(size);
        header.set_cksum();
        self.sink.write_all(header.as_bytes()).map_err(StoreError::WriteArchive)
    }

    /// Fills the last block of a file of `size` bytes.
    fn padding(&mut self, size: u64) -> Result<(), StoreError> {
        let length = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        self.sink.write_all(&[0; BLOCK][..length]).map_err(StoreError::WriteArchive)
    }
}

/// A document's bytes.
fn json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(StoreError::SerialiseConfig)
}
