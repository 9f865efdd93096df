//! `/exec` and `/containers/{id}/exec`.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dory_engine::config::{ExecConfig, ExecStartConfig};
use dory_engine::{ClientStdin, Engine, ExecDetails};
use dory_log::Stream;
use dory_types::ExecId;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use crate::ApiVersion;
use crate::detach::DetachKeys;
use crate::error::ApiError;
use crate::framed::Framed;
use crate::hijack::{Hijack, StreamKind, Tunnel, UpgradeForm};
use crate::json::{Json, OptionalJson};
use crate::query::Query;
use crate::tunnel::{self, ClientInput};

/// API 1.51, `IDResponse`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IdResponse {
    id: ExecId,
}

/// The routes.
pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    State(engine): State<Engine>,
    version: ApiVersion,
    Path(id): Path<String>,
    Json(mut config): Json<ExecConfig>,
) -> Result<(StatusCode, Json<IdResponse>), ApiError> {
    if config.cmd.is_empty() {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    if version.before(42) {
        config.console_size = None;
    }
    let id = engine.create_exec(&id, config).await?;
    Ok((StatusCode::CREATED, Json(IdResponse { id })))
}

async fn inspect(
    State(engine): State<Engine>,
    Path(id): Path<String>,
) -> Result<Json<ExecDetails>, ApiError> {
    Ok(Json(engine.inspect_exec(&id).await?))
}

async fn resize(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Result<(), ApiError> {
    let (height, width) = query.console_size()?;
    Ok(engine.resize_exec(&id, height, width).await?)
}

async fn start(
    State(engine): State<Engine>,
    version: ApiVersion,
    Path(id): Path<String>,
    headers: HeaderMap,
    OptionalJson(start): OptionalJson<ExecStartConfig>,
) -> Result<Response, ApiError> {
    let mut start = start.unwrap_or_default();
    if version.before(42) {
        start.console_size = None;
    }
    // Unknown and running ones are refused before the connection stops being HTTP.
    let details = engine.inspect_exec(&id).await?;
    if details.running {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!("Error: Exec command {} is already running", details.id),
        ));
    }
    if start.detach {
        engine.start_exec(&id, start).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let input = client_input(&details)?;
    // What the start says decides, as with dockerd: docker-py reads frames from a terminal that it did not name here.
    let kind = match start.tty || version.before(42) {
        true => StreamKind::Raw,
        false => StreamKind::Multiplexed,
    };
    let form = UpgradeForm::of(&headers);
    Ok(Hijack::response(form, kind, move |tunnel| run(engine, details, start, tunnel, input)))
}

/// An exec's input has one client, whose end it ends with.
fn client_input(details: &ExecDetails) -> Result<ClientInput, ApiError> {
    let stdin = if details.open_stdin { ClientStdin::Once } else { ClientStdin::Ignored };
    let keys = DetachKeys::parse(&details.detach_keys)?;
    Ok(ClientInput::new(stdin, details.process_config.tty, keys))
}

/// Starts the process and joins it with the client, who has the head of the answer already: a start that fails is told
/// on the stream, and by the exec's exit code.
async fn run(
    engine: Engine,
    details: ExecDetails,
    start: ExecStartConfig,
    mut tunnel: Tunnel,
    input: ClientInput,
) -> std::io::Result<()> {
    let tty = start.tty;
    match engine.start_exec(details.id.as_str(), start).await {
        Ok(Some(stream)) => {
            // The client asks for the exit code as soon as it sees the end.
            let ended = async {
                if let Err(error) = engine.wait_exec(details.id.as_str()).await {
                    tracing::debug!(exec.id = %details.id, error = %error, "Exec vanished");
                }
            };
            match details.process_config.tty && !tty {
                true => tunnel::join(tunnel, Framed::new(stream.stream), input, ended).await,
                false => tunnel::join(tunnel, stream.stream, input, ended).await,
            }
        }
        Ok(None) => tunnel.shutdown().await,
        Err(error) => {
            tracing::debug!(exec.id = %details.id, error = %error, "Exec did not start");
            let text = format!("{error}\r\n");
            if !tty {
                tunnel.write_all(&dory_log::header(Stream::Stdout, text.len() as u32)).await?;
            }
            tunnel.write_all(text.as_bytes()).await?;
            tunnel.shutdown().await
        }
    }
}
