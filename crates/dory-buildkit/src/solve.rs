//! From what a client asks for to a build, and from its result to what the client is answered.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::pb;
use dory_build::context::Context;
use dory_build::{
    Annotation, CacheLocation, DockerfileSource, Entitlements, Event, NamedContext, Outcome, Output,
    Progress, Request, Vertex,
};
use dory_types::{Digest, Timestamp};
use tokio::runtime::Handle;

use crate::attributes::{AttributeError, Attributes, Source};
use crate::exporter::Exporter;
use crate::failure;
use crate::filesync::{ContextDirectories, SessionContext};
use crate::grpc::{Code, Status};
use crate::host::Host;
use crate::jobs::Job;
use crate::results::{Reference, References};
use crate::session::{
    DirectoryExport, Session, SessionAgents, SessionCredentials, SessionSecrets, Sessions, StreamExport,
    upload,
};

/// The beginning of addresses under which clients pipe something in, and their host.
const UPLOAD: (&str, &str) = ("http://buildkit-session", "buildkit-session");

/// What every build is done with.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// The engine.
    pub host: Arc<dyn Host>,
    /// Clients' sessions.
    pub sessions: Sessions,
    /// Where contexts are received.
    pub directories: ContextDirectories,
    /// Results that clients may refer to.
    pub references: References,
    /// Where calls of sessions wait.
    pub runtime: Handle,
}

/// Everything beyond the frontend's attributes that a build is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Where the result goes.
    pub exporters: Vec<Exporter>,
    /// The build context, where it does not come from the session.
    pub context: Option<Arc<dyn Context>>,
    /// Notes for manifests.
    pub annotations: Vec<Annotation>,
    /// Where cached results are brought to.
    pub cache_to: Vec<CacheLocation>,
    /// Where cached results are looked for, beside what the attributes say.
    pub cache_from: Vec<CacheLocation>,
    /// What the build may do.
    pub entitlements: Entitlements,
    /// Results of other builds, by the names of the inputs.
    pub inputs: BTreeMap<String, Arc<Reference>>,
}

/// What came of a build.
#[derive(Debug)]
pub struct Built {
    /// What the client is told.
    pub response: HashMap<String, String>,
    /// The results.
    pub outcome: Arc<Outcome>,
}

/// A result of another build, which may have to be built.
type Awaited<'a> = Pin<Box<dyn Future<Output = Result<Arc<Outcome>, Status>> + Send + 'a>>;

impl Wishes {
    /// Reads a client's exporters; `(type, attributes)` each.
    ///
    /// # Errors
    /// Exporters that cannot be.
    pub fn read_exporters<'a>(
        &mut self,
        exporters: impl IntoIterator<Item = (&'a str, &'a HashMap<String, String>)>,
    ) -> Result<(), AttributeError> {
        for (kind, attributes) in exporters {
            let (exporter, annotations) = Exporter::read(kind, attributes)?;
            self.exporters.push(exporter);
            self.annotations.extend(annotations);
        }
        Ok(())
    }

    /// Reads what a client grants.
    ///
    /// # Errors
    /// Grants that nobody knows.
    pub fn read_entitlements(&mut self, names: &[String]) -> Result<(), AttributeError> {
        for name in names {
            match name.as_str() {
                "network.host" => self.entitlements.network_host = true,
                "security.insecure" => self.entitlements.security_insecure = true,
                other => return Err(AttributeError::Unsupported(format!("the entitlement `{other}`"))),
            }
        }
        Ok(())
    }

    /// Reads the results of other builds that a client hands over.
    ///
    /// # Errors
    /// What is none of our results.
    pub fn read_inputs(
        &mut self,
        references: &References,
        inputs: &HashMap<String, pb::Definition>,
    ) -> Result<(), Status> {
        for (name, definition) in inputs {
            self.inputs.insert(name.clone(), references.of_definition(name, definition)?);
        }
        Ok(())
    }
}

impl Workshop {
    /// Builds what `attributes` say, with `wishes`.
    ///
    /// The build ends when this future is dropped or the session ends.
    ///
    /// # Errors
    /// What the build failed with.
    pub async fn solve(
        &self,
        job: &Arc<Job>,
        session: &Arc<Session>,
        attributes: &HashMap<String, String>,
        wishes: Wishes,
    ) -> Result<Built, Status> {
        let attributes = Attributes::read(attributes)?;
        if let Some(subrequest) = &attributes.subrequest {
            return Err(failure::of_subrequest(subrequest));
        }
        let mut results = HashMap::new();
        for source in attributes.named.values() {
            let Source::Input(name) = source else { continue };
            let reference = wishes.inputs.get(name);
            let reference =
                reference.ok_or_else(|| Status::invalid(format!("the input `{name}` is missing")))?;
            results.insert(name.clone(), self.outcome(job, reference).await?);
        }
        let request = self.request(attributes, session, wishes.clone(), &results)?;
        let work =
            Work { workshop: self.clone(), job: job.clone(), session: session.clone(), request, wishes };
        let worked = tokio::task::spawn_blocking(move || work.run());
        tokio::select! {
            worked = worked => match worked {
                Ok(result) => result,
                Err(error) => Err(Status::new(Code::Internal, format!("the build failed unexpectedly: {error}"))),
            },
            () = session.closed() => {
                job.cancel.cancel();
                Err(Status::new(Code::Canceled, "the client's session has ended"))
            }
        }
    }

