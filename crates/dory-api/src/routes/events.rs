//! `/events`.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use dory_engine::{Engine, EventOptions};

use super::body::{StreamEnd, json_line, streamed};
use crate::error::ApiError;
use crate::query::Query;

/// The routes.
pub(super) fn routes() -> Router<Engine> {
    Router::new().route("/events", get(events))
}

/// One JSON object per line, each sent as it happens.
async fn events(State(engine): State<Engine>, query: Query) -> Result<Response, ApiError> {
    let (since, until) = (query.time("since")?, query.time("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(ApiError::bad_request(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            since.unix_seconds(),
            until.unix_seconds()
        )));
    }
    let events = engine.subscribe_events(EventOptions { since, until, filters: query.filters()? })?;
    let lines = futures_util::stream::unfold(events, async |mut events| {
        let event = events.next().await?;
        Some((json_line(&*event), events))
    });
    Ok(streamed("application/json", StreamEnd::Client, lines))
}
