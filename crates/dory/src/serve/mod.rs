//! `dory serve`: the engine's process.

mod descriptors;
mod guard;
mod listen;
mod notify;
mod options;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use dory_api::Server;
use dory_engine::Engine;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use options::Options;
pub use options::is_root;

/// Most of an engine's time is spent waiting; more threads would only cost memory.
const WORKER_LIMIT: usize = 4;

/// Runs an engine until it is told to end.
pub fn main(words: &[OsString]) -> ExitCode {
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    if rustix::process::getpid().is_init() {
        return run_below_reaper(words);
    }
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As pid 1 of a container the engine would have to collect every orphan of every container beside its own children. A
/// small reaper does that better, and forwards the signals of the outer engine.
fn run_below_reaper(words: &[OsString]) -> ExitCode {
    let mut command = vec!["/proc/self/exe".to_owned()];
    command.extend(words.iter().map(|word| word.to_string_lossy().into_owned()));
    ExitCode::from(u8::try_from(dory_runtime::reaper::main(&command)).unwrap_or(u8::MAX))
}

fn run(options: Options) -> Result<()> {
    let options = options.with_file()?;
    if options.idle_exit.is_some() {
        // Started by a command line that ends soon: its terminal's signals are not meant for us.
        let _leader_already = rustix::process::setsid();
    }
    let filter = EnvFilter::try_new(options.log_filter()).context("invalid log level")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(WORKER_LIMIT));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(&options));
    // A thread that waits for a container must not hold up the end: the container lives on, the next engine waits.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(options: &Options) -> Result<()> {
    let mut config = options.engine()?;
    config.descriptor_limit = descriptors::raise_limit();
    let hosts = options.hosts();
    let tls = options.tls()?;
    let guards = guard::Options::new(options.socket_policy()?, options.socket_audit.as_deref())?;
    let passed = listen::passed(&hosts)?;
    config.sockets = listen::unix_paths(&hosts, &passed)?;
    // The probe tries things on it. Nobody else may look in: layers hold set-user-id programs (CVE-2021-41091).
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_root)
        .with_context(|| format!("cannot make the data-root `{}`", config.data_root.display()))?;
    // Side by side: trying takes some milliseconds, and so does opening.
    let probe = tokio::task::spawn_blocking({
        let data_root = config.data_root.clone();
        move || dory_probe::quick(&data_root)
    });
    let verdict =
        async { refuse_lesser_tiers(&probe.await?.context("cannot try what the surroundings allow")?) };
    let mut verdict = std::pin::pin!(verdict);
    let engine = match Engine::open(config).await {
        Ok(engine) => engine,
        // What the surroundings lack explains more than what failed for want of it.
        Err(error) => return verdict.await.and(Err(error.into())),
    };
    // Whoever was told that the engine is there relies on it; everybody else may ask before the probe has ended.
    let promised = options.idle_exit.is_some() || std::env::var_os("NOTIFY_SOCKET").is_some();
    if promised {
        verdict.as_mut().await?;
    }
    let bound = listen::bind_all(&hosts, passed, options.group.as_deref(), tls.as_ref())?;
    let paths: Vec<PathBuf> = bound.iter().filter_map(|bound| bound.path.clone()).collect();
    let listeners = bound.into_iter().map(|bound| bound.listener).collect();
    if let Some(path) = &options.pidfile {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    notify::ready();
    tracing::info!(?hosts, "Listening");
    let told = until_told_to_end(engine.clone(), options.idle_exit.map(Duration::from_secs))?;
    let mut refusal = Ok(());
    let ending = async {
        let refused = async {
            match verdict.await {
                Err(error) => error,
                Ok(()) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {}
            error = refused, if !promised => refusal = Err(error),
        }
    };
    let server = Server::new(engine.clone());
    let guards = tokio::spawn(guard::serve(engine.clone(), server.connector(), guards));
    let served = server.serve(listeners, ending).await.context("cannot serve");
    guards.abort();
    notify::stopping();
    remove_all(&paths);
    if let Some(path) = &options.pidfile {
        remove_all(std::slice::from_ref(path));
    }
    if options.ephemeral {
        engine.dismantle().await
    } else {
        engine.shutdown().await
    }
    refusal.and(served)
}

/// Only the kernel tier runs containers so far.
fn refuse_lesser_tiers(facilities: &dory_probe::Facilities) -> Result<()> {
    match facilities.missing() {
        None => Ok(()),
        Some(missing) => bail!("no container can be run here: {missing}"),
    }
}

/// Completes on SIGTERM or SIGINT, or when the engine has been idle for long enough.
fn until_told_to_end(engine: Engine, idle_exit: Option<Duration>) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch signals")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("Ending on SIGTERM; containers keep running"),
            _ = interrupt.recv() => tracing::info!("Ending on SIGINT; containers keep running"),
            () = idle(&engine, idle_exit) => tracing::info!("Ending: nothing runs and nobody asks"),
        }
    })
}

/// Completes when nothing has run for `limit`; never without one.
async fn idle(engine: &Engine, limit: Option<Duration>) {
    const STEP: Duration = Duration::from_millis(500);
    let Some(limit) = limit else { return std::future::pending().await };
    let mut idle_for = Duration::ZERO;
    while idle_for < limit {
        tokio::time::sleep(STEP).await;
        idle_for = if engine.is_idle() { idle_for + STEP } else { Duration::ZERO };
    }
}

fn remove_all(paths: &[PathBuf]) {
    for path in paths {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::debug!(path = %path.display(), %error, "Cannot remove");
        }
    }
}

/// How the configuration file says that registries are reached: for commands that use them without an engine.
///
/// # Errors
/// A file that is not understood.
pub fn registries() -> Result<dory_engine::RegistryConfig> {
    Ok(Options::default().with_file()?.registries)
}

/// An engine as the configuration file has it, for a process that serves nobody.
///
/// # Errors
/// A file that is not understood.
pub fn engine_config() -> Result<dory_engine::EngineConfig> {
    Options::default().with_file()?.engine()
}

/// The socket of an engine for which nobody said otherwise; the client looks there too.
pub fn default_socket() -> PathBuf {
    if is_root() { PathBuf::from("/run/dory/dory.sock") } else { runtime_directory().join("dory.sock") }
}

/// Where an ordinary user's sockets belong (XDG base directories).
pub fn runtime_directory() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR").map_or_else(
        || Path::new("/tmp").join(format!("dory-{}", rustix::process::geteuid().as_raw())),
        PathBuf::from,
    )
}
