//! `attach`, and what `run` and `start -a` share with it.

use std::future::Future;

use anyhow::{Result, bail};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use serde::Deserialize;

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
        // The condition is what it will be at its next end: it is running now.
        removed: false,
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
    /// The container is removed when it ends: wait for that, too.
    pub(super) removed: bool,
    /// Pass signals on.
    pub(super) signal_proxy: bool,
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
/// output and not the shortest life is missed.
pub(super) async fn start_attached(
    client: &Client<'_>,
    target: &Target<'_>,
    start: impl Future<Output = Result<()>>,
) -> Result<ExitStatus> {
    let signals = target.signal_proxy.then(SignalProxy::new).transpose()?;
    let streams = &target.streams;
    let attached = streams.stdin || streams.stdout || streams.stderr;
    let connection =
        if attached { Some(client.hijack(attach_path(target).as_str(), None::<&()>).await?) } else { None };
    let condition = if target.removed { "removed" } else { "next-exit" };
    let path = Path::new(&["containers", target.id, "wait"]).query("condition", condition);
    let waiting = client.post_stream(path.as_str(), empty()).await?;
    start.await?;
    let session = async {
        match connection {
            Some(connection) => session::join(connection, streams).await,
            None => Ok(SessionEnd::Closed),
        }
    };
    let life = async {
        match session.await? {
            SessionEnd::Detached => Ok(ExitStatus::Success),
            SessionEnd::Closed => exit_status(waiting).await,
        }
    };
    accompany(client, target, signals, life).await
}

fn attach_path(target: &Target<'_>) -> Path {
    let streams = &target.streams;
    Path::new(&["containers", target.id, "attach"])
        .query("stream", 1)
        .flag("stdin", streams.stdin)
        .flag("stdout", streams.stdout)
        .flag("stderr", streams.stderr)
}

/// Runs `life` while signals and window sizes are passed on.
async fn accompany(
    client: &Client<'_>,
    target: &Target<'_>,
    mut signals: Option<SignalProxy>,
    life: impl Future<Output = Result<ExitStatus>>,
) -> Result<ExitStatus> {
    let resizer = Resizer::new(client, Path::new(&["containers", target.id, "resize"]));
    let proxy = async {
        match &mut signals {
            Some(signals) => signals.run(client, target.id).await,
            None => std::future::pending().await,
        }
    };
    let resize =
        async { if target.streams.tty { resizer.run().await } else { std::future::pending().await } };
    tokio::select! {
        status = life => status,
        never = proxy => match never? {},
        never = resize => match never? {},
    }
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
