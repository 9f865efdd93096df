//! Everything that BuildKit's clients find behind one connection.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::health::{HealthCheckResponse, health_check_response::ServingStatus};
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;

use crate::control::Control;
use crate::filesync::ContextDirectories;
use crate::gateway::Gateway;
use crate::grpc::{self, Answer, Call, Outgoing, Reply, Service, Status};
use crate::host::Host;
use crate::jobs::{Jobs, record};
use crate::results::References;
use crate::session::Sessions;
use crate::solve::{Wishes, Workshop, context_folder};
use crate::status::Follower;

/// BuildKit over one engine; clones share it.
#[derive(Debug, Clone)]
pub struct BuildKit(Arc<Services>);

#[derive(Debug)]
struct Services {
    workshop: Workshop,
    jobs: Jobs,
    control: Control,
    gateway: Gateway,
}

/// What the client is told of a result.
pub type Solved = Pin<Box<dyn Future<Output = Result<HashMap<String, String>, Status>> + Send>>;

/// What a client asks for by `POST /build`.
pub struct TracedRequest {
    /// The client's id of the build; empty where it has none.
    pub reference: String,
    /// The session's id.
    pub session: String,
    /// Attributes of the frontend.
    pub attributes: HashMap<String, String>,
    /// Where the result goes: type and attributes each.
    pub exporters: Vec<(String, HashMap<String, String>)>,
    /// The build context, where it comes with the request.
    pub archive: Option<Box<dyn Read + Send>>,
}

impl std::fmt::Debug for TracedRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TracedRequest")
            .field("reference", &self.reference)
            .field("session", &self.session)
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}

/// A build whose story is told beside its result (docker 20.10's way).
pub struct TracedBuild {
    /// The story.
    pub follower: Follower,
    /// The result. The build ends where this is dropped.
    pub result: Solved,
}

impl std::fmt::Debug for TracedBuild {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TracedBuild").field("follower", &self.follower).finish_non_exhaustive()
    }
}

impl BuildKit {
    /// BuildKit over `host`, whose data are in `data_root`; calls of sessions wait on `runtime`.
    pub fn new(host: Arc<dyn Host>, data_root: &Path, runtime: Handle) -> Self {
        let workshop = Workshop {
            host,
            sessions: Sessions::default(),
            directories: ContextDirectories::new(context_folder(data_root)),
            references: References::default(),
            runtime,
        };
        let jobs = Jobs::default();
        let control = Control::new(workshop.clone(), jobs.clone());
        let gateway = Gateway::new(workshop.clone(), jobs.clone());
        Self(Arc::new(Services { workshop, jobs, control, gateway }))
    }

    /// Removes the contexts that were received and that no build has now (`docker builder prune`). Blocks.
    pub fn forget_contexts(&self) {
        self.0.workshop.directories.forget(Duration::ZERO);
    }

    /// Serves calls on `stream` until the client closes it.
    ///
    /// # Errors
    /// What breaks the connection.
    pub async fn serve<Stream>(&self, stream: Stream) -> io::Result<()>
    where
        Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        grpc::serve(stream, self.0.clone()).await
    }

    /// Answers one call of an HTTP/2 connection that somebody else serves.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Outgoing> {
        grpc::answer(self.0.clone(), request).await
    }

    /// Keeps the session that `stream` is the connection of, with the headers of its request.
    ///
    /// # Errors
    /// What breaks the connection.
    pub async fn serve_session<Stream>(&self, headers: &HeaderMap, stream: Stream) -> io::Result<()>
    where
        Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.0.workshop.sessions.serve(headers, stream).await
    }

    /// Builds for a client that asks by `POST /build`.
    ///
    /// # Errors
    /// A build of the same id, exporters that cannot be.
    pub fn solve(&self, request: TracedRequest) -> Result<TracedBuild, Status> {
        let TracedRequest { mut reference, session, attributes, exporters, archive } = request;
        let mut wishes = Wishes::default();
        wishes.read_exporters(exporters.iter().map(|(kind, attributes)| (kind.as_str(), attributes)))?;
        if let Some(archive) = archive {
            wishes.context = Some(self.0.workshop.host.archive(archive).map_err(Status::unknown)?);
        }
        if reference.is_empty() {
            reference = format!("session-{session}");
        }
        let running = self.0.jobs.begin(&reference, record("dockerfile.v0", &attributes, &[]))?;
        let follower = running.job().log.follow();
        let services = self.0.clone();
        let result = Box::pin(async move {
            let workshop = &services.workshop;
            let solved = async {
                let session = workshop.sessions.get(&session).await?;
                workshop.solve(running.job(), &session, &attributes, wishes).await
            };
            let result = solved.await.map(|built| built.response);
            running.end(&result);
            result
        });
        Ok(TracedBuild { follower, result })
    }

    /// Ends the build `reference`; false where there is none.
    pub fn cancel(&self, reference: &str) -> bool {
        let job = self.0.jobs.find(reference);
        job.is_some_and(|job| {
            job.cancel.cancel();
            true
        })
    }
}

impl Service for Services {
    fn call(self: Arc<Self>, call: Call) -> Answer {
        Box::pin(async move {
            let path = call.method().trim_start_matches('/').to_owned();
            let (service, method) = path.split_once('/').unwrap_or((&path, ""));
            match service {
                "moby.buildkit.v1.Control" => self.control.call(method, call).await,
                "moby.buildkit.v1.frontend.LLBBridge" => self.gateway.call(method, call).await,
                "grpc.health.v1.Health" if method == "Check" => {
                    Ok(Reply::of(&HealthCheckResponse { status: ServingStatus::Serving as i32 }))
                }
                // Clients bring the traces of their own work. An empty answer says that all of them were taken.
                "opentelemetry.proto.collector.trace.v1.TraceService" => Ok(Reply::of(&())),
                _ => Err(Status::not_supported(format!("the call {path}"))),
            }
        })
    }
}
