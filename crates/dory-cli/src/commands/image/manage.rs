//! `tag`, `rmi` and `image prune`.

use anyhow::Result;
use serde::Deserialize;

use super::super::each::finish;
use super::super::system::prune::{Kind, confirm, prune_kind};
use super::split_reference;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::{ApiError, ExitStatus};
use crate::flags::{FlagsEnd, long_list, long_switch, switch};
use crate::print;

/// `dory tag`.
pub(crate) const TAG: Command = Command {
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Give an image another name",
    flags: &[],
    arity: Arity::Exactly(2),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(tag(invocation)),
};

/// `dory rmi`.
pub(crate) const REMOVE: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove images",
    flags: &[&[
        switch("force", 'f', "Remove the image even if it is in use"),
        long_switch("no-prune", "Keep untagged parents"),
    ]],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(remove(invocation)),
};

/// `dory image prune`.
pub(crate) const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove unused images",
    flags: &[&[
        switch("all", 'a', "Remove all unused images, not just those without a name"),
        long_list("filter", "Remove only what fits (NAME=VALUE)"),
        switch("force", 'f', "Do not ask"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(prune(invocation)),
};

async fn tag(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let [source, target] = invocation.arguments.positional() else { unreachable!("exactly two arguments") };
    let (repository, tag) = split_reference(target);
    let path = Path::new(&["images", source, "tag"]).query("repo", repository).optional("tag", tag);
    invocation.client.post(path.as_str()).await?;
    Ok(ExitStatus::Success)
}

/// One line of the answer to a removal.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::commands) struct Removed {
    #[serde(default)]
    untagged: String,
    #[serde(default)]
    deleted: String,
}

impl Removed {
    /// The line for people.
    pub(in crate::commands) fn line(&self) -> String {
        match self {
            Self { deleted, .. } if !deleted.is_empty() => format!("Deleted: {deleted}\n"),
            Self { untagged, .. } => format!("Untagged: {untagged}\n"),
        }
    }
}

async fn remove(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let force = arguments.on("force");
    let mut failures = Vec::new();
    for name in arguments.positional() {
        let path =
            Path::new(&["images", name]).flag("force", force).flag("noprune", arguments.on("no-prune"));
        match invocation.client.delete(path.as_str()).await {
            Ok(answer) => {
                let removed: Vec<Removed> = serde_json::from_value(answer)?;
                print(&removed.iter().map(Removed::line).collect::<String>())?;
            }
            Err(error) => match error.downcast_ref::<ApiError>() {
                // Forced, an image that is gone is as good as removed, but worth a word.
                Some(failure) if force && failure.is_not_found() => eprintln!("{failure}"),
                Some(failure) => failures.push(failure.to_string()),
                None => return Err(error),
            },
        }
    }
    finish(&failures)
}

async fn prune(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let all = invocation.arguments.on("all");
    let warning = if all {
        "This will remove all images without at least one container associated to them."
    } else {
        "This will remove all dangling images."
    };
    if !invocation.arguments.on("force") && !confirm(warning)? {
        return Ok(ExitStatus::Success);
    }
    prune_kind(invocation, Kind::Images { all }).await
}
