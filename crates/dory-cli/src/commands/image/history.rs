//! `history`.

use anyhow::Result;
use serde::Deserialize;

use super::super::container::ellipsis;
use super::super::moment;
use super::list::short_id;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, long_switch, long_value, switch};
use crate::listing::{Listing, Row};
use crate::{print, units};

/// `dory history`.
pub(crate) const HISTORY: Command = Command {
    usage: "[OPTIONS] IMAGE",
    about: "Show the history of an image",
    flags: &[&[
        long_value("format", "string", "table, json, or a Go template"),
        switch("human", 'H', "Write sizes and dates for people (default true)"),
        long_switch("no-trunc", "Do not shorten"),
        long_value("platform", "string", "Platform of the image"),
        switch("quiet", 'q', "Show ids only"),
    ]],
    arity: Arity::Exactly(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(history(invocation)),
};

const TABLE: &str = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const EXACT_TABLE: &str = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

const LISTING: Listing = Listing {
    table: TABLE,
    titles: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    quiet: "{{.ID}}",
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Step {
    id: String,
    created: i64,
    #[serde(default)]
    created_by: String,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    comment: String,
}

async fn history(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let path = Path::new(&["images", &arguments.positional()[0], "history"])
        .optional("platform", arguments.text("platform"));
    let steps: Vec<Step> = invocation.client.get(path.as_str()).await?;
    let (full, human) = (arguments.on("no-trunc"), arguments.on_or("human", true));
    let rows: Vec<_> = steps.iter().map(|step| step.row(full, human)).collect();
    let listing = Listing { table: if human { TABLE } else { EXACT_TABLE }, ..LISTING };
    print(&listing.render(arguments.text("format"), arguments.on("quiet"), &rows)?)
}

impl Step {
    fn row(&self, full: bool, human: bool) -> Row {
        let command = self.created_by.replace('\t', " ");
        let exact = moment::date(self.created).replace(" +0000 UTC", "Z").replace(' ', "T");
        Row::new(vec![
            ("ID", if full { self.id.clone() } else { short_id(&self.id) }),
            ("CreatedSince", if human { moment::ago(self.created) } else { exact.clone() }),
            ("CreatedAt", exact),
            ("CreatedBy", if full { command } else { ellipsis(&command, 45) }),
            ("Size", if human { units::short_size(self.size as f64) } else { self.size.to_string() }),
            ("Comment", self.comment.clone()),
        ])
    }
}
