//! `dory kaniko`: builds and pushes with no engine, with the flags of Kaniko's executor, so that a pipeline needs another
//! image name and nothing else. The binary answers to the name `executor` too.
//!
//! Kaniko is archived; its flags are those of its last release, 1.24 (`README.md`, "Additional Flags"). What asks for
//! something that is done otherwise here anyway, such as how its snapshots are taken, is accepted and noted on standard error.
//! What would change the result and cannot be done is refused by name.

mod flags;
mod location;
mod plan;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use dory_build::context::{ArchiveContext, Context as BuildContext, DirectoryContext};
use dory_build::{DockerfileSource, Outcome, Output, Progress, Sink};
use dory_engine::Engine;

use crate::build;
use flags::Arguments;
use location::Location;
use plan::Plan;

/// Whether the program was called as Kaniko's.
pub fn is_executor(name: &OsStr) -> bool {
    Path::new(name).file_name().is_some_and(|name| name == "executor")
}

/// Builds and pushes; the exit code is 1 for whatever fails. The first word is the command's own.
pub fn main(words: &[OsString]) -> ExitCode {
    let arguments = match Arguments::parse(words) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut plan = Plan::read(arguments, |name| std::env::var(name).ok())?;
    for note in &plan.notes {
        eprintln!("note: {note}");
    }
    let adjust = |config: &mut dory_engine::EngineConfig| plan::configure(arguments, &mut config.registries);
    let data_root = arguments.value("kaniko-dir").map(Path::new);
    build::with_engine(data_root, adjust, |engine| {
        let outcome = solve(engine, &mut plan)?;
        write_digests(engine, &plan, &outcome)
    })
}

fn solve(engine: &Engine, plan: &mut Plan) -> Result<Outcome> {
    let mut request = std::mem::take(&mut plan.request);
    request.dockerfile = dockerfile(&plan.dockerfile)?;
    request.outputs = outputs(plan);
    request.context = Some(context(engine, plan)?);
    let progress: Arc<dyn Progress> = Arc::new(build::Plain::default());
    build::build(engine, request, &progress)
}

fn context(engine: &Engine, plan: &Plan) -> Result<Arc<dyn BuildContext>> {
    let store = || Arc::clone(engine.builder().store());
    Ok(match (&plan.context, &plan.sub_path) {
        (Location::Directory(path), None) => Arc::new(DirectoryContext::new(path)),
        (Location::Directory(path), Some(beneath)) => Arc::new(DirectoryContext::new(path.join(beneath))),
        (_, Some(_)) => bail!("--context-sub-path is supported for directories only"),
        (Location::Archive(path), None) => {
            let file =
                std::fs::File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
            Arc::new(ArchiveContext::new(store(), Box::new(file)))
        }
        (Location::StandardInput, None) => Arc::new(ArchiveContext::new(store(), Box::new(io::stdin()))),
        (Location::Git(address), None) => engine.builder().remote_context(address, None),
    })
}

/// As Kaniko looks for it: from here, then in the context.
fn dockerfile(path: &str) -> Result<DockerfileSource> {
    let here = Path::new(path);
    if !here.is_file() {
        return Ok(DockerfileSource::File { path: path.to_owned(), context: None });
    }
    let content = std::fs::read(here).with_context(|| format!("cannot read `{path}`"))?;
    let name = here.file_name().unwrap_or(here.as_os_str()).to_string_lossy().into_owned();
    Ok(DockerfileSource::Inline { name, content })
}

fn outputs(plan: &Plan) -> Vec<Output> {
    // What is not pushed is kept where its digest is asked for.
    let image = (plan.push || !plan.digest_files.is_empty()).then(|| Output::Image {
        names: plan.destinations.clone(),
        push: plan.push,
        // The registries of destinations are told to the engine.
        insecure: false,
    });
    let archive = plan.archive.as_ref().map(|path| Output::Archive {
        names: plan.destinations.clone(),
        sink: Arc::new(Archive(path.clone())),
    });
    image.into_iter().chain(archive).collect()
}

/// The file of `--tar-path`, made when everything is built.
#[derive(Debug)]
struct Archive(PathBuf);

impl Sink for Archive {
    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(Box::new(std::fs::File::create(&self.0)?))
    }
}

fn write_digests(engine: &Engine, plan: &Plan, outcome: &Outcome) -> Result<()> {
    if plan.digest_files.is_empty() {
        return Ok(());
    }
    let digest = match (&outcome.digest, outcome.results.last()) {
        (Some(digest), _) => *digest,
        (None, Some(result)) => engine.builder().store().manifest_digest(&result.id)?,
        (None, None) => bail!("the build has no result"),
    };
    for (file, path) in &plan.digest_files {
        std::fs::write(path, plan.digest_text(*file, &digest))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}
