//! The history of builds: those that run and the last ones that are over, for as long as the engine runs.

use std::borrow::Cow;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest,
    UpdateBuildHistoryRequest, UpdateBuildHistoryResponse,
};
use tokio::sync::broadcast::error::RecvError;

use crate::filter::Filters;
use crate::grpc::{Code, Reply, Sender, Status};
use crate::jobs::{Change, Job, Jobs};

/// What filters may ask about a build.
const FIELDS: [&str; 2] = ["ref", "status"];

/// Tells what is known, and what changes until the client has enough.
pub(super) fn listen(jobs: &Jobs, request: BuildHistoryRequest) -> Result<Reply, Status> {
    let filters =
        Filters::parse(&request.filter, &FIELDS).map_err(|error| Status::invalid(error.to_string()))?;
    let (known, mut changes) = jobs.history();
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    Ok(Reply::stream(move |sender| async move {
        let wanted = known.iter().map(event).filter(|event| is_wanted(event, &request, &filters));
        for event in wanted.take(limit) {
            sender.send(&event).await?;
        }
        if request.early_exit {
            return Ok(());
        }
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(change) => tell(&sender, change, &request, &filters).await?,
                    // What was missed is in the history for whoever asks again.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(()),
                },
                () = sender.closed() => return Ok(()),
            }
        }
    }))
}

async fn tell(
    sender: &Sender,
    change: Change,
    request: &BuildHistoryRequest,
    filters: &Filters,
) -> Result<(), Status> {
    let event = match change {
        Change::Is(job) => event(&job),
        Change::Gone(reference) => BuildHistoryEvent {
            r#type: BuildHistoryEventType::Deleted as i32,
            record: Some(BuildHistoryRecord { r#ref: reference, ..BuildHistoryRecord::default() }),
        },
    };
    match is_wanted(&event, request, filters) {
        true => sender.send(&event).await,
        false => Ok(()),
    }
}

fn event(job: &Arc<Job>) -> BuildHistoryEvent {
    let record = job.record();
    let kind = match record.completed_at {
        None => BuildHistoryEventType::Started,
        Some(_) => BuildHistoryEventType::Complete,
    };
    BuildHistoryEvent { r#type: kind as i32, record: Some(record) }
}

/// The state of a build, in the words of filters.
fn state(record: &BuildHistoryRecord) -> &'static str {
    match (&record.completed_at, &record.error) {
        (None, _) => "running",
        (Some(_), None) => "completed",
        (Some(_), Some(error)) if error.code == Code::Canceled as i32 => "canceled",
        (Some(_), Some(_)) => "error",
    }
}

fn is_wanted(event: &BuildHistoryEvent, request: &BuildHistoryRequest, filters: &Filters) -> bool {
    let passes = |record: &BuildHistoryRecord| {
        filters.matches(|name| match name {
            "ref" => Some(Cow::Owned(record.r#ref.clone())),
            "status" => Some(Cow::Borrowed(state(record))),
            _ => None,
        })
    };
    // What is gone has nothing that a filter could ask about.
    let is_gone = event.r#type == BuildHistoryEventType::Deleted as i32;
    if !is_gone && !event.record.as_ref().is_some_and(passes) {
        return false;
    }
    let reference = event.record.as_ref().map(|record| record.r#ref.as_str()).unwrap_or_default();
    (request.r#ref.is_empty() || reference == request.r#ref)
        && (!request.active_only || event.r#type == BuildHistoryEventType::Started as i32)
}

/// Pins or forgets a build.
pub(super) fn update(jobs: &Jobs, request: &UpdateBuildHistoryRequest) -> Result<Reply, Status> {
    // There is no trace to be made final.
    if request.delete {
        jobs.forget(&request.r#ref)?;
    } else if !request.finalize {
        jobs.pin(&request.r#ref, request.pinned)?;
    }
    Ok(Reply::of(&UpdateBuildHistoryResponse {}))
}
