//! A command beside an engine of its own: foreign test suites, and trying things by hand.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::Signal;

use crate::engine::{self, Engine};
use crate::runner::{Surroundings, environment};
use crate::transcript::{Cli, EngineKind};

/// Which engine, and what runs beside it.
#[derive(Debug, Args)]
pub struct WithArguments {
    /// `dory` or `dockerd`.
    #[arg(long, value_parser = ["dory", "dockerd"])]
    engine: String,
    /// Its binary.
    #[arg(long)]
    binary: PathBuf,
    /// Folder with the docker commands, see docs/testing.md.
    #[arg(long)]
    tools: PathBuf,
    /// Folder with the image archives.
    #[arg(long)]
    images: PathBuf,
    /// One more name for the image `busybox`; may be repeated.
    #[arg(long)]
    tag: Vec<String>,
    /// Scratch space; removed at the end.
    #[arg(long, default_value = "/var/tmp/dory-with")]
    work: PathBuf,
    /// The command; it runs in the network of the engine, and finds it in DOCKER_HOST.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Starts the engine, runs the command, and puts everything away; true where the command succeeded.
///
/// # Errors
/// The engine or the command cannot start.
pub fn run(arguments: &WithArguments) -> Result<bool> {
    let kind = if arguments.engine == "dory" { EngineKind::Dory } else { EngineKind::Dockerd };
    let work = crate::scratch(&arguments.work)?;
    let mut engine = Engine::prepare(kind, &arguments.binary, &work.join(kind.name()))?;
    engine.start()?;
    engine.load_images(&arguments.tools, &engine::archives(&arguments.images)?)?;
    for name in &arguments.tag {
        tag(&engine, &arguments.tools, name)?;
    }
    let around = Surroundings {
        tools: std::path::absolute(&arguments.tools)?,
        images: std::path::absolute(&arguments.images)?,
        cases: PathBuf::new(),
        dory: std::path::absolute(&arguments.binary)?,
        work: work.clone(),
        slow: 1,
        jobs: 1,
    };
    let (program, words) = arguments.command.split_first().context("no command")?;
    let status = engine
        .host
        .command(program)
        .args(words)
        .envs(environment(&engine, Cli::New, &around, "with"))
        .status()
        .with_context(|| format!("cannot start `{program}`"))?;
    if !status.success() && kind == EngineKind::Dory {
        println!("the log of dory ends:\n{}", engine.log_tail());
    }
    engine::remove_containers(&engine, &arguments.tools);
    engine.stop(Signal::TERM)?;
    let _ = std::fs::remove_dir_all(&work);
    Ok(status.success())
}

fn tag(engine: &Engine, tools: &Path, name: &str) -> Result<()> {
    let status = Command::new(tools.join("new/docker"))
        .env("DOCKER_HOST", format!("unix://{}", engine.socket.display()))
        .args(["tag", "busybox", name])
        .status()?;
    ensure!(status.success(), "`docker tag busybox {name}` fails");
    Ok(())
}
