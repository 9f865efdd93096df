//! `GET /containers/{id}/logs`.

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use dory_engine::{Engine, EngineError, LogOptions, LogStream};
use dory_log::Stream;

use crate::ApiVersion;
use crate::error::ApiError;
use crate::hijack::StreamKind;
use crate::query::Query;
use crate::routes::body::{StreamEnd, streamed};

/// Sends the log, and with `follow` what is added to it.
pub(super) async fn logs(
    State(engine): State<Engine>,
    version: ApiVersion,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let options = options(&query)?;
    let end = if options.follow { StreamEnd::Client } else { StreamEnd::Own };
    let logs = engine.container_logs(&id, options).await?;
    let kind = match logs.tty || version.before(42) {
        true => StreamKind::Raw,
        false => StreamKind::Multiplexed,
    };
    let pieces = futures_util::stream::unfold((logs.stream, logs.tty), async |(mut stream, tty)| {
        let piece = next_piece(&mut stream, tty).await?;
        Some((piece, (stream, tty)))
    });
    Ok(streamed(kind.content_type(), end, pieces))
}

/// The next bytes for the client; a log that cannot be read on says so in its own stream, the head being long gone.
pub(super) async fn next_piece(stream: &mut LogStream, tty: bool) -> Option<Bytes> {
    match stream.next().await? {
        Ok(piece) => Some(piece),
        Err(error) => {
            tracing::warn!(error = %error, "Cannot read a log");
            Some(error_piece(&error, tty))
        }
    }
}

fn error_piece(error: &EngineError, tty: bool) -> Bytes {
    let text = format!("Error grabbing logs: {error}\n");
    let mut piece = Vec::with_capacity(text.len() + dory_log::HEADER_LENGTH);
    if !tty {
        piece.extend_from_slice(&dory_log::header(Stream::Stderr, text.len() as u32));
    }
    piece.extend_from_slice(text.as_bytes());
    piece.into()
}

fn options(query: &Query) -> Result<LogOptions, ApiError> {
    let options = LogOptions {
        stdout: query.boolean("stdout"),
        stderr: query.boolean("stderr"),
        follow: query.boolean("follow"),
        since: query.time("since")?,
        until: query.time("until")?,
        timestamps: query.boolean("timestamps"),
        details: query.boolean("details"),
        // `all`, negative numbers and nonsense all mean everything, as with dockerd.
        tail: query.get("tail").and_then(|text| text.parse().ok()),
    };
    if !(options.stdout || options.stderr) {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LogOptions, ApiError> {
        options(&Query::parse(&format!("/x?{text}").parse().unwrap()))
    }

    #[test]
    fn reads_options() {
        let error = read("follow=1").unwrap_err();
        assert_eq!(error.message(), "Bad parameters: you must choose at least one stream");
        for (text, tail) in
            [("all", None), ("", None), ("-1", None), ("x", None), ("0", Some(0)), ("12", Some(12))]
        {
            assert_eq!(read(&format!("stdout=1&tail={text}")).unwrap().tail, tail, "{text}");
        }
        let options = read("stderr=True&follow=1&timestamps=0&since=5.25&until=0").unwrap();
        assert!(options.stderr && !options.stdout && options.follow && !options.timestamps);
        assert_eq!((options.since.unwrap().unix_seconds(), options.until), (5, None));
    }
}
