//! `top`.

use anyhow::Result;
use serde::Deserialize;

use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::FlagsEnd;
use crate::print;

/// `dory top`.
pub(crate) const TOP: Command = Command {
    usage: "CONTAINER [ps OPTIONS]",
    about: "Show the processes of a container",
    flags: &[],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::FirstArgument,
    run: |invocation| Box::pin(top(invocation)),
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Processes {
    titles: Vec<String>,
    #[serde(default)]
    processes: Option<Vec<Vec<String>>>,
}

async fn top(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let (name, options) = invocation
        .arguments
        .positional()
        .split_first()
        .map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
    let path = Path::new(&["containers", name, "top"]).optional("ps_args", &options.join(" "));
    let answer: Processes = invocation.client.get(path.as_str()).await?;
    let rows = answer.processes.unwrap_or_default();
    let mut text = String::new();
    for row in std::iter::once(&answer.titles).chain(&rows) {
        text.push_str(&line(row));
    }
    print(&text)
}

/// Docker's `top` alone has columns of twenty characters.
fn line(cells: &[String]) -> String {
    let Some((last, cells)) = cells.split_last() else { return "\n".to_owned() };
    let mut line: String = cells.iter().map(|cell| format!("{cell:<20}")).collect();
    line.push_str(last);
    line.push('\n');
    line
}
