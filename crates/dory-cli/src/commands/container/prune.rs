//! `container prune`.

use anyhow::Result;

use super::super::system::prune::{Kind, confirm, prune_kind};
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, long_list, switch};

/// `dory container prune`.
pub(crate) const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    flags: &[&[
        long_list("filter", "Remove only what fits (NAME=VALUE)"),
        switch("force", 'f', "Do not ask"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(prune(invocation)),
};

async fn prune(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    if !invocation.arguments.on("force") && !confirm("This will remove all stopped containers.")? {
        return Ok(ExitStatus::Success);
    }
    prune_kind(invocation, Kind::Containers).await
}
