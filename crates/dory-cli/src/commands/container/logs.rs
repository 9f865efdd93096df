//! `logs`.

use anyhow::{Context, Result};
use dory_log::Timestamp;
use http_body_util::BodyExt;

use super::super::moment::moment;
use super::ContainerDetails;
use crate::client::{ConnectionLost, Path};
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, long_switch, long_value, switch, value};
use crate::session::OutputPrinter;

/// `dory logs`.
pub(crate) const LOGS: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Show what a container has printed",
    flags: &[&[
        long_switch("details", "Show the attributes of the log options"),
        switch("follow", 'f', "Go on while the container prints"),
        long_value("since", "string", "Only after a time (2013-01-02T13:23:37Z) or a span before now (42m)"),
        value("tail", 'n', "string", "Only so many lines from the end"),
        switch("timestamps", 't', "Show times"),
        long_value("until", "string", "Only before a time (2013-01-02T13:23:37Z) or a span before now (42m)"),
    ]],
    arity: Arity::Exactly(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(logs(invocation)),
};

async fn logs(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let (arguments, client) = (&invocation.arguments, &invocation.client);
    let name = &arguments.positional()[0];
    let details: ContainerDetails = client.get(Path::new(&["containers", name, "json"]).as_str()).await?;
    let mut path = Path::new(&["containers", &details.id, "logs"]).query("stdout", 1).query("stderr", 1);
    for bound in ["since", "until"] {
        if let Some(text) = arguments.value(bound) {
            let time =
                moment(text, Timestamp::now()).with_context(|| format!("invalid value for \"{bound}\""))?;
            path = path.query(bound, time);
        }
    }
    path = path
        .flag("follow", arguments.on("follow"))
        .flag("timestamps", arguments.on("timestamps"))
        .flag("details", arguments.on("details"))
        .query("tail", arguments.value("tail").unwrap_or("all"));
    let mut body = client.get_stream(path.as_str()).await?.into_body();
    let mut printer = OutputPrinter::new(details.config.tty, true, true);
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame.context(ConnectionLost)?.into_data() {
            printer.print(&bytes).await?;
        }
    }
    Ok(ExitStatus::Success)
}
