//! `system prune`, and what the other prunes share with it.

use std::io::{self, BufRead};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::super::filters::Filters;
use super::super::image::Removed;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, long_list, long_switch, switch};
use crate::{print, units};

/// `dory system prune`.
pub(super) const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove unused data",
    flags: &[&[
        switch("all", 'a', "Remove all unused images, not just those without a name"),
        long_list("filter", "Remove only what fits (NAME=VALUE)"),
        switch("force", 'f', "Do not ask"),
        long_switch("volumes", "Remove anonymous volumes, too"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(prune(invocation)),
};

/// What a prune removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum Kind {
    /// Stopped containers.
    Containers,
    /// Networks that nothing is connected to.
    Networks,
    /// Volumes that no container uses; named ones only with `all`.
    Volumes {
        /// Named ones, too.
        all: bool,
    },
    /// Images that no container uses; named ones only with `all`.
    Images {
        /// Named ones, too.
        all: bool,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Answer {
    containers_deleted: Option<Vec<String>>,
    networks_deleted: Option<Vec<String>>,
    volumes_deleted: Option<Vec<String>>,
    images_deleted: Option<Vec<Removed>>,
    space_reclaimed: i64,
}

/// Asks whether to go on; only `y` means yes.
pub(in crate::commands) fn confirm(warning: &str) -> Result<bool> {
    print(&format!("WARNING! {warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// Removes one kind of thing and tells what is gone and how much it freed.
pub(in crate::commands) async fn prune_kind(invocation: &Invocation<'_>, kind: Kind) -> Result<ExitStatus> {
    let (text, freed) = remove(invocation, kind).await?;
    let total = if kind == Kind::Networks {
        String::new()
    } else {
        format!("Total reclaimed space: {}\n", units::size(freed as f64))
    };
    print(&format!("{text}{total}"))
}

async fn remove(invocation: &Invocation<'_>, kind: Kind) -> Result<(String, i64)> {
    let mut filters = Filters::read(&invocation.arguments)?;
    let segment = match kind {
        Kind::Containers => "containers",
        Kind::Networks => "networks",
        Kind::Volumes { all } => {
            if all {
                filters.add("all", "true");
            }
            "volumes"
        }
        Kind::Images { all } => {
            filters.add("dangling", if all { "false" } else { "true" });
            "images"
        }
    };
    let path = Path::new(&[segment, "prune"]).optional("filters", &filters.to_parameter());
    let answer: Answer = invocation.client.post_for(path.as_str()).await?;
    let mut text = String::new();
    for (title, names) in [
        ("Deleted Containers", answer.containers_deleted),
        ("Deleted Networks", answer.networks_deleted),
        ("Deleted Volumes", answer.volumes_deleted),
    ] {
        let names = names.unwrap_or_default();
        if !names.is_empty() {
            text.push_str(&format!("{title}:\n{}\n\n", names.join("\n")));
        }
    }
    let images = answer.images_deleted.unwrap_or_default();
    if !images.is_empty() {
        text.push_str(&format!(
            "Deleted Images:\n{}\n",
            images.iter().map(Removed::line).collect::<String>()
        ));
    }
    Ok((text, answer.space_reclaimed))
}

async fn prune(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let (all, volumes) = (arguments.on("all"), arguments.on("volumes"));
    // Said before anything is gone.
    if volumes && arguments.list("filter").iter().any(|filter| filter.starts_with("until=")) {
        bail!("the \"until\" filter is not supported with \"--volumes\"");
    }
    if !arguments.on("force") {
        let mut warning = "This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n".to_owned();
        if volumes {
            warning.push_str("  - all anonymous volumes not used by at least one container\n");
        }
        warning.push_str(if all {
            "  - all images without at least one container associated to them\n"
        } else {
            "  - all dangling images\n"
        });
        if !confirm(&warning)? {
            return Ok(ExitStatus::Success);
        }
    }
    let mut kinds = vec![Kind::Containers, Kind::Networks];
    kinds.extend(volumes.then_some(Kind::Volumes { all: false }));
    kinds.push(Kind::Images { all });
    let mut freed = 0;
    let mut text = String::new();
    for kind in kinds {
        let (removed, bytes) = remove(invocation, kind).await?;
        text.push_str(&removed);
        freed += bytes;
    }
    print(&format!("{text}Total reclaimed space: {}\n", units::size(freed as f64)))
}
