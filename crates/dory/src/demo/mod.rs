//! `dory demo`: engines inside containers inside engines, with no image, no registry and no network.
//!
//! Every level is the same program doing what people type: it starts an engine, imports an image made of its own static
//! binary, and runs a container from it with `--privileged`, which is confined; inside, the next level does the same. The
//! innermost only says where it is. Reports travel outwards as lines of JSON on standard output.

mod image;
mod level;
mod report;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use level::Level;
use report::{Report, Tree};

/// Where the innermost level's work ends: the kernel nests at most 32 user and pid namespaces.
const DEPTH_LIMIT: u32 = 32;

/// Show Docker inside containers: nested engines, each confined, with the host not handed over.
#[derive(Debug, Parser)]
#[command(name = "dory demo", version)]
struct Options {
    /// How many levels: the engine on this machine is the first, the last is a container that runs no engine.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=64))]
    depth: u32,
    /// Print the reports as lines of JSON instead of a tree.
    #[arg(long)]
    json: bool,
    /// The level that this process is on, set by the level outside.
    #[arg(long, hide = true, default_value_t = 1)]
    level: u32,
}

/// Runs the demo, or one inner level of it.
pub fn main(words: &[OsString]) -> ExitCode {
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let result = if options.level == 1 { outermost(&options) } else { inner(&options) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn outermost(options: &Options) -> Result<()> {
    if options.depth > DEPTH_LIMIT {
        bail!(
            "the kernel nests at most {DEPTH_LIMIT} pid namespaces (pid_namespaces(7)): --depth {} is beyond it",
            options.depth
        );
    }
    let mut tree = Tree::new(options.json);
    let mut level = Level::start(1)?;
    tree.show(level.report());
    let outcome = level.nest(options.depth, |report| tree.show(report));
    let cleaned = level.end();
    outcome?;
    cleaned?;
    tree.close(options.depth)
}

fn inner(options: &Options) -> Result<()> {
    if options.level == options.depth {
        Report::innermost(options.level)?.print();
        // Stay to be seen until the outermost level has looked.
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        return Ok(());
    }
    let mut level = Level::start(options.level)?;
    level.report().print();
    let outcome = level.nest(options.depth, |report| report.print());
    level.end()?;
    outcome
}
