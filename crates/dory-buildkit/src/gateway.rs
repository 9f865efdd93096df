//! The gateway (LLBBridge): how a client drives a build itself. buildx does so for every build.
//!
//! ```text
//!  client                     engine
//!  Control.Solve (empty)   ─▶ waits for the result to be returned
//!  Ping                    ─▶ what can be asked for
//!  Solve dockerfile.v0     ─▶ a reference; nothing is built yet
//!  Return reference        ─▶ builds it, exports it, answers Control.Solve
//! ```
//!
//! References are lazy, as BuildKit's are: a build runs when it is returned or when something of it is asked for, and the
//! second time finds everything in the cache. Source: BuildKit's frontend/gateway/pb/gateway.proto.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::VertexWarning;
use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    EvaluateRequest, EvaluateResponse, InputsResponse, PongResponse, ReadDirRequest, ReadFileRequest, Ref,
    ResolveImageConfigRequest, ResolveImageConfigResponse, Result as GatewayResult, ReturnRequest,
    ReturnResponse, SolveRequest, SolveResponse, StatFileRequest, WarnRequest, WarnResponse, result,
};
use bollard_buildkit_proto::pb;
use dory_build::PullPolicy;
use dory_registry::Platform;
use dory_store::View;
use prost::Message;
use tokio::sync::{OnceCell, watch};

use crate::attributes::{AttributeError, Attributes, check_frontend};
use crate::failure;
use crate::files;
use crate::grpc::{Call, Code, Reply, Status};
use crate::jobs::{Job, Jobs};
use crate::results::{KnownReference, Reference, definition};
use crate::session::Session;
use crate::solve::{Wishes, Workshop};

/// Metadata of each call: the build that it is about.
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// What can be asked for here (frontend/gateway/pb/caps.go).
const FRONTEND_CAPABILITIES: [&str; 18] = [
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "return",
    "returnmap",
    "importcaches",
    "proto.refarray",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "frontend.inputs",
    "reference.output",
    "readfile",
    "readdir",
    "statfile",
];
/// What of LLB's abilities has a counterpart in the Dockerfile frontend (solver/pb/caps.go): clients ask about options by them.
const SOLVER_CAPABILITIES: [&str; 25] = [
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.git",
    "source.http",
    "exec.meta.base",
    "exec.meta.network",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.tmpfs",
    "exec.mount.secret",
    "exec.mount.ssh",
    "file.base",
    "platform",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.sourcedateepoch",
];

/// A client's half of a build.
#[derive(Debug)]
pub struct Bridge {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    driver: Option<Driver>,
    references: HashMap<String, KnownReference>,
    returned: Option<Result<Option<String>, Status>>,
}

/// Who drives a build, and what it may do.
#[derive(Debug, Clone)]
struct Driver {
    session: Arc<Session>,
    wishes: Wishes,
}

impl Default for Bridge {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Bridge {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the bridge for calls.
    fn open(&self, session: Arc<Session>, wishes: Wishes) {
        self.lock().driver = Some(Driver { session, wishes });
        self.changed.send_replace(());
    }

    /// Who drives the build; waits until the bridge is open.
    async fn driver(&self) -> Result<Driver, Status> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(driver) = self.lock().driver.clone() {
                return Ok(driver);
            }
            changed.changed().await.map_err(|_| Status::new(Code::Canceled, "the build is over"))?;
        }
    }

    /// What was returned; nothing for an empty result. Waits for it.
    async fn returned(&self) -> Result<Option<Arc<Reference>>, Status> {
        let mut changed = self.changed.subscribe();
        loop {
            // Not within the condition, whose lock would be held while the reference is looked up.
            let returned = self.lock().returned.clone();
            if let Some(returned) = returned {
                return match returned? {
                    None => Ok(None),
                    Some(reference) => self.reference(&reference).map(Some),
                };
            }
            changed.changed().await.map_err(|_| Status::new(Code::Canceled, "the build is over"))?;
        }
    }

    fn reference(&self, id: &str) -> Result<Arc<Reference>, Status> {
        let found = self.lock().references.get(id).map(|known| known.reference().clone());
        found.ok_or_else(|| Status::new(Code::NotFound, format!("no such reference: {id}")))
    }
}

/// Lets the client drive `job`, and builds what it returns.
///
/// # Errors
/// What the client returned as its failure, or what the build failed with.
pub async fn drive(
    workshop: &Workshop,
    job: &Arc<Job>,
    session: &Arc<Session>,
    wishes: Wishes,
) -> Result<HashMap<String, String>, Status> {
    job.bridge.open(session.clone(), wishes.clone());
    let returned = tokio::select! {
        returned = job.bridge.returned() => returned?,
        () = session.closed() => return Err(Status::new(Code::Canceled, "the client's session has ended")),
    };
    match returned {
        Some(reference) => {
            let wishes = Wishes { inputs: reference.inputs.clone(), ..wishes };
            let built = workshop.solve(job, session, &reference.attributes, wishes).await?;
            // Who has the reference as an input may have built it meanwhile: the same, out of the cache.
            let _ = reference.outcome.set(built.outcome);
            Ok(built.response)
        }
        None => Ok(HashMap::new()),
    }
}

