//! Serves guarded sockets: each container that asked for the engine's socket is a session of its own.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use dory_api::Connector;
use dory_engine::{CallerPath, Engine, ErrorKind, GuardEvent, GuardedSocket};
use dory_gateway::{Audit, Caller, CallerFuture, Listener, Session, SessionOptions, Upstream, listen};
use dory_policy::{Mounted, PathMeaning, Policy};
use dory_types::ContainerId;
use tokio::task::AbortHandle;

/// How guarded sockets are served.
#[derive(Debug)]
pub struct Options {
    /// For sockets that are mounted as they are.
    policy: Policy,
    /// For those that are mounted read-only.
    read_only: Policy,
    audit: Arc<Audit>,
}

impl Options {
    /// By `policy`; decisions are written to `audit`, where there is one.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn new(policy: Policy, audit: Option<&Path>) -> Result<Self> {
        let mut read_only = Policy::preset("read-only")?;
        // It stands in every refusal: `:ro` is about the file everywhere else, and who wrote it should hear what it does here.
        read_only.name = format!(
            "read-only, because the socket is mounted `:ro`; mounted writable it has the policy {}",
            policy.name
        );
        let audit = match audit {
            None => Arc::new(Audit::new(Box::new(io::sink()))),
            Some(path) => crate::gateway::audit(&path.to_string_lossy())?,
        };
        Ok(Self { policy, read_only, audit })
    }
}

/// Serves the sockets of `engine`'s containers until it is dropped.
pub async fn serve(engine: Engine, connector: Connector, options: Options) {
    let Some(mut events) = engine.guard_events() else { return };
    let mut serving: HashMap<ContainerId, AbortHandle> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(event) = events.recv().await {
        while tasks.try_join_next().is_some() {}
        match event {
            GuardEvent::Begun(socket) => {
                let id = socket.container.clone();
                let task = tasks.spawn(session(engine.clone(), connector.clone(), &options, socket));
                if let Some(before) = serving.insert(id, task) {
                    before.abort();
                }
            }
            GuardEvent::Ended(id) => {
                if let Some(task) = serving.remove(&id) {
                    task.abort();
                }
            }
        }
    }
}

/// One container's session, until it is dropped.
fn session(
    engine: Engine,
    connector: Connector,
    options: &Options,
    socket: GuardedSocket,
) -> impl Future<Output = ()> + Send + use<> {
    let GuardedSocket { container, owner, read_only, path, listener } = socket;
    let policy = if read_only { &options.read_only } else { &options.policy };
    let session = SessionOptions {
        name: format!("container {}", container.short()),
        policy: policy.clone(),
        upstream: Upstream::Local(Arc::new(move || connector.connect())),
        socket: Some(path),
        binds: Vec::new(),
        owner: Some(owner),
        caller: Some(Arc::new(Container { engine, id: container.clone() })),
        audit: Arc::clone(&options.audit),
    };
    async move {
        let served = async { listen(Session::begin(session).await?, Listener::Unix(listener)).await };
        if let Err(error) = served.await {
            tracing::warn!(container.id = %container, %error, "Cannot serve a container's own API socket");
        }
    }
}

/// The container behind a guarded socket.
#[derive(Debug)]
struct Container {
    engine: Engine,
    id: ContainerId,
}

impl Caller for Container {
    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn path<'c>(&'c self, path: &'c str) -> CallerFuture<'c> {
        Box::pin(async move {
            match self.engine.caller_path(&self.id, path).await {
                Ok(found) => Ok(meaning(found)),
                // It has ended in this moment; whoever shares its socket has nothing of it any more.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {
                    Ok(PathMeaning::Unusable("the container that it belongs to does not run".to_owned()))
                }
                Err(error) => Err(io::Error::other(error)),
            }
        })
    }
}

fn meaning(path: CallerPath) -> PathMeaning {
    match path {
        CallerPath::Volume { name, subpath, read_only } => {
            PathMeaning::Mine { mounted: Mounted::Volume(name), subpath, read_only }
        }
        CallerPath::Bind { source, subpath, read_only } => {
            PathMeaning::Mine { mounted: Mounted::Bind(source), subpath, read_only }
        }
        CallerPath::Socket => PathMeaning::Socket,
        CallerPath::Missing => PathMeaning::Missing,
        CallerPath::Own => PathMeaning::Unusable(
            "it lies in this container's own layer, which no other container can have mounted; start this container with \
             a volume or a bind there (`-v`), or use a named volume"
                .to_owned(),
        ),
    }
}
