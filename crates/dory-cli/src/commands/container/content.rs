//! A container's files and settings: `diff`, `export`, `commit`, `update`.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::each::for_each;
use super::super::image::{split_reference, write_body};
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::create;
use crate::failure::ExitStatus;
use crate::flags::{Flag, FlagsEnd, list, long_value, switch, value};
use crate::{print, terminal};

/// `dory diff`.
pub(crate) const DIFF: Command = Command {
    usage: "CONTAINER",
    about: "Show which files a container has changed",
    flags: &[],
    arity: Arity::Exactly(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(diff(invocation)),
};

/// `dory export`.
pub(crate) const EXPORT: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Write a container's files to an archive or standard output",
    flags: &[&[value("output", 'o', "string", "Write to this file instead of standard output")]],
    arity: Arity::Exactly(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(export(invocation)),
};

/// `dory commit`.
pub(crate) const COMMIT: Command = Command {
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Make an image of a container's files",
    flags: &[&[
        value("author", 'a', "string", "Author of the image"),
        list("change", 'c', "Apply a Dockerfile instruction to the image"),
        value("message", 'm', "string", "Message of the image's history"),
        switch("pause", 'p', "Pause the container meanwhile (default true)"),
    ]],
    arity: Arity::Between(1, 2),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(commit(invocation)),
};

const UPDATE_FLAGS: &[Flag] = &[
    long_value("blkio-weight", "uint16", "Share of disk time, 10 to 1000, 0 for the default"),
    value("cpu-shares", 'c', "int", "Share of CPU time relative to other containers"),
    long_value("cpu-period", "int", "Period of the CPU limit in microseconds"),
    long_value("cpu-quota", "int", "CPU time per period in microseconds"),
    long_value("cpus", "decimal", "Number of CPUs"),
    long_value("cpuset-cpus", "string", "CPUs to run on (0-3, 0,1)"),
    long_value("cpuset-mems", "string", "Memory nodes to use (0-3, 0,1)"),
    value("memory", 'm', "bytes", "Limit of memory"),
    long_value("memory-reservation", "bytes", "Memory to keep available"),
    long_value("memory-swap", "bytes", "Limit of memory and swap together, -1 for none"),
    long_value("pids-limit", "int", "Limit of processes, -1 for none"),
    long_value("restart", "string", "When to restart: no, always, unless-stopped or on-failure[:COUNT]"),
];

/// `dory update`.
pub(crate) const UPDATE: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Change the limits of containers",
    flags: &[UPDATE_FLAGS],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(update(invocation)),
};

async fn diff(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Change {
        path: String,
        kind: u8,
    }
    let path = Path::new(&["containers", &invocation.arguments.positional()[0], "changes"]);
    let changes: Option<Vec<Change>> = invocation.client.get(path.as_str()).await?;
    let letter = |kind: u8| match kind {
        0 => 'C',
        1 => 'A',
        _ => 'D',
    };
    let lines = changes
        .unwrap_or_default()
        .into_iter()
        .map(|change| format!("{} {}\n", letter(change.kind), change.path));
    print(&lines.collect::<String>())
}

async fn export(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let output = arguments.value("output");
    if output.is_none() && terminal::stdout_is_terminal() {
        anyhow::bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    let path = Path::new(&["containers", &arguments.positional()[0], "export"]);
    let response = invocation.client.get_stream(path.as_str()).await?;
    write_body(response.into_body(), output).await?;
    Ok(ExitStatus::Success)
}

async fn commit(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Created {
        id: String,
    }
    let arguments = &invocation.arguments;
    let (repository, tag) = split_reference(arguments.positional().get(1).map_or("", String::as_str));
    let mut path = Path::new(&["commit"])
        .query("container", &arguments.positional()[0])
        .optional("repo", repository)
        .optional("tag", tag)
        .optional("author", arguments.text("author"))
        .optional("comment", arguments.text("message"))
        .query("pause", i32::from(arguments.on_or("pause", true)));
    for change in arguments.list("change") {
        path = path.query("changes", change);
    }
    let created: Created = invocation.client.post_json(path.as_str(), &json!({})).await?;
    print(&format!("{}\n", created.id))
}

async fn update(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let changes = create::update_request(&invocation.arguments)?;
    anyhow::ensure!(
        changes != Value::Object(Map::new()),
        "you must provide one or more flags when using this command"
    );
    for_each(invocation.arguments.positional(), async |name| {
        let path = Path::new(&["containers", &name, "update"]);
        invocation.client.post_body(path.as_str(), &changes).await.map(|()| name)
    })
    .await
}
