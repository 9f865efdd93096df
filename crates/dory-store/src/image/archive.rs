//! What an image archive says about itself: `docker save`'s `manifest.json`, or an OCI image layout.

use std::collections::HashMap;

use dory_types::{Digest, ImageReference};
use serde::Deserialize;

use super::oci;
use crate::tar_stream::{TarError, clean_path};

/// `docker save`'s list of images.
const DOCKER_MANIFEST: &str = "manifest.json";
/// The entry point of an OCI image layout.
const OCI_INDEX: &str = "index.json";
/// How many links lead from one member to another at most.
const LINKS_MAX: usize = 8;
/// The most lower directories that overlayfs takes (kernel, fs/overlayfs, `OVL_MAX_STACK`).
const DEPTH_MAX: usize = 500;

/// An image archive is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive is damaged or breaks off.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The archive's own compression is damaged or unknown.
    #[error("cannot read the image archive")]
    Read(#[source] std::io::Error),
    /// There is neither `manifest.json` nor `index.json`.
    #[error("the archive has no image: neither `{DOCKER_MANIFEST}` nor `{OCI_INDEX}` is in it")]
    NoImage,
    /// A document cannot be read.
    #[error("`{name}` in the archive is malformed")]
    Document {
        /// The member's name.
        name: String,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// Two members with one name and different content: which one counts is anyone's guess.
    #[error("the archive has `{0}` twice, with different content")]
    Duplicate(String),
    /// A member's name climbs out of the archive.
    #[error("invalid path `{0}` in the archive")]
    ClimbsOut(String),
    /// Something is named and is not there.
    #[error("`{0}` is named and not in the archive")]
    Missing(String),
    /// The documents are larger than any sensible ones.
    #[error("the archive's documents are too large")]
    TooLarge,
    /// The archive has more layers than all images of anybody together.
    #[error("the archive has more than {0} layers")]
    TooManyMembers(usize),
    /// A tag is none.
    #[error("invalid tag {0:?}")]
    InvalidTag(String),
    /// Configuration and manifest disagree; dockerd's message.
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {found}")]
    LayerCount {
        /// Layers of the manifest.
        expected: usize,
        /// Layers of the configuration.
        found: usize,
    },
    /// A layer is not the one that the configuration names; dockerd's message.
    #[error("invalid diffID for layer {index}: expected \"{expected}\", got \"{found}\"")]
    DiffId {
        /// Its position, the lowest first.
        index: usize,
        /// What the configuration says.
        expected: Digest,
        /// What the layer has.
        found: Digest,
    },
    /// A blob is not what its descriptor says.
    #[error("blob `{0}` has another digest or size than its descriptor says")]
    Blob(Digest),
    /// No kernel mounts that many.
    #[error("the image has {0} layers, and overlayfs takes no more than {DEPTH_MAX}")]
    TooManyLayers(usize),
    /// No image for this machine.
    #[error("no matching manifest for linux/{0} in the archive")]
    Platform(String),
    /// An index leads to an index, and so on.
    #[error("the archive's indexes are nested too deeply")]
    NestedTooDeeply,
}

/// Refuses an image that could never be mounted. Registries' manifests have the same bound.
pub(super) fn check_layer_count(diff_ids: &[Digest]) -> Result<(), ArchiveError> {
    if diff_ids.len() > DEPTH_MAX { Err(ArchiveError::TooManyLayers(diff_ids.len())) } else { Ok(()) }
}

/// Small members by their cleaned names, and links among members.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pub(super) files: HashMap<String, Vec<u8>>,
    pub(super) links: HashMap<String, String>,
}

impl Documents {
    /// The name of the member that `name` means, whether or not it is there.
    pub(super) fn resolve(&self, name: &str) -> Result<String, ArchiveError> {
        let mut name = clean(name)?;
        for _ in 0..LINKS_MAX {
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => return Ok(name),
            }
        }
        Err(ArchiveError::Missing(name))
    }

    /// The content of the document `name`.
    pub(super) fn get(&self, name: &str) -> Result<&[u8], ArchiveError> {
        let resolved = self.resolve(name)?;
        self.files.get(&resolved).map(Vec::as_slice).ok_or_else(|| ArchiveError::Missing(name.to_owned()))
    }

    /// Takes in a symbolic or hard link from `name`; a relative target is taken from the link's directory.
    pub(super) fn add_link(
        &mut self,
        name: &str,
        target: &str,
        from_directory: bool,
    ) -> Result<(), ArchiveError> {
        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
        let base = if from_directory && !target.starts_with('/') { directory } else { "" };
        let target = clean(&format!("{base}/{target}"))?;
        self.links.insert(name.to_owned(), target);
        Ok(())
    }
}