/// Answers the gateway's calls.
#[derive(Debug, Clone)]
pub struct Gateway {
    workshop: Workshop,
    jobs: Jobs,
}

impl Gateway {
    /// A gateway to `jobs`.
    pub fn new(workshop: Workshop, jobs: Jobs) -> Self {
        Self { workshop, jobs }
    }

    /// Answers `call`, whose method is `method`.
    ///
    /// # Errors
    /// What the call fails with.
    pub async fn call(&self, method: &str, call: Call) -> Result<Reply, Status> {
        let id = call.metadata(BUILD_ID).unwrap_or_default().to_owned();
        if id.is_empty() {
            return Err(Status::invalid(format!("`{BUILD_ID}` is missing")));
        }
        let job = self.jobs.get(&id).await?;
        let driver = job.bridge.driver().await?;
        match method {
            "Ping" => Ok(Reply::of(&self.ping())),
            "Solve" => self.solve(&job, &id, &driver, call.message().await?).await,
            "Return" => return_result(&job, call.message().await?),
            "Evaluate" => {
                let request: EvaluateRequest = call.message().await?;
                self.workshop.outcome(&job, &*job.bridge.reference(&request.r#ref)?).await?;
                Ok(Reply::of(&EvaluateResponse {}))
            }
            "ResolveImageConfig" => self.resolve(&job, &driver, call.message().await?).await,
            "Inputs" => Ok(Reply::of(&InputsResponse::default())),
            "Warn" => warn(&job, call.message().await?),
            "ReadFile" => {
                let request: ReadFileRequest = call.message().await?;
                let reference = job.bridge.reference(&request.r#ref)?;
                self.look(&job, &reference, move |view| files::read_file(view, &request)).await
            }
            "ReadDir" => {
                let request: ReadDirRequest = call.message().await?;
                let reference = job.bridge.reference(&request.r#ref)?;
                self.look(&job, &reference, move |view| files::read_dir(view, &request)).await
            }
            "StatFile" => {
                let request: StatFileRequest = call.message().await?;
                let reference = job.bridge.reference(&request.r#ref)?;
                self.look(&job, &reference, move |view| files::stat_file(view, &request)).await
            }
            "NewContainer" | "ExecProcess" | "ReleaseContainer" => {
                Err(Status::not_supported(format!("a container of the client's in a build ({method})")))
            }
            other => Err(Status::not_supported(format!("the gateway's call {other}"))),
        }
    }

    fn ping(&self) -> PongResponse {
        let capabilities = |ids: &[&str]| {
            let capability = |id: &&str| ApiCap { id: (*id).to_owned(), enabled: true, ..ApiCap::default() };
            ids.iter().map(capability).collect()
        };
        PongResponse {
            frontend_api_caps: capabilities(&FRONTEND_CAPABILITIES),
            llb_caps: capabilities(&SOLVER_CAPABILITIES),
            workers: vec![crate::control::worker_record(&self.workshop.host.worker())],
        }
    }

    /// Keeps what is to be built; builds it only where that is asked for.
    async fn solve(
        &self,
        job: &Arc<Job>,
        build: &str,
        driver: &Driver,
        request: SolveRequest,
    ) -> Result<Reply, Status> {
        if request.definition.as_ref().is_some_and(|definition| !definition.def.is_empty()) {
            return Err(Status::not_supported("a raw LLB definition"));
        }
        check_frontend_name(&request.frontend, &request.frontend_opt)?;
        let mut wishes = Wishes::default();
        wishes.read_inputs(&self.workshop.references, &request.frontend_inputs)?;
        let mut attributes = request.frontend_opt;
        add_cache_imports(&mut attributes, &request.cache_imports);
        // What cannot be built is refused here, where the client asked for it.
        if let Some(subrequest) = Attributes::read(&attributes)?.subrequest {
            return Err(failure::of_subrequest(&subrequest));
        }
        let reference = self.keep(job, build, driver, attributes, wishes);
        if request.evaluate {
            self.workshop.outcome(job, &reference).await?;
        }
        let reference = reference.id.clone();
        let result = match request.allow_result_array_ref {
            true => result::Result::Ref(Ref { id: reference.clone(), def: Some(definition(&reference)) }),
            false => result::Result::RefDeprecated(reference.clone()),
        };
        let result = GatewayResult { result: Some(result), ..GatewayResult::default() };
        Ok(Reply::of(&match request.allow_result_return {
            true => SolveResponse { r#ref: String::new(), result: Some(result) },
            false => SolveResponse { r#ref: reference, result: None },
        }))
    }

    /// Makes a reference, of which nothing is built yet.
    fn keep(
        &self,
        job: &Job,
        build: &str,
        driver: &Driver,
        attributes: HashMap<String, String>,
        wishes: Wishes,
    ) -> Arc<Reference> {
        let mut state = job.bridge.lock();
        let reference = Arc::new(Reference {
            // Builds' ids are the clients', and no two of them are the same.
            id: format!("{build}-{}", state.references.len()),
            attributes,
            session: driver.session.clone(),
            entitlements: driver.wishes.entitlements,
            inputs: wishes.inputs,
            outcome: OnceCell::new(),
        });
        let known = self.workshop.references.keep(reference.clone(), self.workshop.runtime.clone());
        state.references.insert(reference.id.clone(), known);
        reference
    }

    /// Looks into the files of a result; builds it first where nobody has.
    async fn look<T: Message + 'static>(
        &self,
        job: &Arc<Job>,
        reference: &Reference,
        look: impl FnOnce(&View) -> Result<T, Status> + Send + 'static,
    ) -> Result<Reply, Status> {
        let outcome = self.workshop.outcome(job, reference).await?;
        let host = self.workshop.host.clone();
        let looked = tokio::task::spawn_blocking(move || match outcome.results.as_slice() {
            [result] => look(&host.files(result).map_err(Status::unknown)?),
            _ => Err(Status::not_supported("reading a result of several platforms")),
        });
        let looked = looked.await.map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        Ok(Reply::of(&looked?))
    }

    async fn resolve(
        &self,
        job: &Arc<Job>,
        driver: &Driver,
        request: ResolveImageConfigRequest,
    ) -> Result<Reply, Status> {
        let platform = request.platform.as_ref().map_or_else(Platform::current, from_platform);
        let pull = match request.resolve_mode.as_str() {
            "pull" => PullPolicy::Always,
            _ => PullPolicy::Missing,
        };
        let (host, cancel) = (self.workshop.host.clone(), job.cancel.clone());
        let credentials = Some(self.workshop.credentials(&driver.session));
        let reference = request.r#ref;
        let resolved = tokio::task::spawn_blocking(move || {
            let resolved = host.resolve(&reference, &platform, pull, credentials, &cancel)?;
            Ok::<_, Status>(ResolveImageConfigResponse {
                digest: resolved.digest.to_string(),
                config: resolved.config,
                r#ref: reference,
            })
        });
        let resolved = resolved.await.map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        Ok(Reply::of(&resolved?))
    }
}

/// Whether a frontend's name means our own.
///
/// # Errors
/// Another frontend, by its name.
pub fn check_frontend_name(
    frontend: &str,
    attributes: &HashMap<String, String>,
) -> Result<(), AttributeError> {
    match frontend {
        "dockerfile.v0" => Ok(()),
        "gateway.v0" => check_frontend(attributes.get("source").map(String::as_str).unwrap_or_default()),
        other => Err(AttributeError::Unsupported(format!("the frontend `{other}`"))),
    }
}

fn add_cache_imports(
    attributes: &mut HashMap<String, String>,
    imports: &[bollard_buildkit_proto::moby::buildkit::v1::frontend::CacheOptionsEntry],
) {
    if imports.is_empty() || attributes.contains_key("cache-imports") {
        return;
    }
    let entry = |entry: &bollard_buildkit_proto::moby::buildkit::v1::frontend::CacheOptionsEntry| serde_json::json!({"Type": entry.r#type, "Attrs": entry.attrs});
    let list = serde_json::Value::from(imports.iter().map(entry).collect::<Vec<_>>());
    attributes.insert("cache-imports".to_owned(), list.to_string());
}

/// Takes what the client returns.
fn return_result(job: &Job, request: ReturnRequest) -> Result<Reply, Status> {
    let returned = match request.error.and_then(Status::from_message) {
        Some(status) => Err(status),
        None => reference_of(request.result.unwrap_or_default()).map(|reference| {
            // An empty id is a result without files.
            reference.filter(|reference| !reference.is_empty())
        }),
    };
    job.bridge.lock().returned = Some(returned);
    job.bridge.changed.send_replace(());
    Ok(Reply::of(&ReturnResponse {}))
}

/// The one reference of a result.
fn reference_of(returned: GatewayResult) -> Result<Option<String>, Status> {
    let several = || Status::not_supported("a result of several references");
    match returned.result {
        None => Ok(None),
        Some(result::Result::RefDeprecated(id)) => Ok(Some(id)),
        Some(result::Result::Ref(reference)) => Ok(Some(reference.id)),
        Some(result::Result::RefsDeprecated(references)) => {
            let mut ids: Vec<_> = references.refs.into_values().collect();
            if ids.len() > 1 { Err(several()) } else { Ok(ids.pop()) }
        }
        Some(result::Result::Refs(references)) => {
            let mut ids: Vec<_> = references.refs.into_values().map(|reference| reference.id).collect();
            if ids.len() > 1 { Err(several()) } else { Ok(ids.pop()) }
        }
    }
}

fn warn(job: &Job, request: WarnRequest) -> Result<Reply, Status> {
    job.log.warn(VertexWarning {
        vertex: request.digest,
        level: request.level,
        short: request.short,
        detail: request.detail,
        url: request.url,
        info: request.info,
        ranges: request.ranges,
    });
    Ok(Reply::of(&WarnResponse {}))
}

fn from_platform(platform: &pb::Platform) -> Platform {
    Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
    }
}
