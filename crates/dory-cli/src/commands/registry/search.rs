//! `search`.

use anyhow::Result;
use serde::Deserialize;

use super::credentials;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, long_list, long_switch, long_value};
use crate::listing::{Listing, Row};
use crate::print;

/// `dory search`.
pub(crate) const SEARCH: Command = Command {
    usage: "[OPTIONS] REGISTRY/TERM",
    about: "Search a registry for images",
    flags: &[&[
        long_list("filter", ""),
        long_value("format", "string", "table, json, or a Go template"),
        long_value("limit", "int", "Most number of results (default 25)"),
        long_switch("no-trunc", ""),
    ]],
    arity: Arity::Exactly(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(run(invocation)),
};

const LISTING: Listing = Listing {
    table: "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    titles: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
    ],
    quiet: "{{.Name}}",
};

#[derive(Debug, Deserialize)]
struct Found {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    star_count: u64,
    #[serde(default)]
    is_official: bool,
}

async fn run(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let term = &arguments.positional()[0];
    let domain = term.split_once('/').map_or("docker.io", |(domain, _)| domain);
    let header = credentials::header_for(&invocation.docker_config, domain)?;
    let path =
        Path::new(&["images", "search"]).query("term", term).optional("limit", arguments.text("limit"));
    let found: Vec<Found> = invocation.client.get_with_auth(path.as_str(), &header).await?;
    let rows: Vec<_> = found
        .into_iter()
        .map(|found| {
            Row::new(vec![
                ("Name", found.name),
                ("Description", found.description),
                ("StarCount", found.star_count.to_string()),
                ("IsOfficial", if found.is_official { "[OK]" } else { "" }.to_owned()),
            ])
        })
        .collect();
    print(&LISTING.render(arguments.text("format"), false, &rows)?)
}
