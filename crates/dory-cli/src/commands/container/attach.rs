//! `attach`, and what `run` and `start -a` share with it.

use std::future::Future;

use anyhow::{Result, bail};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::sync::Notify;

use super::ContainerDetails;
use crate::client::{Client, ConnectionLost, Path, empty};
use crate::command::{Arity, Command, Invocation};
use crate::failure::{Exit, ExitStatus, code};
use crate::flags::{FlagsEnd, long_switch, long_value};
use crate::session::{self, Resizer, SessionEnd, SignalProxy, Streams};

/// `dory attach`.
pub(crate) const ATTACH: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Attach standard input, output and error to a running container",
    flags: &[&[
        long_value("detach-keys", "string", "Keys that leave the container running"),
        long_switch("no-stdin", "Do not attach standard input"),
        long_switch("sig-proxy", "Pass signals on to the container (default true)"),
    ]],
    arity: Arity::Exactly(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(attach(invocation)),
};

async fn attach(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let (arguments, client) = (&invocation.arguments, &invocation.client);
    let name = &arguments.positional()[0];
    let details: ContainerDetails = client.get(Path::new(&["containers", name, "json"]).as_str()).await?;
    check_attachable(&details)?;
    let stdin = details.config.open_stdin && !arguments.on("no-stdin");
    session::check_tty(stdin, details.config.tty)?;
    let target = Target {
        id: &details.id,
        streams: Streams {
            tty: details.config.tty,
            stdin,
            stdout: true,
            stderr: true,
            detach_keys: session::parse_detach_keys(arguments.text("detach-keys"))?,
        },
        // It may have ended since we looked: then its last exit is the one that was meant.
        wait: WaitCondition::NotRunning,
        signal_proxy: arguments.on_or("sig-proxy", true),
    };
    start_attached(client, &target, async { Ok(()) }).await
}

fn check_attachable(details: &ContainerDetails) -> Result<()> {
    let refuse =
        |why: &str| Err(Exit { text: format!("You cannot attach to a {why}"), code: code::FAILED }.into());
    let state = &details.state;
    if !state.running {
        return refuse("stopped container, start it first");
    }
    if state.paused {
        return refuse("paused container, unpause it first");
    }
    if state.restarting {
        return refuse("restarting container, wait until it is running");
    }
    Ok(())
}

/// A container to attach to.
pub(super) struct Target<'t> {
    /// Its id.
    pub(super) id: &'t str,
    /// The streams to join.
    pub(super) streams: Streams,
    /// What ends the wait for its exit.
    pub(super) wait: WaitCondition,
    /// Pass signals on.
    pub(super) signal_proxy: bool,
}

/// What ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitCondition {
    /// The container is not running, from now on or already.
    NotRunning,
    /// The container's next exit.
    NextExit,
    /// The container's next exit and removal.
    Removed,
}

impl WaitCondition {
    /// For a container that is about to be started.
    pub(super) fn before_start(auto_remove: bool) -> Self {
        if auto_remove { Self::Removed } else { Self::NextExit }
    }

    fn name(self) -> &'static str {
        match self {
            Self::NotRunning => "not-running",
            Self::NextExit => "next-exit",
            Self::Removed => "removed",
        }
    }
}

/// The engine's answer to a wait.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WaitAnswer {
    status_code: i64,
    #[serde(default)]
    error: Option<WaitError>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WaitError {
    #[serde(default)]
    message: String,
}

/// Attaches, starts, and stays until the container ends or the user detaches.
///
/// The order is a promise: the streams are joined and the exit is waited for *before* the start, so that not a byte of
/// output and not the shortest life is missed. Signals are passed on from the first moment, so that a start that hangs
/// can be given up.
pub(super) async fn start_attached(
    client: &Client<'_>,
    target: &Target<'_>,
    start: impl Future<Output = Result<()>>,
) -> Result<ExitStatus> {
    let mut signals = target.signal_proxy.then(SignalProxy::new).transpose()?;
    let started = Notify::new();
    let proxy = async {
        match &mut signals {
            Some(signals) => signals.run(client, target.id).await,
            None => std::future::pending().await,
        }
    };
    let resize = async {
        // Before the start there is no terminal whose size could be set.
        started.notified().await;
        if target.streams.tty {
            Resizer::new(client, resize_path(target)).run().await
        } else {
            std::future::pending().await
        }
    };
    tokio::select! {
        status = live(client, target, start, &started) => status,
        never = proxy => match never? {},
        never = resize => match never? {},
    }
}

/// The container's life as its starter sees it.
async fn live(
    client: &Client<'_>,
    target: &Target<'_>,
    start: impl Future<Output = Result<()>>,
    started: &Notify,
) -> Result<ExitStatus> {
    let streams = &target.streams;
    let attached = streams.stdin || streams.stdout || streams.stderr;
    let connection =
        if attached { Some(client.hijack(attach_path(target).as_str(), None::<&()>).await?) } else { None };
    let path = Path::new(&["containers", target.id, "wait"]).query("condition", target.wait.name());
    let waiting = client.post_stream(path.as_str(), empty()).await?;
    start.await?;
    started.notify_one();
    let end = match connection {
        Some(connection) => session::join(connection, streams).await?,
        None => SessionEnd::Closed,
    };
    match end {
        SessionEnd::Detached => Ok(ExitStatus::Success),
        SessionEnd::Closed => exit_status(waiting).await,
    }
}

fn resize_path(target: &Target<'_>) -> Path {
    Path::new(&["containers", target.id, "resize"])
}

fn attach_path(target: &Target<'_>) -> Path {
    let streams = &target.streams;
    Path::new(&["containers", target.id, "attach"])
        .query("stream", 1)
        .flag("stdin", streams.stdin)
        .flag("stdout", streams.stdout)
        .flag("stderr", streams.stderr)
}

async fn exit_status(waiting: Response<Incoming>) -> Result<ExitStatus> {
    let body = waiting
        .into_body()
        .collect()
        .await
        .map_err(|error| anyhow::Error::from(error).context(ConnectionLost))?;
    let answer: WaitAnswer = serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        // The engine went away while we waited: its answer ends in the middle.
        anyhow::Error::from(error).context(ConnectionLost)
    })?;
    if let Some(error) = answer.error.filter(|error| !error.message.is_empty()) {
        bail!("Error waiting for container: {}", error.message);
    }
    Ok(match u8::try_from(answer.status_code) {
        Ok(0) => ExitStatus::Success,
        Ok(code) => ExitStatus::Code(code),
        Err(_) => ExitStatus::Code(code::ENGINE),
    })
}