/// A member's name in one form.
pub(super) fn clean(name: &str) -> Result<String, ArchiveError> {
    let climbs_out = || ArchiveError::ClimbsOut(name.to_owned());
    let cleaned = clean_path(name.as_bytes()).ok_or_else(climbs_out)?;
    String::from_utf8(cleaned).map_err(|_| climbs_out())
}

/// An image that the archive has.
#[derive(Debug)]
pub(super) struct ArchivedImage {
    pub(super) config: Vec<u8>,
    /// The lowest first.
    pub(super) layers: Vec<ArchivedLayer>,
    pub(super) references: Vec<ImageReference>,
}

/// A layer by the name of its member.
#[derive(Debug)]
pub(super) struct ArchivedLayer {
    pub(super) member: String,
    /// Digest and size of the member, where a descriptor states them.
    pub(super) blob: Option<(Digest, u64)>,
}

/// One image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images that the archive's documents describe. Newer `docker save` writes both forms: its own counts, as it
/// has the names.
pub(super) fn images(documents: &Documents, architecture: &str) -> Result<Vec<ArchivedImage>, ArchiveError> {
    if documents.files.contains_key(DOCKER_MANIFEST) {
        return docker_images(documents);
    }
    if documents.files.contains_key(OCI_INDEX) {
        return oci::images(documents, OCI_INDEX, architecture);
    }
    Err(ArchiveError::NoImage)
}

/// The images of `manifest.json`.
fn docker_images(documents: &Documents) -> Result<Vec<ArchivedImage>, ArchiveError> {
    let manifest: Vec<DockerImage> = parse(documents, DOCKER_MANIFEST)?;
    let mut images = Vec::new();
    for image in manifest {
        let layers = image.layers.unwrap_or_default().into_iter();
        let layers = layers.map(|name| Ok(ArchivedLayer { member: documents.resolve(&name)?, blob: None }));
        let tags = image.repo_tags.unwrap_or_default().into_iter();
        images.push(ArchivedImage {
            config: documents.get(&image.config)?.to_vec(),
            layers: layers.collect::<Result<_, ArchiveError>>()?,
            references: tags.map(tagged).collect::<Result<_, ArchiveError>>()?,
        });
    }
    Ok(images)
}

/// Reads the JSON document `name`.
pub(super) fn parse<'a, T: Deserialize<'a>>(documents: &'a Documents, name: &str) -> Result<T, ArchiveError> {
    serde_json::from_slice(documents.get(name)?)
        .map_err(|source| ArchiveError::Document { name: name.to_owned(), source })
}

/// Reads a name that must have a tag.
fn tagged(text: String) -> Result<ImageReference, ArchiveError> {
    match ImageReference::parse_untagged(&text) {
        Ok(reference) if reference.tag().is_some() && reference.digest().is_none() => Ok(reference),
        _ => Err(ArchiveError::InvalidTag(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(files: &[(&str, &str)]) -> Documents {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
        Documents { files: files.collect(), links: HashMap::new() }
    }

    #[test]
    fn reads_dockers_manifest_with_linked_layers() {
        let manifest = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["x/layer.tar","y/layer.tar"]},
                           {"Config":"./c.json","RepoTags":null,"Layers":null}]"#;
        let mut documents = documents(&[("manifest.json", manifest), ("c.json", "{}")]);
        documents.add_link("y/layer.tar", "../x/layer.tar", true).unwrap();
        let images = images(&documents, "amd64").unwrap();
        let members: Vec<_> = images[0].layers.iter().map(|layer| layer.member.as_str()).collect();
        assert_eq!(members, ["x/layer.tar", "x/layer.tar"]);
        assert_eq!(images[0].references[0].familiar(), "a:1");
        assert!(images[1].references.is_empty() && images[1].config == b"{}");
    }

    #[test]
    fn refuses_manifests_that_lead_astray() {
        let cases = [
            (r#"{}"#, "`manifest.json` in the archive is malformed"),
            (r#"[{"Config":"none.json"}]"#, "`none.json` is named and not in the archive"),
            (r#"[{"Config":"../c.json"}]"#, "invalid path `../c.json` in the archive"),
            (r#"[{"Config":"c.json","RepoTags":["a"]}]"#, "invalid tag \"a\""),
        ];
        for (manifest, message) in cases {
            let documents = documents(&[("manifest.json", manifest), ("c.json", "{}")]);
            assert_eq!(images(&documents, "amd64").unwrap_err().to_string(), message);
        }
        assert!(matches!(images(&documents(&[]), "amd64"), Err(ArchiveError::NoImage)));
    }

    #[test]
    fn links_end() {
        let mut documents = documents(&[]);
        documents.add_link("a", "b", true).unwrap();
        documents.add_link("b", "a", true).unwrap();
        assert!(matches!(documents.resolve("a"), Err(ArchiveError::Missing(_))));
        assert!(matches!(documents.add_link("a", "../b", true), Err(ArchiveError::ClimbsOut(_))));
    }
}
