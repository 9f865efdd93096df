//! `dory build`: an image from a Dockerfile, with no engine anywhere.
//!
//! One process does everything: the solver, the commands of `RUN` (each below a shim that dies with this process), pulls and
//! pushes. What stays is the cache, in a data-root of its own; networks and control groups go at the end.

mod agents;
mod display;
mod options;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Parser;
use dory_build::context::{ArchiveContext, Context as BuildContext, DirectoryContext};
use dory_build::{
    BuildError, Cancel, DockerfileSource, Images, Outcome, Progress, RemoteContext, Request, Secrets,
    StepError,
};
use dory_engine::{CredentialSource, Credentials, Engine, EngineConfig};
use dory_registry::DockerConfig;
use tokio::signal::unix::{SignalKind, signal};

use agents::AgentPlaces;
pub use display::Plain;
use display::{Bars, RawJson};
use options::{Options, ProgressWord};

/// Threads for registries; builds have threads of their own.
const WORKERS: usize = 2;

/// Builds; the exit code is 1 for whatever fails.
pub fn main(words: &[OsString]) -> ExitCode {
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let built = with_engine(
        options.data_root.as_deref(),
        |_| Ok(()),
        |engine| {
            let request = request(engine, &options)?;
            let progress: Arc<dyn Progress> = match (options.quiet, options.progress) {
                (true, _) | (_, ProgressWord::Quiet) => Arc::new(dory_build::Quiet),
                (false, ProgressWord::Tty) => Arc::new(Bars::default()),
                (false, ProgressWord::Auto) if io::stderr().is_terminal() => Arc::new(Bars::default()),
                (false, ProgressWord::Auto | ProgressWord::Plain) => Arc::new(Plain::default()),
                (false, ProgressWord::Rawjson) => Arc::new(RawJson),
            };
            let built = solve(engine, request, &progress)?;
            // What is drawn is complete before anything else is written.
            drop(progress);
            built.map_err(|error| explain(&error))
        },
    );
    match built.and_then(|outcome| report(&options, &outcome)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Opens an engine for this process alone, and takes everything of it away again but what is in `data_root`.
///
/// The default is not the engine's own data-root: to open that would start containers there, and to leave it would remove
/// them.
///
/// # Errors
/// Another process has the data-root, or `work` failed.
pub fn with_engine<T>(
    data_root: Option<&Path>,
    adjust: impl FnOnce(&mut EngineConfig) -> Result<()>,
    work: impl FnOnce(&Engine) -> Result<T>,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let mut config = engine_config(data_root)?;
    adjust(&mut config)?;
    let runtime_directory = config.exec_root.clone();
    let engine = runtime.block_on(Engine::open(config)).context("cannot open the data-root of builds")?;
    let inside = runtime.enter();
    let result = work(&engine);
    drop(inside);
    runtime.block_on(engine.dismantle());
    drop(engine);
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    // What is left of it is empty.
    let _ = std::fs::remove_dir_all(runtime_directory);
    result
}

fn engine_config(data_root: Option<&Path>) -> Result<EngineConfig> {
    let mut config = crate::serve::engine_config()?;
    config.data_root = match data_root {
        Some(path) => std::path::absolute(path)?,
        None => {
            let mut path = config.data_root.into_os_string();
            path.push("-build");
            path.into()
        }
    };
    // Most builds need no bridge, and a late one would be left behind.
    config.warm_up = false;
    config.exec_root = config.exec_root.with_extension(format!("build-{}", std::process::id()));
    Ok(config)
}

/// Builds on threads of the builder's; a signal cancels.
///
/// # Errors
/// What failed, in the words for people; where it failed has been shown on standard error.
pub fn build(engine: &Engine, request: Request, progress: &Arc<dyn Progress>) -> Result<Outcome> {
    solve(engine, request, progress)?.map_err(|error| explain(&error))
}

/// Finds and pushes images with the credentials that `login` left.
///
/// # Errors
/// Docker's configuration cannot be read.
pub fn images(engine: &Engine) -> Result<Arc<dyn Images>> {
    let login = DockerConfig::load(&DockerConfig::default_path())?;
    Ok(engine.build_images(Arc::new(Login(login))))
}

/// As [`build`]; what the build itself failed with is for the caller to tell.
///
/// # Errors
/// What keeps the build from beginning.
pub fn solve(
    engine: &Engine,
    mut request: Request,
    progress: &Arc<dyn Progress>,
) -> Result<Result<Outcome, BuildError>> {
    if request.images.is_none() {
        request.images = Some(images(engine)?);
    }
    let cancel = Cancel::new();
    let interrupted = cancel.clone();
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot watch signals")?;
    let mut terminations = signal(SignalKind::terminate()).context("cannot watch signals")?;
    let watch = tokio::spawn(async move {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
        interrupted.cancel();
    });
    let built = engine.builder().build(&request, progress, &cancel);
    watch.abort();
    Ok(built)
}

/// Tells programs what was built.
fn report(options: &Options, outcome: &Outcome) -> Result<()> {
    let Some(result) = outcome.results.last() else { return Ok(()) };
    let id = format!("sha256:{}", result.id);
    let write = |path: &PathBuf, bytes: &[u8]| {
        std::fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
    };
    if let Some(path) = &options.iidfile {
        write(path, id.as_bytes())?;
    }
    if let Some(path) = &options.metadata_file {
        write(path, &serde_json::to_vec_pretty(&outcome.metadata)?)?;
    }
    if options.quiet {
        writeln!(io::stdout(), "{id}")?;
    }
    Ok(())
}

/// What the words ask for, with the context and the Dockerfile from wherever they say.
fn request(engine: &Engine, options: &Options) -> Result<Request> {
    let mut request = options.request()?;
    request.secrets = Some(Arc::new(options.secrets()?) as Arc<dyn Secrets>);
    request.agents = Some(Arc::new(AgentPlaces::read(&options.ssh)?));
    let file = options.file.as_deref();
    request.context = Some(match options.context.as_str() {
        "-" if file == Some("-") => {
            bail!("the context and the Dockerfile cannot both come from standard input")
        }
        "-" => Arc::new(ArchiveContext::new(Arc::clone(engine.builder().store()), Box::new(io::stdin()))),
        address if RemoteContext::is_address(address) => {
            engine.builder().remote_context(address, request.secrets.clone())
        }
        path if Path::new(path).is_dir() => Arc::new(DirectoryContext::new(path)),
        path => bail!("the context `{path}` is no directory"),
    });
    match file {
        None => {}
        Some("-") => {
            let mut content = Vec::new();
            io::Read::read_to_end(&mut io::stdin(), &mut content).context("cannot read the Dockerfile")?;
            request.dockerfile = DockerfileSource::Inline { name: "Dockerfile".to_owned(), content };
        }
        Some(path) if options.context == "-" || RemoteContext::is_address(&options.context) => {
            request.dockerfile = DockerfileSource::File { path: path.to_owned(), context: None };
        }
        Some(path) => {
            // As with docker, the path is the working directory's, wherever the context is.
            let path = std::path::absolute(path)?;
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                bail!("`{}` is no file", path.display())
            };
            let context: Arc<dyn BuildContext> = Arc::new(DirectoryContext::new(parent));
            let path = name.to_string_lossy().into_owned();
            request.dockerfile = DockerfileSource::File { path, context: Some(context) };
        }
    }
    Ok(request)
}

/// An error as people read it: the last lines of a command, where in the Dockerfile, and what went wrong.
fn explain(error: &BuildError) -> anyhow::Error {
    if let BuildError::Step { instruction, cause, .. } = error
        && let StepError::Exit { last_lines, .. } = &**cause
        && !last_lines.is_empty()
    {
        eprintln!("------\n > {instruction}:\n{}\n------", last_lines.join("\n"));
    }
    if let (Some(excerpt), Some((file, lines))) = (error.excerpt(), error.place()) {
        eprintln!("{file}:{}\n{excerpt}", lines.first);
    }
    anyhow::anyhow!("failed to solve: {error}")
}

/// What `login` left.
#[derive(Debug)]
struct Login(DockerConfig);

impl CredentialSource for Login {
    fn credentials(&self, domain: &str) -> Credentials {
        self.0.credentials(domain).unwrap_or_else(|error| {
            tracing::warn!(registry = domain, %error, "No credentials for a registry");
            Credentials::default()
        })
    }
}
