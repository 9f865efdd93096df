//! `GET /containers/{id}/stats`.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use dory_engine::{ContainerStats, CpuStats, Engine};
use dory_types::Timestamp;
use serde::Serialize;

use crate::error::ApiError;
use crate::json::Json;
use crate::query::Query;
use crate::routes::body::{StreamEnd, json_line, streamed};

/// Time between two samples, dockerd's.
const INTERVAL: Duration = Duration::from_secs(1);

/// API 1.51, `ContainerStatsResponse`: a sample beside the one before, from which clients compute percentages.
#[derive(Debug, Serialize)]
struct StatsResponse {
    #[serde(flatten)]
    sample: ContainerStats,
    preread: Timestamp,
    precpu_stats: CpuStats,
}

impl StatsResponse {
    fn new(sample: ContainerStats, previous: Option<&ContainerStats>) -> Self {
        Self {
            sample,
            preread: previous.map_or(Timestamp::ZERO, |previous| previous.read),
            precpu_stats: previous.map_or_else(CpuStats::default, |previous| previous.cpu_stats.clone()),
        }
    }
}

/// One sample a second; with `stream=0` one, after a second's comparison, and with `one-shot=1` too at once.
pub(super) async fn stats(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let first = engine.container_stats(&id).await?;
    let stream = query.boolean_or("stream", true);
    if stream {
        if query.boolean("one-shot") {
            return Err(ApiError::bad_request("cannot have stream=true and one-shot=true"));
        }
        return Ok(streamed("application/json", StreamEnd::Client, samples(engine, id, first)));
    }
    // What does not run has nothing to compare.
    if query.boolean("one-shot") || first.read.is_zero() {
        return Ok(Json(StatsResponse::new(first, None)).into_response());
    }
    tokio::time::sleep(INTERVAL).await;
    let second = engine.container_stats(&id).await?;
    Ok(Json(StatsResponse::new(second, Some(&first))).into_response())
}

/// The samples, up to the container's removal.
fn samples(
    engine: Engine,
    id: String,
    first: ContainerStats,
) -> impl futures_util::Stream<Item = bytes::Bytes> + Send {
    let state = (engine, id, Some(first), None);
    futures_util::stream::unfold(state, async |(engine, id, mut ready, previous): Samples| {
        let sample = match ready.take() {
            Some(sample) => sample,
            None => {
                tokio::time::sleep(INTERVAL).await;
                engine.container_stats(&id).await.ok()?
            }
        };
        let line = json_line(&StatsResponse::new(sample.clone(), previous.as_ref()));
        Some((line, (engine, id, None, Some(sample))))
    })
}

/// Engine, container, a sample that is at hand, and the one before.
type Samples = (Engine, String, Option<ContainerStats>, Option<ContainerStats>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_sample_before() {
        let mut first = ContainerStats {
            read: Timestamp::from_unix(5, 0).unwrap_or(Timestamp::ZERO),
            ..Default::default()
        };
        first.cpu_stats.cpu_usage.total_usage = 7;
        let shown = serde_json::to_value(StatsResponse::new(first.clone(), None)).unwrap();
        assert_eq!(
            (&shown["preread"], &shown["precpu_stats"]["cpu_usage"]["total_usage"]),
            (&"0001-01-01T00:00:00Z".into(), &0.into())
        );
        let shown =
            serde_json::to_value(StatsResponse::new(ContainerStats::default(), Some(&first))).unwrap();
        assert_eq!(
            (&shown["preread"], &shown["precpu_stats"]["cpu_usage"]["total_usage"]),
            (&"1970-01-01T00:00:05Z".into(), &7.into())
        );
    }
}
