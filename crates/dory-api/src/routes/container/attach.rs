//! `POST /containers/{id}/attach` and `GET /containers/{id}/attach/ws`.

use std::io;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use dory_engine::{AttachOptions, Attachment, Engine};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::logs::next_piece;
use crate::ApiVersion;
use crate::detach::DetachKeys;
use crate::error::ApiError;
use crate::hijack::{Hijack, StreamKind, Tunnel, UpgradeForm};
use crate::query::Query;
use crate::tunnel::{self, ClientInput};
use crate::websocket;

/// Bytes between a WebSocket and its streams, each way.
const WEBSOCKET_BUFFER: usize = 64 << 10;
/// How long the last input of a WebSocket may take to reach its process.
const LAST_INPUT_TIME: Duration = Duration::from_secs(1);

/// Hands the connection to the container's streams; it may not run yet.
pub(super) async fn attach(
    State(engine): State<Engine>,
    version: ApiVersion,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (attachment, input) = begin(&engine, &id, &query).await?;
    let kind = match attachment.tty || version.before(42) {
        true => StreamKind::Raw,
        false => StreamKind::Multiplexed,
    };
    let form = UpgradeForm::of(&headers);
    Ok(Hijack::response(form, kind, move |tunnel| run(attachment, tunnel, input)))
}

/// The same by WebSocket: output without headers, as dockerd sends it.
pub(super) async fn attach_by_websocket(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let accept = websocket::accept(&headers)?;
    let (attachment, input) = begin(&engine, &id, &query).await?;
    let form = UpgradeForm::WebSocket(accept);
    Ok(Hijack::response(form, StreamKind::Raw, move |tunnel| run_by_websocket(attachment, tunnel, input)))
}

async fn begin(engine: &Engine, id: &str, query: &Query) -> Result<(Attachment, ClientInput), ApiError> {
    let keys = DetachKeys::parse(query.get("detachKeys").unwrap_or_default())?;
    let options = AttachOptions {
        logs: query.boolean("logs"),
        stream: query.boolean("stream"),
        stdin: query.boolean("stdin"),
        stdout: query.boolean("stdout"),
        stderr: query.boolean("stderr"),
    };
    let attachment = engine.attach_container(id, options).await?;
    let input = ClientInput::new(attachment.stdin, attachment.tty, keys);
    Ok((attachment, input))
}

async fn run_by_websocket(attachment: Attachment, tunnel: Tunnel, input: ClientInput) -> io::Result<()> {
    let framed = !attachment.tty;
    let (client, inner) = tokio::io::duplex(WEBSOCKET_BUFFER);
    let carried = websocket::carry(tunnel, inner, framed);
    let attached = run(attachment, client, input);
    tokio::pin!(carried, attached);
    tokio::select! {
        carried = &mut carried => {
            // The client has closed: what it typed last may still be on its way.
            let _ = tokio::time::timeout(LAST_INPUT_TIME, attached).await;
            carried
        }
        // A write to a client that has gone fails here, and the socket says the same.
        _ = &mut attached => carried.await,
    }
}

/// Replays the log where asked for, then joins the live streams.
async fn run<C>(attachment: Attachment, mut tunnel: C, input: ClientInput) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(mut logs) = attachment.logs {
        while let Some(piece) = next_piece(&mut logs, attachment.tty).await {
            tunnel.write_all(&piece).await?;
        }
    }
    let stream = match attachment.stream {
        Some(pending) => pending.connect().await,
        None => None,
    };
    match stream {
        Some(stream) => tunnel::join(tunnel, stream, input, std::future::ready(())).await,
        None => tunnel.shutdown().await,
    }
}
