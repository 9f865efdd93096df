//! `dory with --policy ci -- COMMAND`: a session for one command.
//!
//! The session is served by a process of its own, which waits for the end of a pipe that only this process holds: whatever
//! ends this one, the pipe ends, and what the command made is removed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use clap::Parser;

/// Run a command with an engine's socket of its own, and remove everything that it made.
#[derive(Debug, Parser)]
#[command(name = "dory with", version)]
struct Options {
    /// A preset (read-only, build-only, ci, testcontainers, dev, unrestricted) or a file.
    #[arg(long, value_name = "POLICY", default_value = "ci")]
    policy: String,
    /// The engine behind it: unix:///PATH or tcp://HOST:PORT; DOCKER_HOST where absent.
    #[arg(long, value_name = "ADDRESS")]
    upstream: Option<String>,
    /// A directory that may be mounted besides those of the policy; may come more than once.
    #[arg(long, value_name = "DIRECTORY")]
    bind: Vec<PathBuf>,
    /// Where decisions are written, one JSON line each.
    #[arg(long, value_name = "FILE", default_value = "/dev/null")]
    audit: String,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Runs the command; its exit code, or 125 where it could not be run.
pub fn main(words: &[OsString]) -> ExitCode {
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    let place = Place::new()?;
    let socket = format!("unix://{}", place.0.join("docker.sock").display());
    let mut gateway = spawn_gateway(options, &socket)?;
    // The terminal's Ctrl-C is for the command; we end after it.
    let status = run_command(options, &socket);
    drop(gateway.stdin.take());
    let cleaned = gateway.wait().context("cannot wait for the gateway")?;
    if !cleaned.success() {
        eprintln!("warning: not everything that the command made could be removed");
    }
    Ok(code(status?))
}

/// A directory of this session alone.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let parent = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        for attempt in 0..100 {
            let path = parent.join(format!("dory-with-{}-{attempt}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("cannot make `{}`", path.display())),
            }
        }
        bail!("cannot make a directory below `{}`", parent.display())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn spawn_gateway(options: &Options, socket: &str) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["gateway", "--until-stdin-ends", "--listen", socket, "--policy", &options.policy]);
    command.args(["--audit", &options.audit]);
    if let Some(upstream) = &options.upstream {
        command.args(["--upstream", upstream]);
    }
    for directory in &options.bind {
        command.arg("--bind").arg(directory);
    }
    let mut gateway = command
        .arg0("dory")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the gateway")?;
    let mut line = String::new();
    if let Some(output) = gateway.stdout.take() {
        BufReader::new(output).read_line(&mut line).context("cannot read from the gateway")?;
    }
    if line.trim() == "ready" {
        return Ok(gateway);
    }
    gateway.wait().context("cannot wait for the gateway")?;
    bail!("the session could not be opened")
}

fn run_command(options: &Options, socket: &str) -> Result<ExitStatus> {
    let (program, arguments) = options.command.split_first().context("no command is given")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .env("DOCKER_HOST", socket)
            .env("DORY_HOST", socket)
            // A context or certificates of the caller's would lead elsewhere.
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_TLS_VERIFY")
            .env_remove("DOCKER_CERT_PATH")
            .spawn()
            .with_context(|| format!("cannot run `{}`", Path::new(program).display()))?;
        loop {
            tokio::select! {
                status = child.wait() => return status.context("cannot wait for the command"),
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {
                    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
                    if let Some(pid) = pid {
                        // It may have ended by itself in this moment.
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                    }
                }
            }
        }
    })
}

/// A shell's convention for signals.
fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
