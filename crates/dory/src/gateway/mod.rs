//! `dory gateway`: sockets with policies in front of an engine. `dory with` and `dory policy` are beside it.

mod listen;
mod policy;
mod with;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Parser;
use dory_gateway::{Audit, Session, SessionOptions, Upstream, listen as serve_listener};
use dory_policy::{BindRoot, Policy};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

pub use policy::main as policy_main;
pub use with::main as with_main;

/// Where Docker's clients look for an engine.
const DOCKER_SOCKET: &str = "unix:///var/run/docker.sock";

/// Put sockets with policies in front of an engine: whoever uses one sees and touches its own objects only.
#[derive(Debug, Parser)]
#[command(name = "dory gateway", version)]
struct Options {
    /// Where to listen: unix:///PATH or tcp://ADDRESS:PORT.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "config")]
    listen: Option<String>,
    /// A preset (read-only, build-only, ci, testcontainers, dev, unrestricted) or a file.
    #[arg(long, value_name = "POLICY", default_value = "ci")]
    policy: String,
    /// The engine behind it: unix:///PATH or tcp://HOST:PORT; DOCKER_HOST where absent.
    #[arg(long, value_name = "ADDRESS")]
    upstream: Option<String>,
    /// A directory that may be mounted, besides those of the policy; may come more than once.
    #[arg(long, value_name = "DIRECTORY")]
    bind: Vec<PathBuf>,
    /// Where decisions are written, one JSON line each; `-` is standard error.
    #[arg(long, value_name = "FILE", default_value = "-")]
    audit: String,
    /// Several listeners with policies of their own: a TOML file with `upstream`, `audit` and `[[listener]]` tables.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "bind"])]
    config: Option<PathBuf>,
    /// End when standard input does: for a program that wants to be outlived by nothing.
    #[arg(long)]
    until_stdin_ends: bool,
}

/// The file of `--config`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    upstream: Option<String>,
    audit: Option<String>,
    listener: Vec<Listener>,
}

/// One listener: whoever reaches it is one identity.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Listener {
    /// How audits call it; its address where absent.
    name: Option<String>,
    listen: String,
    policy: String,
    #[serde(default)]
    bind: Vec<PathBuf>,
}

/// Runs the gateway until it is told to end.
pub fn main(words: &[OsString]) -> ExitCode {
    match Options::try_parse_from(words).map(run) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
        Err(error) => error.exit(),
    }
}

fn run(options: Options) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if options.until_stdin_ends {
        // The terminal's signals are for whoever started us: we have to remove what it made.
        let _leader_already = rustix::process::setsid();
    }
    let until_stdin_ends = options.until_stdin_ends;
    let file = file(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(file, until_stdin_ends));
    runtime.shutdown_background();
    result
}

/// The flags as a file, or the file.
fn file(options: Options) -> Result<File> {
    let Some(path) = options.config else {
        let listen = options.listen.unwrap_or_default();
        let listener = Listener { name: None, listen, policy: options.policy, bind: options.bind };
        return Ok(File { upstream: options.upstream, audit: Some(options.audit), listener: vec![listener] });
    };
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut file: File = toml::from_str(&text).with_context(|| format!("cannot use `{}`", path.display()))?;
    file.upstream = options.upstream.or(file.upstream);
    Ok(file)
}

/// A preset, or a policy file.
///
/// # Errors
/// A file that cannot be read, or is no policy.
pub fn load_policy(name: &str) -> Result<Policy> {
    if dory_policy::PRESETS.contains(&name) {
        return Ok(Policy::preset(name)?);
    }
    let text = std::fs::read_to_string(name).with_context(|| {
        format!("`{name}` is neither a preset ({}) nor a file", dory_policy::PRESETS.join(", "))
    })?;
    let mut policy = Policy::parse(&text).with_context(|| format!("cannot use the policy `{name}`"))?;
    if policy.name.is_empty() {
        name.clone_into(&mut policy.name);
    }
    Ok(policy)
}

