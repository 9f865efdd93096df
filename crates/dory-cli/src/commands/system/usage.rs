//! `system df`.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use super::super::container::ContainerSummary;
use super::super::image::ImageSummary;
use super::parts;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, long_value, switch};
use crate::listing::{Listing, Row};
use crate::{print, units};

/// `dory system df`.
pub(super) const USAGE: Command = Command {
    usage: "[OPTIONS]",
    about: "Show the space that images, containers and volumes take",
    flags: &[&[
        long_value("format", "string", "table, json, or a Go template"),
        switch("verbose", 'v', "Show what each image, container and volume takes"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(usage(invocation)),
};

const LISTING: Listing = Listing {
    table: "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    titles: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    quiet: "",
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Usage {
    layers_size: i64,
    pub(super) images: Option<Vec<ImageSummary>>,
    pub(super) containers: Option<Vec<ContainerSummary>>,
    pub(super) volumes: Option<Vec<Volume>>,
    pub(super) build_cache: Option<Vec<CacheEntry>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) driver: String,
    pub(super) mountpoint: String,
    pub(super) scope: String,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) usage_data: Option<VolumeUsage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct VolumeUsage {
    pub(super) size: i64,
    pub(super) ref_count: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct CacheEntry {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(rename = "Type")]
    pub(super) kind: String,
    pub(super) in_use: bool,
    pub(super) shared: bool,
    pub(super) size: i64,
    pub(super) created_at: String,
    pub(super) last_used_at: Option<String>,
    pub(super) usage_count: i64,
}

/// One row: how many there are, how many are in use, their bytes, and the bytes that could be freed.
pub(super) struct Part {
    name: &'static str,
    total: usize,
    active: usize,
    pub(super) size: i64,
    free: i64,
}

async fn usage(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let usage: Usage = invocation.client.get(Path::new(&["system", "df"]).as_str()).await?;
    if arguments.on("verbose") {
        return print(&parts::render(&usage, arguments.text("format"))?);
    }
    let parts = [images(&usage), containers(&usage), volumes(&usage), build_cache(&usage)];
    let rows: Vec<_> = parts.iter().map(Part::row).collect();
    print(&LISTING.render(arguments.text("format"), false, &rows)?)
}

impl Part {
    fn row(&self) -> Row {
        let mut reclaimable = units::size(self.free as f64);
        if self.size > 0 {
            reclaimable.push_str(&format!(" ({}%)", self.free * 100 / self.size));
        }
        Row::new(vec![
            ("Type", self.name.to_owned()),
            ("TotalCount", self.total.to_string()),
            ("Active", self.active.to_string()),
            ("Size", units::size(self.size as f64)),
            ("Reclaimable", reclaimable),
        ])
    }
}

fn images(usage: &Usage) -> Part {
    let images = usage.images.as_deref().unwrap_or_default();
    let used: Vec<_> = images.iter().filter(|image| image.containers > 0).collect();
    let in_use: i64 = used
        .iter()
        .filter(|image| image.size >= 0 && image.shared_size >= 0)
        .map(|image| image.size - image.shared_size)
        .sum();
    let free = (usage.layers_size - in_use).max(0);
    Part { name: "Images", total: images.len(), active: used.len(), size: usage.layers_size, free }
}

fn containers(usage: &Usage) -> Part {
    let containers = usage.containers.as_deref().unwrap_or_default();
    let active = |container: &&ContainerSummary| {
        matches!(container.state.as_str(), "running" | "paused" | "restarting")
    };
    let size = containers.iter().map(|container| container.size_rw).sum();
    let free =
        containers.iter().filter(|container| !active(container)).map(|container| container.size_rw).sum();
    Part {
        name: "Containers",
        total: containers.len(),
        active: containers.iter().filter(active).count(),
        size,
        free,
    }
}

fn volumes(usage: &Usage) -> Part {
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let known: Vec<_> = volumes.iter().filter_map(|volume| volume.usage_data.as_ref()).collect();
    Part {
        name: "Local Volumes",
        total: volumes.len(),
        active: known.iter().filter(|usage| usage.ref_count > 0).count(),
        // -1 means that nobody has counted.
        size: known.iter().map(|usage| usage.size.max(0)).sum(),
        free: known.iter().filter(|usage| usage.ref_count == 0).map(|usage| usage.size.max(0)).sum(),
    }
}

pub(super) fn build_cache(usage: &Usage) -> Part {
    let entries = usage.build_cache.as_deref().unwrap_or_default();
    let own = || entries.iter().filter(|entry| !entry.shared);
    Part {
        name: "Build Cache",
        total: entries.len(),
        active: entries.iter().filter(|entry| entry.in_use).count(),
        size: own().map(|entry| entry.size).sum(),
        free: own().filter(|entry| !entry.in_use).map(|entry| entry.size).sum(),
    }
}
