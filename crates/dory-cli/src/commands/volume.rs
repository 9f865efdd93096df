//! The verbs of volumes.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::each::for_each;
use super::filters::Filters;
use super::system::prune::{Kind, confirm, prune_kind};
use crate::client::Path;
use crate::command::{Arity, Command, Entry, Invocation, entry};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, list, long_list, long_value, switch, value};
use crate::listing::{Listing, Row};
use crate::print;

/// `dory volume ...`.
pub(super) const COMMANDS: &[Entry] = &[
    entry(&["create"], &CREATE),
    entry(&["inspect"], &super::inspect::INSPECT_VOLUME),
    entry(&["ls", "list"], &LIST),
    entry(&["prune"], &PRUNE),
    entry(&["rm", "remove"], &REMOVE),
];

const CREATE: Command = Command {
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    flags: &[&[
        value("driver", 'd', "string", "Driver of the volume"),
        long_list("label", "Set a label (KEY=VALUE)"),
        long_value("name", "string", ""),
        list("opt", 'o', "Option of the driver (KEY=VALUE)"),
    ]],
    arity: Arity::AtMost(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(create(invocation)),
};

const LIST: Command = Command {
    usage: "[OPTIONS]",
    about: "List volumes",
    flags: &[&[
        list("filter", 'f', "Show only what fits (NAME=VALUE)"),
        long_value("format", "string", "table, json, or a Go template"),
        switch("quiet", 'q', "Show names only"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(list_volumes(invocation)),
};

const REMOVE: Command = Command {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove volumes that no container uses",
    flags: &[&[switch("force", 'f', "Do not fail for volumes that do not exist")]],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(remove(invocation)),
};

const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove unused volumes",
    flags: &[&[
        switch("all", 'a', "Remove named volumes, too"),
        long_list("filter", "Remove only what fits (NAME=VALUE)"),
        switch("force", 'f', "Do not ask"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(prune(invocation)),
};

const LISTING: Listing = Listing {
    table: "table {{.Driver}}\t{{.Name}}",
    titles: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Scope", "SCOPE"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
    ],
    quiet: "{{.Name}}",
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    name: String,
    #[serde(default)]
    driver: String,
    #[serde(default)]
    mountpoint: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// `KEY=VALUE` texts as an object.
pub(super) fn pairs(texts: &[String]) -> Map<String, Value> {
    texts
        .iter()
        .map(|text| text.split_once('=').unwrap_or((text, "")))
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect()
}

async fn create(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let name = match (arguments.positional().first(), arguments.value("name")) {
        (Some(_), Some(_)) => {
            bail!("conflicting options: either specify --name or provide positional arg, not both")
        }
        (Some(name), None) => name.as_str(),
        (None, name) => name.unwrap_or_default(),
    };
    let body = json!({
        "Name": name,
        "Driver": arguments.value("driver").unwrap_or("local"),
        "DriverOpts": pairs(arguments.list("opt")),
        "Labels": pairs(arguments.list("label")),
    });
    let volume: Volume =
        invocation.client.post_json(Path::new(&["volumes", "create"]).as_str(), &body).await?;
    print(&format!("{}\n", volume.name))
}

async fn list_volumes(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        volumes: Option<Vec<Volume>>,
    }
    let arguments = &invocation.arguments;
    let path = Path::new(&["volumes"]).optional("filters", &Filters::read(arguments)?.to_parameter());
    let answer: Answer = invocation.client.get(path.as_str()).await?;
    let mut volumes = answer.volumes.unwrap_or_default();
    volumes.sort_by(|left, right| left.name.cmp(&right.name));
    let rows: Vec<_> = volumes.into_iter().map(Volume::into_row).collect();
    print(&LISTING.render(arguments.text("format"), arguments.on("quiet"), &rows)?)
}

impl Volume {
    fn into_row(self) -> Row {
        let labels = self.labels.unwrap_or_default();
        let label_list: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Row::new(vec![
            ("Name", self.name),
            ("Driver", self.driver),
            ("Mountpoint", self.mountpoint),
            ("Scope", self.scope),
            ("Labels", label_list.join(",")),
            // Known to `system df` only.
            ("Links", "N/A".to_owned()),
            ("Size", "N/A".to_owned()),
        ])
        .with_labels(labels)
    }
}

async fn remove(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let force = invocation.arguments.on("force");
    for_each(invocation.arguments.positional(), async |name| {
        let path = Path::new(&["volumes", &name]).flag("force", force);
        invocation.client.delete(path.as_str()).await.map(|_| name)
    })
    .await
}

async fn prune(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let all = invocation.arguments.on("all");
    let warning = if all {
        "This will remove all volumes not used by at least one container."
    } else {
        "This will remove anonymous local volumes not used by at least one container."
    };
    if !invocation.arguments.on("force") && !confirm(warning)? {
        return Ok(ExitStatus::Success);
    }
    prune_kind(invocation, Kind::Volumes { all }).await
}
