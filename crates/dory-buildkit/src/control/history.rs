//! The history of builds: those that run and the last ones that are over, for as long as the engine runs.

use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest,
    UpdateBuildHistoryRequest, UpdateBuildHistoryResponse,
};
use tokio::sync::broadcast::error::RecvError;

use crate::grpc::{Reply, Sender, Status};
use crate::jobs::{Change, Job, Jobs};

/// Tells what is known, and what changes until the client has enough.
pub(super) fn listen(jobs: &Jobs, request: BuildHistoryRequest) -> Result<Reply, Status> {
    if !request.filter.is_empty() {
        return Err(Status::not_supported("a filter of the build history"));
    }
    let (known, mut changes) = jobs.history();
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    Ok(Reply::stream(move |sender| async move {
        let wanted = known.iter().map(event).filter(|event| is_wanted(event, &request));
        for event in wanted.take(limit) {
            sender.send(&event).await?;
        }
        if request.early_exit {
            return Ok(());
        }
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(change) => tell(&sender, change, &request).await?,
                    // What was missed is in the history for whoever asks again.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(()),
                },
                () = sender.closed() => return Ok(()),
            }
        }
    }))
}

async fn tell(sender: &Sender, change: Change, request: &BuildHistoryRequest) -> Result<(), Status> {
    let event = match change {
        Change::Is(job) => event(&job),
        Change::Gone(reference) => BuildHistoryEvent {
            r#type: BuildHistoryEventType::Deleted as i32,
            record: Some(BuildHistoryRecord { r#ref: reference, ..BuildHistoryRecord::default() }),
        },
    };
    match is_wanted(&event, request) {
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

fn is_wanted(event: &BuildHistoryEvent, request: &BuildHistoryRequest) -> bool {
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
