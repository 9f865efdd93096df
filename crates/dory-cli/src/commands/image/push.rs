//! `push`.

use anyhow::Result;

use super::super::registry::credentials;
use super::progress::{self, Progress};
use super::split_reference;
use crate::client::{Path, empty};
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, long_switch, switch};
use crate::print;

/// `dory push`.
pub(crate) const PUSH: Command = Command {
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Upload an image to a registry",
    flags: &[&[
        switch("all-tags", 'a', "Push all tags of an image to the repository"),
        long_switch("disable-content-trust", ""),
        switch("quiet", 'q', "Do not show progress"),
    ]],
    arity: Arity::Exactly(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let name = &arguments.positional()[0];
    let (repository, tag) = split_reference(name);
    let tag = match (arguments.on("all-tags"), tag) {
        (true, "") => "",
        (true, _) => anyhow::bail!("tag can't be used with --all-tags/-a"),
        (false, "") => {
            if !arguments.on("quiet") {
                print("Using default tag: latest\n")?;
            }
            "latest"
        }
        (false, tag) => tag,
    };
    let path = Path::new(&["images", repository, "push"]).optional("tag", tag);
    let header = credentials::header(&invocation.docker_config, repository)?;
    let response = invocation.client.post_with_auth(path.as_str(), empty(), &header).await?;
    let quiet = arguments.on("quiet");
    progress::show(response, if quiet { Progress::Quiet } else { Progress::Stdout }).await?;
    match quiet {
        true => print(&format!("{name}\n")),
        false => Ok(ExitStatus::Success),
    }
}
