//! `POST /containers/{id}/attach`.

use std::io;

use axum::extract::{Path, State};
use axum::response::Response;
use dory_engine::{AttachOptions, Attachment, Engine};
use http::HeaderMap;
use tokio::io::AsyncWriteExt;

use super::logs::next_piece;
use crate::ApiVersion;
use crate::detach::DetachKeys;
use crate::error::ApiError;
use crate::hijack::{Hijack, StreamKind, Tunnel, UpgradeForm};
use crate::query::Query;
use crate::tunnel::{self, ClientInput};

/// Hands the connection to the container's streams; it may not run yet.
pub(super) async fn attach(
    State(engine): State<Engine>,
    version: ApiVersion,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let keys = DetachKeys::parse(query.get("detachKeys").unwrap_or_default())?;
    let options = AttachOptions {
        logs: query.boolean("logs"),
        stream: query.boolean("stream"),
        stdin: query.boolean("stdin"),
        stdout: query.boolean("stdout"),
        stderr: query.boolean("stderr"),
    };
    let attachment = engine.attach_container(&id, options).await?;
    let input = ClientInput::new(attachment.stdin, attachment.tty, keys);
    let kind = match attachment.tty || version.before(42) {
        true => StreamKind::Raw,
        false => StreamKind::Multiplexed,
    };
    let form = UpgradeForm::of(&headers);
    Ok(Hijack::response(form, kind, move |tunnel| run(attachment, tunnel, input)))
}

/// Replays the log where asked for, then joins the live streams.
async fn run(attachment: Attachment, mut tunnel: Tunnel, input: ClientInput) -> io::Result<()> {
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