    /// What a reference stands for, built as part of `job` where it is not yet.
    pub fn outcome<'a>(&'a self, job: &'a Arc<Job>, reference: &'a Reference) -> Awaited<'a> {
        let build = async || {
            let wishes = Wishes {
                entitlements: reference.entitlements,
                inputs: reference.inputs.clone(),
                ..Wishes::default()
            };
            let built = self.solve(job, &reference.session, &reference.attributes, wishes).await?;
            Ok(built.outcome)
        };
        Box::pin(async move { reference.outcome.get_or_try_init(build).await.cloned() })
    }

    /// The builder's request; `results` are those of other builds, by the names of the inputs.
    fn request(
        &self,
        read: Attributes,
        session: &Arc<Session>,
        wishes: Wishes,
        results: &HashMap<String, Arc<Outcome>>,
    ) -> Result<Request, Status> {
        let comes_along = wishes.context.is_some();
        let context = match &read.context {
            _ if comes_along => wishes.context,
            None => Some(self.local(session, &read.context_name)),
            Some(source) => Some(self.files(session, "context", source)?),
        };
        // A context that comes from elsewhere has its Dockerfile along, unless the client gave one.
        let dockerfile = match &read.context {
            _ if comes_along => None,
            Some(Source::Address(_)) if !read.explicit_dockerfile => None,
            _ => Some(self.local(session, &read.dockerfile)),
        };
        let mut named_contexts = BTreeMap::new();
        for (name, source) in &read.named {
            let context = match source {
                Source::Image(reference) => NamedContext::Image(reference.clone()),
                Source::Input(input) if results.contains_key(input) => {
                    NamedContext::Result(results[input].clone())
                }
                source => NamedContext::Files(self.files(session, name, source)?),
            };
            named_contexts.insert(name.clone(), context);
        }
        let mut cache_to = wishes.cache_to;
        if read.inline_cache {
            cache_to.push(CacheLocation { kind: "inline".to_owned(), attributes: BTreeMap::new() });
        }
        Ok(Request {
            dockerfile: DockerfileSource::File { path: read.filename, context: dockerfile },
            context,
            named_contexts,
            target: read.target,
            build_args: read.build_args,
            labels: read.labels,
            annotations: wishes.annotations,
            platforms: read.platforms,
            no_cache: read.no_cache,
            pull: read.pull,
            cache_from: read.cache_from.into_iter().chain(wishes.cache_from).collect(),
            cache_to,
            secrets: Some(Arc::new(SessionSecrets::new(session.clone(), self.runtime.clone()))),
            agents: Some(Arc::new(SessionAgents::new(session.clone(), self.runtime.clone()))),
            entitlements: wishes.entitlements,
            network: read.network,
            limits: read.limits,
            source_date_epoch: read.source_date_epoch,
            provenance: read.provenance,
            ..Request::default()
        })
    }

    fn local(&self, session: &Arc<Session>, name: &str) -> Arc<dyn Context> {
        Arc::new(SessionContext::new(session.clone(), name, self.directories.clone(), self.runtime.clone()))
    }

    /// Files from wherever `source` says; `name` is for messages.
    fn files(&self, session: &Arc<Session>, name: &str, source: &Source) -> Result<Arc<dyn Context>, Status> {
        match source {
            Source::Local(directory) => Ok(self.local(session, directory)),
            Source::Address(address) if address.starts_with(UPLOAD.0) => {
                let path = &address[UPLOAD.0.len()..];
                let archive = upload(session, UPLOAD.1, path, self.runtime.clone())?;
                self.host.archive(Box::new(archive)).map_err(Status::unknown)
            }
            Source::Address(address) => {
                let secrets = Arc::new(SessionSecrets::new(session.clone(), self.runtime.clone()));
                Ok(self.host.remote(address, secrets))
            }
            Source::Image(image) => Err(Status::not_supported(format!("the image `{image}` as `{name}`"))),
            Source::Input(input) => {
                Err(Status::not_supported(format!("the result of another build (`{input}`) as `{name}`")))
            }
        }
    }

    /// The client's credentials for registries.
    pub fn credentials(&self, session: &Arc<Session>) -> SessionCredentials {
        SessionCredentials::new(session.clone(), self.runtime.clone())
    }
}

/// One build, on a thread that may block.
struct Work {
    workshop: Workshop,
    job: Arc<Job>,
    session: Arc<Session>,
    request: Request,
    wishes: Wishes,
}

