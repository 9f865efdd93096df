//! `images`.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use super::super::filters::Filters;
use super::super::moment;
use super::split_reference;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, list, long_switch, long_value, switch};
use crate::listing::{Listing, Row};
use crate::{print, units};

/// `dory images`.
pub(crate) const LIST: Command = Command {
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    flags: &[&[
        switch("all", 'a', "Show intermediate images, too"),
        long_switch("digests", "Show digests"),
        list("filter", 'f', "Show only what fits (NAME=VALUE)"),
        long_value("format", "string", "table, json, or a Go template"),
        long_switch("no-trunc", "Do not shorten"),
        switch("quiet", 'q', "Show ids only"),
    ]],
    arity: Arity::AtMost(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(list_images(invocation)),
};

pub(in crate::commands) const TITLES: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];

const TABLE: &str = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const TABLE_WITH_DIGESTS: &str =
    "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

/// A row of `GET /images/json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::commands) struct ImageSummary {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
    created: i64,
    pub(in crate::commands) size: i64,
    #[serde(default)]
    pub(in crate::commands) containers: i64,
    #[serde(default)]
    pub(in crate::commands) shared_size: i64,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

async fn list_images(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let mut filters = Filters::read(arguments)?;
    arguments.positional().iter().for_each(|name| filters.add("reference", name));
    let path = Path::new(&["images", "json"])
        .flag("all", arguments.on("all"))
        .optional("filters", &filters.to_parameter());
    let images: Vec<ImageSummary> = invocation.client.get(path.as_str()).await?;
    let format = arguments.text("format");
    let digests = arguments.on("digests") || format.contains(".Digest");
    let full = arguments.on("no-trunc");
    let rows: Vec<_> = images.iter().flat_map(|image| image.rows(digests, full)).collect();
    let table = if arguments.on("digests") { TABLE_WITH_DIGESTS } else { TABLE };
    print(&Listing { table, titles: TITLES, quiet: "{{.ID}}" }.render(
        format,
        arguments.on("quiet"),
        &rows,
    )?)
}

impl ImageSummary {
    /// One row per name; an image without any has one, too.
    pub(in crate::commands) fn rows(&self, with_digests: bool, full: bool) -> Vec<Row> {
        let none = "<none>".to_owned();
        let mut names: Vec<(String, String, String)> = Vec::new();
        let tags: Vec<_> = self.repo_tags.iter().flatten().filter(|tag| *tag != "<none>:<none>").collect();
        let digests: Vec<_> = self
            .repo_digests
            .iter()
            .flatten()
            .filter(|digest| *digest != "<none>@<none>")
            .map(|d| split_reference(d))
            .collect();
        for tag in &tags {
            let (repository, tag) = split_reference(tag);
            let digest = digests.iter().find(|(name, _)| *name == repository).filter(|_| with_digests);
            let digest = digest.map_or(none.clone(), |(_, digest)| (*digest).to_owned());
            names.push((repository.to_owned(), tag.to_owned(), digest));
        }
        for (repository, digest) in &digests {
            if !names.iter().any(|(name, ..)| name == repository) {
                let digest = if with_digests { (*digest).to_owned() } else { none.clone() };
                names.push(((*repository).to_owned(), none.clone(), digest));
            }
        }
        if names.is_empty() {
            names.push((none.clone(), none.clone(), none));
        }
        names.into_iter().map(|name| self.row(name, full)).collect()
    }

    fn row(&self, (repository, tag, digest): (String, String, String), full: bool) -> Row {
        let known = |size: i64| if size < 0 { "N/A".to_owned() } else { units::size(size as f64) };
        let unique = if self.shared_size < 0 { -1 } else { self.size - self.shared_size };
        Row::new(vec![
            ("Repository", repository),
            ("Tag", tag),
            ("Digest", digest),
            ("ID", if full { self.id.clone() } else { short_id(&self.id) }),
            ("CreatedSince", moment::ago(self.created)),
            ("CreatedAt", moment::date(self.created)),
            ("Size", units::short_size(self.size as f64)),
            ("VirtualSize", units::size(self.size as f64)),
            ("Containers", if self.containers < 0 { "N/A".to_owned() } else { self.containers.to_string() }),
            ("SharedSize", known(self.shared_size)),
            ("UniqueSize", known(unique)),
        ])
        .with_labels(self.labels.clone().unwrap_or_default())
    }
}

/// Twelve digits without the algorithm.
pub(super) fn short_id(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_per_name() {
        let image = |tags: &[&str], digests: &[&str]| ImageSummary {
            id: format!("sha256:{}", "a".repeat(64)),
            repo_tags: Some(tags.iter().map(|tag| (*tag).to_owned()).collect()),
            repo_digests: Some(digests.iter().map(|digest| (*digest).to_owned()).collect()),
            created: 0,
            size: 0,
            containers: -1,
            shared_size: -1,
            labels: None,
        };
        let names = |image: &ImageSummary, digests| {
            image
                .rows(digests, false)
                .iter()
                .map(|row| {
                    let field = |name| {
                        row.fields
                            .get(name)
                            .and_then(crate::data::Data::as_text)
                            .unwrap_or_default()
                            .to_owned()
                    };
                    [field("Repository"), field("Tag"), field("Digest"), field("ID")].join(" ")
                })
                .collect::<Vec<_>>()
        };
        let short = "a".repeat(12);
        assert_eq!(
            names(&image(&["h:5/a:1", "b:2"], &["b@sha256:x"]), true),
            [format!("h:5/a 1 <none> {short}"), format!("b 2 sha256:x {short}")]
        );
        assert_eq!(names(&image(&[], &["b@sha256:x"]), false), [format!("b <none> <none> {short}")]);
        assert_eq!(names(&image(&["<none>:<none>"], &[]), false), [format!("<none> <none> <none> {short}")]);
    }
}
