//! `dory buildah`: images made step by step by a script, with Buildah's verbs and no engine.
//!
//! A working container is an image without a name that changes with each step: `run`, `copy` and `add` are lines of a Dockerfile upon
//! it, so commands are as confined as in `dory build`, and `commit` gives it a name. What asks for something that there is none of here
//! is refused by name. Buildah's manual pages (buildah.io) are the source of verbs and flags.

mod config;
mod files;
mod mounted;
mod run;
mod shelf;
mod working;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use dory_engine::Engine;

use crate::build;
use config::ConfigFlags;
use working::Shelf;

/// Make images step by step, with Buildah's verbs and no engine.
#[derive(Debug, Parser)]
#[command(name = "dory buildah", version)]
struct Line {
    /// Where images, layers and working containers are kept [default: those of `dory build`].
    #[arg(long, visible_alias = "data-root", value_name = "DIR", global = true)]
    root: Option<std::path::PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a working container upon an image, and print its name.
    From(shelf::FromFlags),
    /// Run a command in a working container; what it writes is the container's.
    Run(run::RunFlags),
    /// Copy files of this machine, an image or a working container.
    Copy(files::CopyFlags),
    /// As `copy`; archives are unpacked, and addresses fetched.
    Add(files::CopyFlags),
    /// Change what the image says about itself.
    Config(Box<ConfigFlags>),
    /// Mount a working container's files, and print where; without a name, list what is mounted.
    Mount { containers: Vec<String> },
    /// Take a mount away; what was changed there is the container's.
    #[command(visible_alias = "unmount")]
    Umount {
        /// All of them.
        #[arg(short, long)]
        all: bool,
        containers: Vec<String>,
    },
    /// Make an image of a working container.
    Commit(shelf::CommitFlags),
    /// Remove working containers.
    #[command(visible_alias = "delete")]
    Rm {
        /// All of them.
        #[arg(short, long)]
        all: bool,
        containers: Vec<String>,
    },
    /// List working containers.
    #[command(visible_alias = "ls")]
    Containers(ListFlags),
    /// List images.
    Images(ListFlags),
    /// Remove images.
    Rmi {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Give an image more names.
    Tag {
        image: String,
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Bring an image to the registry of its name, or to a place: `docker://NAME`, `oci-archive:FILE`, `docker-archive:FILE`.
    Push(shelf::PushFlags),
    /// Pull an image.
    Pull {
        /// Print nothing but the image's id.
        #[arg(short, long)]
        quiet: bool,
        image: String,
    },
    /// Tell what is known of a working container or an image, in JSON.
    Inspect {
        /// What the name means: `container` or `image`.
        #[arg(short = 't', long = "type", default_value = "container")]
        kind: String,
        name: String,
    },
}

/// How lists are printed.
#[derive(Debug, Args)]
struct ListFlags {
    /// In JSON.
    #[arg(long)]
    json: bool,
    /// Without a heading.
    #[arg(short, long)]
    noheading: bool,
    /// The ids alone.
    #[arg(short, long)]
    quiet: bool,
}

/// Does what the words say. The exit code of `run` is the command's, 1 for whatever else fails.
pub fn main(words: &[OsString]) -> ExitCode {
    let line = match Line::try_parse_from(words) {
        Ok(line) => line,
        Err(error) => error.exit(),
    };
    match build::with_engine(line.root.as_deref(), |_| Ok(()), |engine| carry_out(engine, line.verb)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(engine: &Engine, verb: Verb) -> Result<u8> {
    let shelf = Shelf::open(engine.builder().store().clone())?;
    match verb {
        Verb::From(flags) => shelf::from(engine, &shelf, &flags)?,
        Verb::Run(flags) => return run::run(engine, &shelf, &flags),
        Verb::Copy(flags) => files::copy(engine, &shelf, &flags, "COPY")?,
        Verb::Add(flags) => files::copy(engine, &shelf, &flags, "ADD")?,
        Verb::Config(flags) => shelf::config(&shelf, &flags)?,
        Verb::Mount { containers } => mounted::mount(&shelf, &containers)?,
        Verb::Umount { all, containers } => mounted::umount(&shelf, all, &containers)?,
        Verb::Commit(flags) => shelf::commit(engine, &shelf, &flags)?,
        Verb::Rm { all, containers } => shelf::rm(&shelf, all, &containers)?,
        Verb::Containers(flags) => shelf::containers(&shelf, &flags)?,
        Verb::Images(flags) => shelf::images(&shelf, &flags)?,
        Verb::Rmi { images } => shelf::rmi(&shelf, &images)?,
        Verb::Tag { image, names } => shelf::tag(&shelf, &image, &names)?,
        Verb::Push(flags) => shelf::push(engine, &shelf, &flags)?,
        Verb::Pull { quiet, image } => shelf::pull(engine, quiet, &image)?,
        Verb::Inspect { kind, name } => shelf::inspect(&shelf, &kind, &name)?,
    }
    Ok(0)
}
