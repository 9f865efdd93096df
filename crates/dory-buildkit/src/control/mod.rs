//! The Control service: builds, their status and history, the machine and its cache.
//!
//! Source: BuildKit's api/services/control/control.proto.

mod cache;
mod history;

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use bollard_buildkit_proto::moby::buildkit::v1::{
    BytesMessage, CacheOptions, Exporter, InfoResponse, ListWorkersResponse, SolveRequest, SolveResponse,
    StatusRequest,
};
use bollard_buildkit_proto::pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::exporter::cache_locations;
use crate::gateway::{self, check_frontend_name};
use crate::grpc::{Call, Reply, Status};
use crate::host::Worker;
use crate::jobs::{Jobs, record};
use crate::solve::{Wishes, Workshop};

/// The version whose protocol is spoken: clients choose by it what they ask for.
const PROTOCOL_VERSION: &str = "v0.13.0";
/// Bytes of a session on their way, each way, where it comes over a call.
const SESSION_BUFFER: usize = 64 << 10;
/// Labels of the worker that clients look at.
const LABEL_EXECUTOR: &str = "org.mobyproject.buildkit.worker.executor";
const LABEL_HOSTNAME: &str = "org.mobyproject.buildkit.worker.hostname";
const LABEL_HOST_GATEWAY: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";

/// Answers the service's calls.
#[derive(Debug, Clone)]
pub struct Control {
    workshop: Workshop,
    jobs: Jobs,
}

impl Control {
    /// The service over `jobs`.
    pub fn new(workshop: Workshop, jobs: Jobs) -> Self {
        Self { workshop, jobs }
    }

    /// Answers `call`, whose method is `method`.
    ///
    /// # Errors
    /// What the call fails with.
    pub async fn call(&self, method: &str, call: Call) -> Result<Reply, Status> {
        match method {
            "Solve" => {
                let exporter_response = self.solve(call.message().await?).await?;
                Ok(Reply::of(&SolveResponse { exporter_response }))
            }
            "Status" => self.status(call.message().await?).await,
            "Info" => {
                Ok(Reply::of(&InfoResponse { buildkit_version: Some(version(&self.workshop.host.worker())) }))
            }
            "ListWorkers" => Ok(Reply::of(&ListWorkersResponse {
                record: vec![worker_record(&self.workshop.host.worker())],
            })),
            "DiskUsage" => cache::disk_usage(&self.workshop.host, call.message().await?).await,
            "Prune" => cache::prune(&self.workshop, call.message().await?).await,
            "ListenBuildHistory" => history::listen(&self.jobs, call.message().await?),
            "Session" => Ok(self.session(call)),
            "UpdateBuildHistory" => history::update(&self.jobs, &call.message().await?),
            other => Err(Status::not_supported(format!("the builder's call {other}"))),
        }
    }

