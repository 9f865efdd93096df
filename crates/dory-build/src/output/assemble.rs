//! Images that are more than one manifest: several machines, annotations, attestations. They are written blob by blob, and the
//! document that stands for all of them last.

use std::collections::BTreeMap;

use dory_registry::{Descriptor, IndexEntry, MediaType, Platform};
use dory_types::Digest;
use serde::Serialize;

use super::attest::{Statement, statements};
use crate::builder::Builder;
use crate::cancel::Cancel;
use crate::depot::Depot;
use crate::images::{ImagesError, TransferProgress};
use crate::outcome::{Outcome, PlatformResult};
use crate::request::Request;

/// Media type of attestations (in-toto's attestation specification).
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Annotation of an attestation's layer with what it attests.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Annotations of an attestation in an index: what it is, and of which image (BuildKit, `docs/attestations`).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// OCI image-spec 1.1, manifest.md.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// OCI image-spec 1.1, image-index.md.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: &'a [IndexEntry],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Whether the result of `request` is more than an image's manifest.
pub(super) fn is_wanted(request: &Request) -> bool {
    request.platforms.len() > 1
        || !request.annotations.is_empty()
        || request.provenance.is_some()
        || !request.attestors.is_empty()
}

/// Writes everything.
pub(super) struct Assembly<'a> {
    pub(super) builder: &'a Builder,
    pub(super) request: &'a Request,
    pub(super) outcome: &'a Outcome,
    /// What the image is called, for attestations.
    pub(super) name: String,
    pub(super) depot: &'a dyn Depot,
    pub(super) progress: &'a TransferProgress<'a>,
    pub(super) cancel: &'a Cancel,
}

fn failed(error: impl std::fmt::Display) -> ImagesError {
    ImagesError::Failed(error.to_string())
}

impl Assembly<'_> {
    /// Writes all manifests, and gives the depot's tag to the one that stands for all; its digest.
    pub(super) fn write(&self) -> Result<Digest, ImagesError> {
        let (mut entries, mut attestations) = (Vec::new(), Vec::new());
        for result in &self.outcome.results {
            let statements = statements(self.builder, self.request, self.outcome, result)?;
            let is_alone = self.outcome.results.len() == 1
                && statements.is_empty()
                && self.annotations("index", None).is_empty();
            let (manifest, bytes) = self.image(result)?;
            if is_alone {
                self.depot.put_document(MediaType::OCI_MANIFEST, &bytes, true)?;
                return Ok(manifest.digest);
            }
            self.depot.put_document(MediaType::OCI_MANIFEST, &bytes, false)?;
            let mut target = manifest.clone();
            target.annotations = self.annotations("manifest-descriptor", Some(&result.platform));
            entries.push(IndexEntry { target, platform: Some(result.platform.clone()) });
            if !statements.is_empty() {
                attestations.push(self.attestation(result, &manifest, &statements)?);
            }
        }
        entries.extend(attestations);
        let index = Index {
            schema_version: 2,
            media_type: MediaType::OCI_INDEX,
            manifests: &entries,
            annotations: self.annotations("index", None),
        };
        let bytes = serde_json::to_vec(&index).map_err(failed)?;
        self.depot.put_document(MediaType::OCI_INDEX, &bytes, true)?;
        Ok(Digest::of(&bytes))
    }

    /// Brings the layers and the configuration of an image; its manifest.
    fn image(&self, result: &PlatformResult) -> Result<(Descriptor, Vec<u8>), ImagesError> {
        let mut layers = Vec::new();
        for layer in &result.layers {
            if self.cancel.is_cancelled() {
                return Err(ImagesError::Cancelled);
            }
            let mut layer = self.depot.put_layer(layer, self.progress, self.cancel)?;
            // One manifest has types of one family.
            if layer.media_type.as_str() == MediaType::DOCKER_LAYER_GZIP {
                layer.media_type = MediaType::new(MediaType::OCI_LAYER_GZIP);
            }
            layers.push(layer);
        }
        let config = Descriptor::of(MediaType::OCI_CONFIG, &result.config_bytes);
        self.depot.put_blob(&config, &result.config_bytes)?;
        self.manifest(&config, &layers, self.annotations("manifest", Some(&result.platform)))
    }

    fn manifest(
        &self,
        config: &Descriptor,
        layers: &[Descriptor],
        annotations: BTreeMap<String, String>,
    ) -> Result<(Descriptor, Vec<u8>), ImagesError> {
        let media_type = MediaType::OCI_MANIFEST;
        let manifest = Manifest { schema_version: 2, media_type, config, layers, annotations };
        let bytes = serde_json::to_vec(&manifest).map_err(failed)?;
        Ok((Descriptor::of(media_type, &bytes), bytes))
    }

    /// Those of a level; one without a level is the manifest's. A level may name a platform: `manifest[linux/arm64]`.
    fn annotations(&self, level: &str, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let is_here = |said: &str| {
            let said = if said.is_empty() { "manifest" } else { said };
            match said.strip_suffix(']').and_then(|said| said.split_once('[')) {
                Some((name, wanted)) => {
                    name == level && platform.is_some_and(|platform| platform.to_string() == wanted)
                }
                None => said == level,
            }
        };
        let annotations = self.request.annotations.iter().filter(|annotation| is_here(&annotation.level));
        annotations.map(|annotation| (annotation.key.clone(), annotation.value.clone())).collect()
    }

    /// The manifest of what is attested of an image, with a configuration that no machine takes for its own.
    fn attestation(
        &self,
        result: &PlatformResult,
        image: &Descriptor,
        statements: &[Statement],
    ) -> Result<IndexEntry, ImagesError> {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for statement in statements {
            let bytes = statement.document(&self.name, &result.platform, &image.digest);
            let bytes = serde_json::to_vec(&bytes).map_err(failed)?;
            let mut layer = Descriptor::of(IN_TOTO, &bytes);
            self.depot.put_blob(&layer, &bytes)?;
            diff_ids.push(layer.digest.to_string());
            layer.annotations.insert(PREDICATE_TYPE.to_owned(), statement.predicate_type.clone());
            layers.push(layer);
        }
        let config = serde_json::json!({
            "architecture": "unknown", "os": "unknown", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).map_err(failed)?;
        let described = Descriptor::of(MediaType::OCI_CONFIG, &config);
        self.depot.put_blob(&described, &config)?;
        let (mut target, bytes) = self.manifest(&described, &layers, BTreeMap::new())?;
        self.depot.put_document(MediaType::OCI_MANIFEST, &bytes, false)?;
        target.annotations.insert(REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned());
        target.annotations.insert(REFERENCE_DIGEST.to_owned(), image.digest.to_string());
        let platform = Platform {
            os: "unknown".to_owned(),
            architecture: "unknown".to_owned(),
            variant: String::new(),
            os_version: String::new(),
        };
        Ok(IndexEntry { target, platform: Some(platform) })
    }
}

/// Who attests something of an image, such as what software is in it (the SBOM hook).
pub trait Attestor: std::fmt::Debug + Send + Sync {
    /// What there is to say of `result`, whose files are in `files`.
    ///
    /// # Errors
    /// In words; the build fails.
    fn attest(&self, result: &PlatformResult, files: &dory_store::View) -> Result<Vec<Statement>, String>;
}