impl Work {
    fn run(mut self) -> Result<Built, Status> {
        let directories = self.add_outputs()?;
        let progress: Arc<dyn Progress> = self.job.log.clone();
        let credentials = Some(self.workshop.credentials(&self.session));
        let outcome = self.workshop.host.build(&self.request, credentials, &progress, &self.job.cancel);
        let outcome = outcome.map_err(|error| failure::of_build(&error))?;
        for (id, directory) in directories {
            self.send(id, &directory)?;
        }
        Ok(Built { response: response(&outcome), outcome: Arc::new(outcome) })
    }

    /// Adds the exporters to the request; answers the directories that are sent to the client afterwards.
    fn add_outputs(&mut self) -> Result<Vec<(usize, LocalResult)>, Status> {
        let mut directories = Vec::new();
        for (id, exporter) in self.wishes.exporters.iter().enumerate() {
            let stream = |metadata: &[(&str, String)]| {
                Arc::new(StreamExport::new(self.session.clone(), id, metadata, self.workshop.runtime.clone()))
            };
            let output = match exporter.clone() {
                Exporter::Image { names, push, insecure } => Output::Image { names, push, insecure },
                Exporter::Archive { names, .. } => {
                    let told = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                    Output::Archive { names, sink: stream(&[("image.name", told)]) }
                }
                Exporter::Tar => Output::Tar { sink: stream(&[]) },
                Exporter::Local => {
                    let (lease, root) = self.workshop.directories.take("").map_err(|error| {
                        Status::unknown(format!("cannot make a directory for the result: {error}"))
                    })?;
                    let directory = lease.path();
                    directories.push((id, LocalResult { root, _lease: lease }));
                    Output::Local { directory }
                }
            };
            self.request.outputs.push(output);
        }
        Ok(directories)
    }

    /// Sends a directory to the client.
    fn send(&self, id: usize, result: &LocalResult) -> Result<(), Status> {
        let mut step = Step::begin(&self.job, Exporter::Local.description(), id);
        let export = DirectoryExport::new(self.session.clone(), id, self.workshop.runtime.clone());
        let sent = export.send(result.root.as_fd(), &self.job.cancel, &mut |bytes| step.transferred(bytes));
        let sent = sent.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            Status::unknown(format!("{error}{}", cause.unwrap_or_default()))
        });
        step.end(sent.as_ref().err());
        sent
    }
}

/// A result on its way to a client.
struct LocalResult {
    root: std::os::fd::OwnedFd,
    _lease: crate::filesync::Lease,
}

/// A step that is not the builder's.
struct Step<'a> {
    job: &'a Job,
    vertex: Vertex,
    bytes: u64,
}

impl<'a> Step<'a> {
    fn begin(job: &'a Job, name: &str, id: usize) -> Self {
        let vertex = Vertex {
            digest: Digest::of(format!("{name} {id}").as_bytes()),
            inputs: Vec::new(),
            name: name.to_owned(),
            started: Some(Timestamp::now()),
            completed: None,
            cached: false,
            error: None,
        };
        job.log.tell(Event::Vertex(vertex.clone()));
        Self { job, vertex, bytes: 0 }
    }

    fn transferred(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    fn end(mut self, error: Option<&Status>) {
        let now = Timestamp::now();
        self.job.log.tell(Event::Status(dory_build::Status {
            vertex: self.vertex.digest,
            id: "copying files".to_owned(),
            name: "copying files".to_owned(),
            current: self.bytes,
            total: 0,
            started: self.vertex.started.unwrap_or(now),
            completed: Some(now),
        }));
        self.vertex.completed = Some(now);
        self.vertex.error = error.map(ToString::to_string);
        self.job.log.tell(Event::Vertex(self.vertex));
    }
}

/// What the client is told: text as it is, everything else as JSON in base64, as BuildKit's exporters do.
fn response(outcome: &Outcome) -> HashMap<String, String> {
    let mut response = HashMap::new();
    if let [only] = outcome.results.as_slice() {
        response.insert("containerimage.config.digest".to_owned(), format!("sha256:{}", only.id));
    }
    if let Some(digest) = outcome.digest {
        response.insert("containerimage.digest".to_owned(), digest.to_string());
    }
    for (name, value) in &outcome.metadata {
        let value = match value {
            serde_json::Value::String(text) => text.clone(),
            value => STANDARD.encode(value.to_string()),
        };
        response.insert(name.clone(), value);
    }
    // An image that went nowhere has no manifest: dockerd names it by its configuration, and compose looks for that.
    if let Some(config) = response.get("containerimage.config.digest").cloned() {
        response.entry("containerimage.digest".to_owned()).or_insert(config);
    }
    response
}

/// A path below which contexts are kept, in the engine's folder of data.
pub fn context_folder(data_root: &std::path::Path) -> PathBuf {
    data_root.join("build").join("contexts")
}
