//! `docker buildx du` and `docker buildx prune`.

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{
    DiskUsageRequest, DiskUsageResponse, PruneRequest, UsageRecord,
};

use crate::filter::Filters;
use crate::grpc::{Code, Reply, Status};
use crate::host::{CACHE_FIELDS, CacheRecord, Host, PruneOptions};
use crate::solve::Workshop;
use crate::status::to_timestamp;

/// What is in the cache.
pub(super) async fn disk_usage(host: &Arc<dyn Host>, request: DiskUsageRequest) -> Result<Reply, Status> {
    let host = host.clone();
    let filters = filters(&request.filter)?;
    let records = blocking(move || host.cache()).await?;
    let record = records.into_iter().filter(|record| record.is_wanted(&filters)).map(usage).collect();
    Ok(Reply::of(&DiskUsageResponse { record }))
}

fn filters(texts: &[String]) -> Result<Filters, Status> {
    Filters::parse(texts, &CACHE_FIELDS).map_err(|error| Status::invalid(error.to_string()))
}

/// Removes from the cache, and tells what.
pub(super) async fn prune(workshop: &Workshop, request: PruneRequest) -> Result<Reply, Status> {
    let Workshop { host, directories, .. } = workshop.clone();
    let options = PruneOptions {
        all: request.all,
        unused_for: Duration::from_nanos(u64::try_from(request.keep_duration).unwrap_or_default()),
        keep_bytes: u64::try_from(request.reserved_space.max(request.max_used_space)).unwrap_or_default(),
        filters: filters(&request.filter)?,
    };
    let removed = blocking(move || {
        if options.filters.is_empty() {
            directories.forget(options.unused_for);
        }
        host.prune(&options)
    });
    let removed = removed.await?;
    Ok(Reply::stream(|sender| async move {
        for record in removed {
            sender.send(&usage(record)).await?;
        }
        Ok(())
    }))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Status::unknown),
        Err(error) => Err(Status::new(Code::Internal, error.to_string())),
    }
}

fn usage(record: CacheRecord) -> UsageRecord {
    UsageRecord {
        id: record.id,
        mutable: false,
        in_use: record.in_use,
        size: i64::try_from(record.size).unwrap_or(i64::MAX),
        created_at: Some(to_timestamp(record.created)),
        last_used_at: record.used.map(to_timestamp),
        usage_count: i64::try_from(record.uses).unwrap_or(i64::MAX),
        description: record.description,
        record_type: record.kind,
        shared: record.shared,
        parents: record.parents,
        ..UsageRecord::default()
    }
}
