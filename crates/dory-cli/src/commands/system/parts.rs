//! `system df -v`: one table for each kind of thing.

use anyhow::{Result, bail};

use super::super::container::render_usage;
use super::super::image::TITLES;
use super::super::moment::ago;
use super::usage::{self, CacheEntry, Usage, Volume};
use crate::data::Data;
use crate::listing::{Listing, Row};
use crate::units;
use dory_log::Timestamp;

const IMAGES: Listing = Listing {
    table: "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    titles: TITLES,
    quiet: "",
};

const VOLUMES: Listing = Listing {
    table: "table {{.Name}}\t{{.Links}}\t{{.Size}}",
    titles: &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")],
    quiet: "",
};

const CACHE: Listing = Listing {
    table: "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    titles: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
    ],
    quiet: "",
};

/// The tables, or one JSON object with the rows of all of them.
pub(super) fn render(usage: &Usage, format: &str) -> Result<String> {
    match format {
        "" | "table" => tables(usage),
        "json" => Ok(format!("{}\n", object(usage).to_json())),
        other => bail!("`system df --verbose` knows the formats `table` and `json`, not `{other}`"),
    }
}

fn tables(usage: &Usage) -> Result<String> {
    let cache = usage::build_cache(usage);
    Ok([
        "Images space usage:\n\n".to_owned(),
        IMAGES.render("", false, &images(usage, false))?,
        "\nContainers space usage:\n\n".to_owned(),
        render_usage(&containers(usage, false))?,
        "\nLocal Volumes space usage:\n\n".to_owned(),
        VOLUMES.render("", false, &volumes(usage))?,
        format!("\nBuild cache usage: {}\n\n", units::size(cache.size as f64)),
        CACHE.render("", false, &cache_entries(usage))?,
    ]
    .concat())
}

fn object(usage: &Usage) -> Data {
    let list = |rows: Vec<Row>| Data::List(rows.into_iter().map(|row| row.fields).collect());
    Data::Map(vec![
        ("Images".to_owned(), list(images(usage, true))),
        ("Containers".to_owned(), list(containers(usage, true))),
        ("Volumes".to_owned(), list(volumes(usage))),
        ("BuildCache".to_owned(), list(cache_entries(usage))),
    ])
}

fn images(usage: &Usage, full: bool) -> Vec<Row> {
    usage.images.iter().flatten().flat_map(|image| image.rows(false, full)).collect()
}

fn containers(usage: &Usage, full: bool) -> Vec<Row> {
    // docker leaves the size of the images out here, where each image has a row of its own.
    usage.containers.iter().flatten().map(|container| container.without_image_size().row(full)).collect()
}

fn volumes(usage: &Usage) -> Vec<Row> {
    usage.volumes.iter().flatten().map(volume).collect()
}

fn volume(volume: &Volume) -> Row {
    // -1 means that nobody has counted.
    let known = |value: Option<i64>, text: fn(i64) -> String| {
        value.filter(|value| *value >= 0).map_or_else(|| "N/A".to_owned(), text)
    };
    let data = volume.usage_data.as_ref();
    let labels = volume.labels.clone().unwrap_or_default();
    let label_list: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Row::new(vec![
        ("Availability", "N/A".to_owned()),
        ("Driver", volume.driver.clone()),
        ("Group", "N/A".to_owned()),
        ("Labels", label_list.join(",")),
        ("Links", known(data.map(|data| data.ref_count), |count| count.to_string())),
        ("Mountpoint", volume.mountpoint.clone()),
        ("Name", volume.name.clone()),
        ("Scope", volume.scope.clone()),
        ("Size", known(data.map(|data| data.size), |size| units::size(size as f64))),
        ("Status", "N/A".to_owned()),
    ])
}

fn cache_entries(usage: &Usage) -> Vec<Row> {
    usage.build_cache.iter().flatten().map(cache_entry).collect()
}

fn since(time: &str) -> String {
    Timestamp::parse_rfc3339(time).map(|time| ago(time.seconds())).unwrap_or_default()
}

fn cache_entry(entry: &CacheEntry) -> Row {
    let id: String = entry.id.chars().take(12).collect();
    // As docker does: what is in use has a star, and nobody knows when it will have been used last.
    let id = if entry.in_use { format!("{id}*") } else { id };
    let used = entry.last_used_at.as_deref().map(since).unwrap_or_default();
    Row::new(vec![
        ("ID", id),
        ("CacheType", entry.kind.clone()),
        ("Size", units::size(entry.size as f64)),
        ("CreatedSince", since(&entry.created_at)),
        ("LastUsedSince", used),
        ("UsageCount", entry.usage_count.to_string()),
        ("InUse", entry.in_use.to_string()),
        ("Shared", entry.shared.to_string()),
    ])
}