    /// Builds. The build ends where the client does not wait for the answer any more.
    async fn solve(&self, mut request: SolveRequest) -> Result<HashMap<String, String>, Status> {
        if request.exporters.is_empty() && !request.exporter_deprecated.is_empty() {
            request.exporters.push(Exporter {
                r#type: request.exporter_deprecated.clone(),
                attrs: request.exporter_attrs_deprecated.clone(),
            });
        }
        let record = record(&request.frontend, &request.frontend_attrs, &request.exporters);
        let running = self.jobs.begin(&request.r#ref, record)?;
        let result = self.solve_job(&running, request).await;
        running.end(&result);
        result
    }

    async fn solve_job(
        &self,
        running: &crate::jobs::Running,
        request: SolveRequest,
    ) -> Result<HashMap<String, String>, Status> {
        let mut wishes = Wishes::default();
        wishes.read_exporters(request.exporters.iter().map(|entry| (entry.r#type.as_str(), &entry.attrs)))?;
        wishes.read_entitlements(&request.entitlements)?;
        read_cache_options(&mut wishes, request.cache.unwrap_or_default());
        if request.definition.as_ref().is_some_and(|definition| !definition.def.is_empty()) {
            return Err(Status::not_supported("a raw LLB definition"));
        }
        wishes.read_inputs(&self.workshop.references, &request.frontend_inputs)?;
        let session = self.workshop.sessions.get(&request.session).await?;
        if request.frontend.is_empty() {
            return gateway::drive(&self.workshop, running.job(), &session, wishes).await;
        }
        check_frontend_name(&request.frontend, &request.frontend_attrs)?;
        let built = self.workshop.solve(running.job(), &session, &request.frontend_attrs, wishes).await?;
        Ok(built.response)
    }

    /// Opens a session over the call itself: clients that speak gRPC alone have no other way.
    fn session(&self, mut call: Call) -> Reply {
        let (ours, theirs) = tokio::io::duplex(SESSION_BUFFER);
        let (sessions, headers) = (self.workshop.sessions.clone(), call.headers().clone());
        tokio::spawn(async move {
            if let Err(error) = sessions.serve(&headers, theirs).await {
                tracing::debug!(error = %error, "Session ended early");
            }
        });
        let (mut reader, mut writer) = tokio::io::split(ours);
        let incoming = async move {
            while let Some(message) = call.messages().next::<BytesMessage>().await? {
                writer.write_all(&message.data).await.map_err(|error| Status::unknown(error.to_string()))?;
            }
            writer.shutdown().await.map_err(|error| Status::unknown(error.to_string()))
        };
        Reply::stream(|sender| async move {
            let outgoing = async {
                let mut buffer = vec![0; SESSION_BUFFER];
                while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                    sender.send(&BytesMessage { data: buffer[..length].to_vec() }).await?;
                }
                Ok(())
            };
            tokio::try_join!(incoming, outgoing).map(drop)
        })
    }

    async fn status(&self, request: StatusRequest) -> Result<Reply, Status> {
        let job = self.jobs.get(&request.r#ref).await?;
        let mut follower = job.log.follow();
        Ok(Reply::stream(|sender| async move {
            while let Some(message) = follower.next().await {
                sender.send(&message).await?;
            }
            Ok(())
        }))
    }
}

fn read_cache_options(wishes: &mut Wishes, options: CacheOptions) {
    let pairs = |entries: Vec<bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry>| {
        cache_locations(entries.iter().map(|entry| (entry.r#type.as_str(), &entry.attrs)))
    };
    wishes.cache_to = pairs(options.exports);
    wishes.cache_from = pairs(options.imports);
    let registry = |reference: &str, attributes: &HashMap<String, String>| {
        let mut attributes = attributes.clone();
        attributes.insert("ref".to_owned(), reference.to_owned());
        cache_locations([("registry", &attributes)])
    };
    if !options.export_ref_deprecated.is_empty() {
        wishes.cache_to.extend(registry(&options.export_ref_deprecated, &options.export_attrs_deprecated));
    }
    for reference in &options.import_refs_deprecated {
        wishes.cache_from.extend(registry(reference, &HashMap::new()));
    }
}

/// The machine, as clients list it.
pub fn worker_record(worker: &Worker) -> WorkerRecord {
    let mut labels = HashMap::from([
        (LABEL_EXECUTOR.to_owned(), "dory".to_owned()),
        (LABEL_HOSTNAME.to_owned(), worker.hostname.clone()),
    ]);
    if let Some(gateway) = &worker.host_gateway {
        labels.insert(LABEL_HOST_GATEWAY.to_owned(), gateway.clone());
    }
    let platform = |platform: &dory_registry::Platform| pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        ..pb::Platform::default()
    };
    WorkerRecord {
        id: worker.id.clone(),
        labels,
        platforms: worker.platforms.iter().map(platform).collect(),
        buildkit_version: Some(version(worker)),
        ..WorkerRecord::default()
    }
}

fn version(worker: &Worker) -> BuildkitVersion {
    BuildkitVersion {
        package: "dory".to_owned(),
        version: PROTOCOL_VERSION.to_owned(),
        revision: worker.version.clone(),
    }
}