/// The engine that is meant.
fn upstream(named: Option<&str>) -> Result<Upstream> {
    let from_environment = || ["DORY_HOST", "DOCKER_HOST"].iter().find_map(|name| std::env::var(name).ok());
    let address =
        named.map(str::to_owned).or_else(from_environment).unwrap_or_else(|| DOCKER_SOCKET.to_owned());
    Ok(address.parse()?)
}

/// A place for decisions; `-` is standard error.
///
/// # Errors
/// A file that cannot be written.
pub fn audit(place: &str) -> Result<Arc<Audit>> {
    let sink: Box<dyn Write + Send> = match place {
        "-" => Box::new(std::io::stderr()),
        path => {
            let file = std::fs::File::options().append(true).create(true).open(path);
            Box::new(file.with_context(|| format!("cannot write to `{path}`"))?)
        }
    };
    Ok(Arc::new(Audit::new(sink)))
}

/// Directories as they are without symbolic links: what is below a link that moves is not what was allowed.
fn bind_roots(directories: &[PathBuf]) -> Result<Vec<BindRoot>> {
    let root = |directory: &PathBuf| {
        let real = std::fs::canonicalize(directory)
            .with_context(|| format!("cannot use `{}`", directory.display()))?;
        let source = real.into_os_string().into_string();
        let source = source.map_err(|path| anyhow::anyhow!("`{}` is not UTF-8", path.to_string_lossy()))?;
        Ok(BindRoot { source, read_only: false })
    };
    directories.iter().map(root).collect()
}

async fn serve(file: File, until_stdin_ends: bool) -> Result<()> {
    let upstream = upstream(file.upstream.as_deref())?;
    let audit = audit(file.audit.as_deref().unwrap_or("-"))?;
    if file.listener.is_empty() {
        bail!("there is no listener");
    }
    let mut sessions = Vec::new();
    let mut serving = tokio::task::JoinSet::new();
    let mut bound = Vec::new();
    for listener in file.listener {
        let (socket, listening) = listen::bind(&listener.listen)?;
        bound.extend(socket.clone());
        let policy = load_policy(&listener.policy)?;
        let ttl = policy.ttl;
        let session = Session::begin(SessionOptions {
            name: listener.name.unwrap_or(listener.listen),
            policy,
            upstream: upstream.clone(),
            socket,
            binds: bind_roots(&listener.bind)?,
            owner: None,
            caller: None,
            audit: Arc::clone(&audit),
        })
        .await
        .with_context(|| format!("cannot reach the engine at {upstream:?}"))?;
        sessions.push(Arc::clone(&session));
        serving.spawn(async move {
            let served = serve_listener(session, listening);
            match ttl.filter(|_| until_stdin_ends) {
                None => served.await,
                // Nobody is let in after its time; what it made goes with the process.
                Some(ttl) => tokio::time::timeout(ttl.0, served).await.unwrap_or(Ok(())),
            }
        });
    }
    println!("ready");
    std::io::stdout().flush().context("cannot say that the gateway is ready")?;
    tokio::select! {
        () = told_to_end(until_stdin_ends)? => {}
        Some(ended) = serving.join_next() => ended.context("a listener failed")?.context("cannot listen")?,
    }
    serving.shutdown().await;
    for path in &bound {
        // Its directory may be gone already, with whoever made it.
        let _ = std::fs::remove_file(path);
    }
    remove(&sessions).await
}

/// Removes what the sessions made whose policy says so.
async fn remove(sessions: &[Arc<Session>]) -> Result<()> {
    let mut failures = Vec::new();
    for session in sessions.iter().filter(|session| session.cleans_up()) {
        failures.extend(session.remove_everything().await.err().into_iter().flatten());
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

/// Completes on SIGTERM or SIGINT, or at the end of standard input.
fn told_to_end(until_stdin_ends: bool) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch signals")?;
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let held = if until_stdin_ends {
        std::thread::spawn(move || {
            let mut ignored = [0; 64];
            while std::io::stdin().read(&mut ignored).is_ok_and(|length| length > 0) {}
            drop(sender);
        });
        None
    } else {
        Some(sender)
    };
    Ok(async move {
        let _held = held;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = receiver => {}
        }
    })
}
