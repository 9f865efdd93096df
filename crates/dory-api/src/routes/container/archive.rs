//! `/containers/{id}/archive`, `/export` and `/changes`: a container's files.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dory_engine::{ArchiveStream, ChangeKind, Engine, PathStat, WriteArchiveOptions};
use dory_types::Timestamp;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::error::ApiError;
use crate::json::Json;
use crate::query::Query;
use crate::routes::body::upload;

/// The header that says what is at a path.
const STAT_HEADER: &str = "x-docker-container-path-stat";
const TAR: &str = "application/x-tar";

/// `HEAD`: what is at a path.
pub(super) async fn stat(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let stat = engine.stat_container_path(&id, path(&query)?).await?;
    with_stat(StatusCode::OK.into_response(), &stat)
}

/// `GET`: an archive of what is at a path.
pub(super) async fn read(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let (stat, archive) = engine.read_container_archive(&id, path(&query)?).await?;
    with_stat(send(archive, TAR), &stat)
}

/// `PUT`: unpacks an archive in a directory.
pub(super) async fn write(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let path = path(&query)?;
    let options = WriteArchiveOptions {
        no_overwrite_dir_non_dir: query.boolean("noOverwriteDirNonDir"),
        copy_uid_gid: query.boolean("copyUIDGID"),
    };
    upload(body, |archive| engine.write_container_archive(&id, path, archive, options)).await?;
    Ok(StatusCode::OK)
}

/// The whole of a container's own files.
pub(super) async fn export(
    State(engine): State<Engine>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    Ok(send(engine.export_container(&id).await?, "application/octet-stream"))
}

/// API 1.51, `FilesystemChange`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FilesystemChange {
    path: String,
    kind: u8,
}

/// What a container changed; `null` where nothing.
pub(super) async fn changes(
    State(engine): State<Engine>,
    Path(id): Path<String>,
) -> Result<Json<Option<Vec<FilesystemChange>>>, ApiError> {
    let changes = engine.container_changes(&id).await?.into_iter().map(|change| {
        let kind = match change.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        FilesystemChange { path: change.path, kind }
    });
    Ok(Json(Some(changes.collect()).filter(|changes: &Vec<_>| !changes.is_empty())))
}

fn path(query: &Query) -> Result<&str, ApiError> {
    query.text("path").ok_or_else(|| ApiError::bad_request("bad parameter: 'path' cannot be empty"))
}

/// An answer that breaks off, visibly for the client, where the archive does.
fn send(archive: ArchiveStream, content_type: &'static str) -> Response {
    let pieces = futures_util::stream::unfold(archive, async |mut archive| {
        let piece = archive.next().await?;
        Some((piece, archive))
    });
    ([(CONTENT_TYPE, content_type)], Body::from_stream(pieces)).into_response()
}

/// The header's content (API 1.51, `ContainerArchiveInfo`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatHeader<'a> {
    name: &'a str,
    size: i64,
    mode: u32,
    mtime: String,
    link_target: &'a str,
}

fn with_stat(mut response: Response, stat: &PathStat) -> Result<Response, ApiError> {
    let (seconds, nanoseconds) = stat.modified;
    let header = StatHeader {
        name: &stat.name,
        size: stat.size,
        mode: go_mode(stat.mode),
        mtime: Timestamp::from_unix(seconds, nanoseconds.into()).unwrap_or(Timestamp::ZERO).to_string(),
        link_target: &stat.link_target,
    };
    let failed = |error: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    let json = serde_json::to_vec(&header).map_err(|error| failed(error.to_string()))?;
    let value = HeaderValue::from_str(&STANDARD.encode(&json)).map_err(|error| failed(error.to_string()))?;
    response.headers_mut().insert(STAT_HEADER, value);
    if !response.headers().contains_key(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(response)
}

/// `st_mode` in the bits of Go's `os.FileMode`.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => (1 << 26) | (1 << 21),
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).fold(0, |bits, (_, go)| bits | go);
    kind | special | (mode & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        for (mode, go) in [
            (0o100_644, 420),
            (0o040_755, 2_147_484_141),
            (0o120_777, 134_218_239),
            (0o104_755, (1 << 23) | 0o755),
            (0o041_777, (1 << 31) | (1 << 20) | 0o777),
            (0o020_666, (1 << 26) | (1 << 21) | 0o666),
        ] {
            assert_eq!(go_mode(mode), go, "{mode:o}");
        }
    }
}
