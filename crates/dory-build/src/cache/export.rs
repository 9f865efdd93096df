//! Brings cached results away.

use std::collections::{BTreeSet, HashMap};

use base64::Engine as _;
use dory_registry::{Descriptor, MediaType};
use dory_store::LayerLease;
use dory_types::{Digest, Timestamp};
use serde::Serialize;

use super::config::{CONFIG, CacheConfig, CacheLayer, CacheRecord, CacheResult, INLINE};
use super::{Mode, depot, shown};
use crate::builder::Builder;
use crate::cancel::Cancel;
use crate::error::BuildError;
use crate::images::ImagesError;
use crate::request::{CacheLocation, Request};
use crate::solve::Teller;

/// A result that was used or made.
#[derive(Debug, Clone)]
pub(crate) struct Exported {
    pub(crate) key: Digest,
    /// None where nothing had to be changed.
    pub(crate) layer: Option<LayerLease>,
    pub(crate) created: Timestamp,
    /// The image is made of it: its stage is the target, or one that the target goes on from.
    pub(crate) in_image: bool,
}

/// A manifest with a configuration of another kind than images'.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CacheManifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

/// Brings `results` to everywhere that the request names, but into no image.
pub(crate) fn export(
    builder: &Builder,
    request: &Request,
    results: &[Exported],
    teller: &Teller,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    for location in request.cache_to.iter().filter(|location| location.kind != "inline") {
        let label = format!("exporting cache to {} {}", location.kind, shown(location));
        let done = teller.during(&label, Vec::new(), |vertex| {
            let progress = |id: &str, current, total, done| teller.status(vertex, id, current, total, done);
            one(builder, request, location, results, &progress, cancel)
        });
        let may_fail = location.attributes.get("ignore-error").is_some_and(|value| value == "true");
        match done {
            Err(ImagesError::Cancelled) => return Err(BuildError::Cancelled),
            Err(error) if !may_fail => {
                return Err(BuildError::Output { output: shown(location), message: error.to_string() });
            }
            _ => {}
        }
    }
    Ok(())
}

fn one(
    builder: &Builder,
    request: &Request,
    location: &CacheLocation,
    results: &[Exported],
    progress: &crate::images::TransferProgress<'_>,
    cancel: &Cancel,
) -> Result<(), ImagesError> {
    let mode = Mode::of(location).map_err(ImagesError::Failed)?;
    let depot = depot(builder, request, location, true)?;
    let (mut config, mut blobs) = (CacheConfig::default(), Vec::new());
    let mut places: HashMap<Digest, usize> = HashMap::new();
    for result in wanted(results, mode) {
        if cancel.is_cancelled() {
            return Err(ImagesError::Cancelled);
        }
        let mut record = CacheRecord { results: Vec::new(), digest: result.key };
        if let Some(layer) = &result.layer {
            let diff_id = layer.diff_id();
            let place = match places.get(&diff_id) {
                Some(place) => *place,
                None => {
                    let blob = depot.put_layer(layer, progress, cancel)?;
                    let media_type = blob.media_type.to_string();
                    config.layers.push(CacheLayer::new(Some(blob.digest), &media_type, diff_id, blob.size));
                    blobs.push(blob);
                    places.insert(diff_id, blobs.len() - 1);
                    blobs.len() - 1
                }
            };
            let created_at = request.source_date_epoch.unwrap_or(result.created);
            record.results.push(CacheResult { layer: place, created_at });
        }
        config.records.push(record);
    }
    let failed = |error: serde_json::Error| ImagesError::Failed(error.to_string());
    let document = serde_json::to_vec(&config).map_err(failed)?;
    let described = Descriptor::of(CONFIG, &document);
    depot.put_blob(&described, &document)?;
    let manifest = CacheManifest {
        schema_version: 2,
        media_type: MediaType::OCI_MANIFEST,
        config: &described,
        layers: &blobs,
    };
    let manifest = serde_json::to_vec(&manifest).map_err(failed)?;
    depot.put_document(MediaType::OCI_MANIFEST, &manifest, true)
}

/// Each key once, in the order of the keys: the same results make the same document.
fn wanted(results: &[Exported], mode: Mode) -> Vec<&Exported> {
    let mut seen = BTreeSet::new();
    let mut wanted: Vec<&Exported> = results
        .iter()
        .filter(|result| mode == Mode::Max || result.in_image)
        .filter(|result| seen.insert(result.key))
        .collect();
    wanted.sort_by_key(|result| result.key);
    wanted
}

/// Adds the keys of an image's own layers to its configuration, where the request wants that.
pub(crate) fn inline(request: &Request, config: Vec<u8>, results: &[Exported]) -> Vec<u8> {
    if !request.cache_to.iter().any(|location| location.kind == "inline") {
        return config;
    }
    let mut cache = CacheConfig::default();
    for result in wanted(results, Mode::Min) {
        let mut record = CacheRecord { results: Vec::new(), digest: result.key };
        if let Some(layer) = &result.layer {
            cache.layers.push(CacheLayer::new(None, "", layer.diff_id(), 0));
            let created_at = request.source_date_epoch.unwrap_or(result.created);
            record.results.push(CacheResult { layer: cache.layers.len() - 1, created_at });
        }
        cache.records.push(record);
    }
    let Ok(document) = serde_json::to_vec(&cache) else { return config };
    let document = base64::engine::general_purpose::STANDARD.encode(document);
    let mut config = config;
    // The configuration is an object, and one with members.
    config.pop();
    config.extend_from_slice(format!(",\"{INLINE}\":\"{document}\"}}").as_bytes());
    config
}
