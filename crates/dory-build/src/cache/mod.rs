//! Cached results from elsewhere, and for elsewhere.
//!
//! What is kept is BuildKit's form: an image's manifest whose layers are the results, and whose configuration
//! (`application/vnd.buildkit.cacheconfig.v0`) says which layer came of which key; or, inline, the same in the image's own
//! configuration (`moby.buildkit.cache.v0`). The keys are this builder's own, so a cache of BuildKit's has nothing for it, nor
//! the other way round; each takes the other's for one without anything that it knows.
//!
//! A result is brought when its key is asked for, never before.

mod config;
mod export;
mod import;

pub(crate) use export::{Exported, export, inline};
pub(crate) use import::Imported;

use std::collections::BTreeMap;
use std::path::PathBuf;

use dory_types::ImageReference;

use crate::builder::Builder;
use crate::depot::{Depot, LayoutDepot};
use crate::images::ImagesError;
use crate::request::{CacheLocation, Request};

/// Which results are brought away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Those that the image is made of.
    Min,
    /// Those of every stage that was built.
    Max,
}

impl Mode {
    fn of(location: &CacheLocation) -> Result<Self, String> {
        match location.attributes.get("mode").map(String::as_str) {
            None | Some("min") => Ok(Self::Min),
            Some("max") => Ok(Self::Max),
            Some(other) => Err(format!("invalid mode `{other}` of a cache: min or max")),
        }
    }
}

/// What progress calls a place.
pub(crate) fn shown(location: &CacheLocation) -> String {
    let place = ["ref", "src", "dest"].iter().find_map(|name| location.attributes.get(*name));
    place.unwrap_or(&location.kind).clone()
}

/// Opens the place of a cache; `write` to bring something there.
fn depot(
    builder: &Builder,
    request: &Request,
    location: &CacheLocation,
    write: bool,
) -> Result<Box<dyn Depot>, ImagesError> {
    let attribute = |name: &str| -> Result<&String, ImagesError> {
        let missing = || ImagesError::Failed(format!("a cache of type {} needs `{name}`", location.kind));
        location.attributes.get(name).ok_or_else(missing)
    };
    match location.kind.as_str() {
        "registry" => {
            let text = attribute("ref")?;
            let reference: ImageReference = text.parse().map_err(|error: dory_types::ReferenceError| {
                ImagesError::Reference { reference: text.clone(), message: error.to_string() }
            })?;
            let images = request.images.as_ref().unwrap_or(&builder.images);
            images.depot(&reference, write)
        }
        "local" => {
            let text = attribute(if write { "dest" } else { "src" })?;
            let path = request.directory.clone().unwrap_or_default().join(PathBuf::from(text));
            let tag = location.attributes.get("tag").cloned().unwrap_or_else(|| "latest".to_owned());
            Ok(Box::new(LayoutDepot::open(builder.store.clone(), &path, tag, write)?))
        }
        other => Err(ImagesError::Failed(format!("unknown cache type `{other}`: registry, local, inline"))),
    }
}

/// Attributes that a build cannot be held to.
pub(crate) fn check(location: &CacheLocation) -> Result<(), String> {
    if !matches!(location.kind.as_str(), "registry" | "local" | "inline") {
        return Err(format!(
            "cache exports of type `{}` are not supported: registry, local, inline",
            location.kind
        ));
    }
    Mode::of(location)?;
    let attributes: &BTreeMap<String, String> = &location.attributes;
    match attributes.get("compression").map(String::as_str) {
        None | Some("gzip") => Ok(()),
        Some(other) => Err(format!("compression `{other}` of a cache is not supported: gzip")),
    }
}
