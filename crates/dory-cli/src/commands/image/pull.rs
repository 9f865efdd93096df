//! `pull`.

use anyhow::Result;

use super::super::registry::credentials;
use super::progress::{self, Progress};
use super::{split_reference, with_tag};
use crate::client::{Path, empty};
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, long_switch, long_value, switch};
use crate::print;

/// `dory pull`.
pub(crate) const PULL: Command = Command {
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Download an image from a registry",
    flags: &[&[
        switch("all-tags", 'a', "Download all tagged images of the repository"),
        long_switch("disable-content-trust", ""),
        long_value("platform", "string", "Platform of the image"),
        switch("quiet", 'q', "Do not show progress"),
    ]],
    arity: Arity::Exactly(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let name = &arguments.positional()[0];
    let quiet = arguments.on("quiet");
    let name = if arguments.on("all-tags") { name.clone() } else { with_tag(name) };
    pull(invocation, &name, arguments.text("platform"), quiet, Progress::Stdout).await?;
    print(&format!("{name}\n"))
}

/// Has the engine download `reference`; every tag of it where it has none.
pub(in crate::commands) async fn pull(
    invocation: &Invocation<'_>,
    reference: &str,
    platform: &str,
    quiet: bool,
    progress: Progress,
) -> Result<()> {
    let (name, tag) = split_reference(reference);
    let path = Path::new(&["images", "create"])
        .query("fromImage", name)
        .query("tag", tag)
        .optional("platform", platform);
    let header = credentials::header(&invocation.docker_config, name)?;
    let response = invocation.client.post_with_auth(path.as_str(), empty(), &header).await?;
    progress::show(response, if quiet { Progress::Quiet } else { progress }).await
}
