//! Cached results from elsewhere: found by their keys, brought when they are wanted.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use dory_registry::{Descriptor, Document, ImageManifest, Index, MediaType, Platform};
use dory_store::{BuildRecord, ExpectedLayer, LayerLease};
use dory_types::{Digest, Timestamp, with_causes};
use serde::Deserialize;

use super::config::{CONFIG, CacheConfig, INLINE};
use super::{depot, shown};
use crate::builder::Builder;
use crate::depot::{Depot, read_blob};
use crate::images::ImagesError;
use crate::request::{CacheLocation, Request};
use crate::solve::Teller;

/// What other places have.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    results: HashMap<Digest, Remote>,
}

/// A result at another place.
#[derive(Debug, Clone)]
struct Remote {
    /// The layer's digest, its blob, and where that is; none where nothing had to be changed.
    layer: Option<(Digest, Descriptor, Arc<dyn Depot>)>,
    created: Timestamp,
}

/// What of an image's configuration counts here.
#[derive(Deserialize)]
struct InlineConfig {
    #[serde(default, rename = "moby.buildkit.cache.v0")]
    cache: String,
    rootfs: InlineRootfs,
}

#[derive(Deserialize)]
struct InlineRootfs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

fn malformed(error: impl std::fmt::Display) -> ImagesError {
    ImagesError::Failed(format!("malformed cache: {error}"))
}

impl Imported {
    /// Looks at the places that the request names. One that cannot be had is told of as a step that failed, and the build
    /// goes on, as BuildKit's does.
    pub(crate) fn load(builder: &Builder, request: &Request, teller: &Teller) -> Self {
        let mut imported = Self::default();
        for location in &request.cache_from {
            let label = format!("importing cache manifest from {}", shown(location));
            // The vertex has the error.
            let _: Result<(), ImagesError> =
                teller.during(&label, Vec::new(), |_| imported.add(builder, request, location));
        }
        imported
    }

    fn add(
        &mut self,
        builder: &Builder,
        request: &Request,
        location: &CacheLocation,
    ) -> Result<(), ImagesError> {
        let depot: Arc<dyn Depot> = depot(builder, request, location, false)?.into();
        let platforms = match request.platforms.as_slice() {
            [] => vec![Platform::current()],
            platforms => platforms.to_vec(),
        };
        let found = depot.document(None)?;
        let media_type = MediaType::new(&found.media_type);
        match Document::parse(&found.bytes, &media_type).map_err(malformed)? {
            Document::Manifest(manifest) => self.manifest(&depot, &manifest),
            Document::Index(index) => self.index(&depot, &index, &platforms),
        }
    }

    /// An older form of BuildKit's, where the results are entries beside their configuration; or images for machines.
    fn index(
        &mut self,
        depot: &Arc<dyn Depot>,
        index: &Index,
        platforms: &[Platform],
    ) -> Result<(), ImagesError> {
        let targets = || index.manifests.iter().map(|entry| &entry.target);
        if let Some(config) = targets().find(|target| target.media_type.as_str() == CONFIG) {
            let config = read_blob(depot.as_ref(), config)?;
            let blobs: Vec<Descriptor> = targets().cloned().collect();
            return self.records(depot, &serde_json::from_slice(&config).map_err(malformed)?, &blobs, &[]);
        }
        for platform in platforms {
            let fits = |wanted: &&dory_registry::IndexEntry| {
                !wanted.is_attestation() && wanted.platform.as_ref().is_none_or(|own| platform.accepts(own))
            };
            let Some(entry) = index.manifests.iter().find(fits) else { continue };
            let found = depot.document(Some(&entry.target.digest))?;
            let parsed = Document::parse(&found.bytes, &MediaType::new(&found.media_type));
            if let Document::Manifest(manifest) = parsed.map_err(malformed)? {
                self.manifest(depot, &manifest)?;
            }
        }
        Ok(())
    }

    fn manifest(&mut self, depot: &Arc<dyn Depot>, manifest: &ImageManifest) -> Result<(), ImagesError> {
        let config = read_blob(depot.as_ref(), &manifest.config)?;
        if manifest.config.media_type.as_str() == CONFIG {
            let config = serde_json::from_slice(&config).map_err(malformed)?;
            return self.records(depot, &config, &manifest.layers, &[]);
        }
        let image: InlineConfig = serde_json::from_slice(&config).map_err(malformed)?;
        if image.cache.is_empty() {
            return Err(ImagesError::Failed(format!("the image has no cache in it (`{INLINE}`)")));
        }
        let cache = base64::engine::general_purpose::STANDARD.decode(&image.cache).map_err(malformed)?;
        let cache = serde_json::from_slice(&cache).map_err(malformed)?;
        self.records(depot, &cache, &manifest.layers, &image.rootfs.diff_ids)
    }

    /// `blobs` are what the layers of `config` are stored as: by their digests, or in the order of `diff_ids`.
    fn records(
        &mut self,
        depot: &Arc<dyn Depot>,
        config: &CacheConfig,
        blobs: &[Descriptor],
        diff_ids: &[Digest],
    ) -> Result<(), ImagesError> {
        for record in &config.records {
            let Some(result) = record.results.first() else {
                let remote = Remote { layer: None, created: Timestamp::default() };
                self.results.entry(record.digest).or_insert(remote);
                continue;
            };
            // Layers without digests of what they unpack to are BuildKit's, whose keys nobody asks for.
            let Some(layer) = config.layers.get(result.layer) else { continue };
            let Some(diff_id) = layer.diff_id() else { continue };
            let blob = match layer.blob {
                Some(digest) => blobs.iter().find(|blob| blob.digest == digest),
                None => diff_ids.iter().position(|own| *own == diff_id).and_then(|place| blobs.get(place)),
            };
            let Some(blob) = blob else { continue };
            let layer = Some((diff_id, blob.clone(), Arc::clone(depot)));
            self.results.entry(record.digest).or_insert(Remote { layer, created: result.created_at });
        }
        Ok(())
    }

    /// Brings the result of `key` into the store, where a place has it.
    pub(crate) fn bring(
        &self,
        builder: &Builder,
        key: Digest,
        description: &str,
    ) -> Option<(BuildRecord, Option<LayerLease>)> {
        let remote = self.results.get(&key)?;
        let store = &builder.store;
        let layer = match &remote.layer {
            None => None,
            Some((diff_id, blob, depot)) => {
                let brought = store.lease_layer(diff_id).map_or_else(
                    || {
                        let source = depot.blob(blob)?;
                        let expected = ExpectedLayer {
                            blob: Some((blob.digest, blob.size)),
                            diff_id: Some(*diff_id),
                            ..ExpectedLayer::default()
                        };
                        let ingested = store.ingest_layer(source, &expected);
                        ingested.map_err(|error| ImagesError::Failed(with_causes(&error)))
                    },
                    Ok,
                );
                match brought {
                    Ok(lease) => Some(lease),
                    Err(error) => {
                        // It is made here instead.
                        tracing::warn!(%key, %error, "Cannot bring a cached result");
                        return None;
                    }
                }
            }
        };
        let record = BuildRecord {
            layer: layer.as_ref().map(LayerLease::diff_id),
            description: description.to_owned(),
            kind: "regular".to_owned(),
            created: remote.created,
            used: Timestamp::now(),
            uses: 0,
        };
        if let Err(error) = store.put_build_record(key, record.clone()) {
            tracing::warn!(%key, %error, "Cannot remember a cached result");
            return None;
        }
        Some((record, layer))
    }
}
