//! OCI image layouts (OCI image-spec, image-layout.md): an index leads to manifests, or to further indexes.

use std::collections::BTreeMap;

use dory_types::{Digest, ImageReference};
use serde::Deserialize;

use super::archive::{ArchiveError, ArchivedImage, ArchivedLayer, Documents, parse};

/// containerd's annotation for an image's full name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The specification's annotation, which tools use for a full name or for a tag alone.
const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";
/// BuildKit's mark on manifests that describe another manifest instead of an image.
const ATTESTATION: &str = "vnd.docker.reference.type";
/// How deep indexes may be nested; two levels are in use.
const DEPTH_MAX: usize = 4;

/// A descriptor (descriptor.md).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// For which machines a manifest is (image-index.md).
#[derive(Debug, Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

/// An index (image-index.md).
#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// A manifest (manifest.md).
#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

impl Descriptor {
    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The member of the layout that has the blob.
    fn member(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }

    fn is_index(&self) -> bool {
        self.media_type.ends_with("image.index.v1+json") || self.media_type.ends_with("manifest.list.v2+json")
    }

    /// True for an image that runs on `architecture`; one without a platform may.
    fn runs_on(&self, architecture: &str) -> bool {
        let is_image = self.annotation(ATTESTATION).is_none();
        let platform = self.platform.as_ref();
        is_image
            && platform.is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture)
    }

    /// The name that the layout gives to the image. A tag alone names nothing.
    fn reference(&self) -> Option<ImageReference> {
        let name = self
            .annotation(CONTAINERD_NAME)
            .or_else(|| self.annotation(REFERENCE_NAME).filter(|name| name.contains(['/', ':', '@'])))?;
        name.parse().ok()
    }

    /// The blob's content, which must be what the descriptor says.
    fn verified<'a>(&self, documents: &'a Documents) -> Result<&'a [u8], ArchiveError> {
        let content = documents.get(&self.member())?;
        let matches = content.len() as u64 == self.size && Digest::of(content) == self.digest;
        if matches { Ok(content) } else { Err(ArchiveError::Blob(self.digest)) }
    }

    /// The blob as a document.
    fn parse<'a, T: Deserialize<'a>>(&self, documents: &'a Documents) -> Result<T, ArchiveError> {
        serde_json::from_slice(self.verified(documents)?)
            .map_err(|source| ArchiveError::Document { name: self.member(), source })
    }
}

/// The images of the layout whose entry point is the document `index`: of each top-level entry the one that runs on
/// `architecture`.
pub(super) fn images(
    documents: &Documents,
    index: &str,
    architecture: &str,
) -> Result<Vec<ArchivedImage>, ArchiveError> {
    let index: Index = parse(documents, index)?;
    let mut images: Vec<(Digest, ArchivedImage)> = Vec::new();
    for descriptor in index.manifests.iter().filter(|entry| entry.is_index() || entry.runs_on(architecture)) {
        let Some(manifest) = select(documents, descriptor, architecture, 0)? else { continue };
        let reference = descriptor.reference();
        // One image with several names stands in the index several times.
        if let Some((_, image)) = images.iter_mut().find(|(digest, _)| *digest == manifest.digest) {
            image.references.extend(reference);
            continue;
        }
        images.push((manifest.digest, image(documents, &manifest, reference)?));
    }
    if images.is_empty() {
        return Err(ArchiveError::Platform(architecture.to_owned()));
    }
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

/// The manifest that `descriptor` leads to; `None` where it has none for this machine.
fn select(
    documents: &Documents,
    descriptor: &Descriptor,
    architecture: &str,
    depth: usize,
) -> Result<Option<Descriptor>, ArchiveError> {
    if !descriptor.is_index() {
        return Ok(descriptor.runs_on(architecture).then(|| descriptor.clone()));
    }
    if depth >= DEPTH_MAX {
        return Err(ArchiveError::NestedTooDeeply);
    }
    let index: Index = descriptor.parse(documents)?;
    for entry in &index.manifests {
        if let Some(manifest) = select(documents, entry, architecture, depth + 1)? {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// The image of a manifest.
fn image(
    documents: &Documents,
    descriptor: &Descriptor,
    reference: Option<ImageReference>,
) -> Result<ArchivedImage, ArchiveError> {
    let manifest: Manifest = descriptor.parse(documents)?;
    let layers = manifest.layers.iter().map(|layer| {
        Ok(ArchivedLayer {
            member: documents.resolve(&layer.member())?,
            blob: Some((layer.digest, layer.size)),
        })
    });
    Ok(ArchivedImage {
        config: manifest.config.verified(documents)?.to_vec(),
        layers: layers.collect::<Result<_, ArchiveError>>()?,
        references: reference.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Adds a blob and gives its descriptor.
    fn add(documents: &mut Documents, media_type: &str, content: &Value) -> Value {
        let bytes = content.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        documents.files.insert(format!("blobs/sha256/{}", digest.hex()), bytes);
        descriptor
    }

    /// A layout with one image for amd64 and one for arm64 in a nested index, and an attestation.
    fn layout() -> Documents {
        let mut documents = Documents::default();
        let layer = json!({"digest": Digest::of(b"layer"), "size": 5});
        let mut entries = Vec::new();
        for architecture in ["arm64", "amd64"] {
            let config = add(&mut documents, "", &json!({"architecture": architecture}));
            let manifest = json!({"config": config, "layers": [layer]});
            let mut entry = add(&mut documents, "application/vnd.oci.image.manifest.v1+json", &manifest);
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entries.push(entry);
        }
        let mut attestation = entries[1].clone();
        attestation["annotations"] = json!({ATTESTATION: "attestation-manifest"});
        entries.insert(0, attestation);
        let mut nested =
            add(&mut documents, "application/vnd.oci.image.index.v1+json", &json!({"manifests": entries}));
        let mut manifests = Vec::new();
        for name in ["docker.io/library/a:1", "docker.io/library/a:2"] {
            nested["annotations"] = json!({CONTAINERD_NAME: name});
            manifests.push(nested.clone());
        }
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        documents.files.insert("index.json".into(), index.to_string().into_bytes());
        documents
    }

    #[test]
    fn finds_this_machines_image_in_nested_indexes() {
        let documents = layout();
        let found = images(&documents, "index.json", "amd64").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].config, br#"{"architecture":"amd64"}"#);
        let names: Vec<_> = found[0].references.iter().map(ImageReference::familiar).collect();
        assert_eq!(names, ["a:1", "a:2"]);
        assert_eq!(found[0].layers[0].blob, Some((Digest::of(b"layer"), 5)));
        assert!(matches!(images(&documents, "index.json", "s390x"), Err(ArchiveError::Platform(_))));
    }

    #[test]
    fn blobs_must_be_what_descriptors_say() {
        let whole = layout();
        let blobs = whole.files.keys().filter(|name| name.starts_with("blobs/"));
        let refused = blobs.filter(|name| {
            let mut documents = Documents { files: whole.files.clone(), links: Default::default() };
            documents.files.get_mut(*name).unwrap().push(b' ');
            images(&documents, "index.json", "amd64").is_err()
        });
        // The nested index, this machine's manifest and its configuration; the other machine's are not looked at.
        assert_eq!((refused.count(), whole.files.len()), (3, 6));
    }
}
