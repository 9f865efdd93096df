//! What builds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dory_dockerfile::{CheckOptions, check};
use dory_registry::Platform;
use dory_store::Store;
use dory_types::Timestamp;

use crate::cache::Imported;
use crate::cancel::Cancel;
use crate::context::Context;
use crate::error::{BuildError, StepError};
use crate::executor::Executor;
use crate::grant::Secrets;
use crate::graph::{Plan, Scope, platform_args};
use crate::images::Images;
use crate::outcome::{Outcome, PlatformResult};
use crate::progress::Progress;
use crate::remote::RemoteContext;
use crate::request::{DockerfileSource, Request};
use crate::solve::flights::Flights;
use crate::solve::{Checks, Solver, Sources, Teller};
use crate::web::Web;

/// The build argument that counts before the directive `check` (docs.docker.com/reference/build-checks).
const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Builds images in a store. Builds at the same time share it: what two of them need is done once.
#[derive(Debug)]
pub struct Builder {
    pub(crate) store: Arc<Store>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) web: Arc<dyn Web>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) flights: Flights,
    active: AtomicUsize,
    /// By the ids that clients gave.
    pub(crate) running: Mutex<HashMap<String, Cancel>>,
}

impl Builder {
    /// A builder over `store`.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        images: Arc<dyn Images>,
        web: Arc<dyn Web>,
        executor: Arc<dyn Executor>,
    ) -> Self {
        // Commands wait for disks and networks as much as for processors.
        let slots = std::thread::available_parallelism().map_or(2, usize::from) * 2;
        Self {
            store,
            images,
            web,
            executor,
            flights: Flights::new(slots),
            active: AtomicUsize::new(0),
            running: Mutex::default(),
        }
    }

    /// Whether a build is going on.
    #[must_use]
    pub fn is_building(&self) -> bool {
        self.active.load(Ordering::Acquire) > 0
    }

    /// A context at an address: for [`Request::context`]. `secrets` may open repositories.
    #[must_use]
    pub fn remote_context(&self, address: &str, secrets: Option<Arc<dyn Secrets>>) -> Arc<dyn Context> {
        let (store, web) = (Arc::clone(&self.store), Arc::clone(&self.web));
        Arc::new(RemoteContext::new(store, web, secrets, address))
    }

    /// The store that it builds in.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Builds. Blocks until everything is done and every output is written.
    ///
    /// # Errors
    /// [`BuildError`]; no output has been named then, and what was made on the way stays in the cache.
    pub fn build(
        &self,
        request: &Request,
        progress: &Arc<dyn Progress>,
        cancel: &Cancel,
    ) -> Result<Outcome, BuildError> {
        crate::output::check(request)?;
        let _active = Active::enter(&self.active);
        let teller = Teller::new(Arc::clone(progress));
        let mut sources = Sources::new(self, request, &teller, cancel);
        sources.imported = Imported::load(self, request, &teller);
        let solved = self.solve(request, &sources, &teller, cancel);
        sources.remember();
        let mut outcome = match solved {
            Ok(outcome) => outcome,
            Err(_) if cancel.is_cancelled() => return Err(BuildError::Cancelled),
            Err(error) => return Err(error),
        };
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        crate::output::write(self, request, &mut outcome, &teller, cancel)?;
        crate::cache::export(self, request, &sources.exported(), &teller, cancel)?;
        self.store.sync_build_records()?;
        Ok(outcome)
    }

    fn solve(
        &self,
        request: &Request,
        sources: &Sources<'_>,
        teller: &Teller,
        cancel: &Cancel,
    ) -> Result<Outcome, BuildError> {
        let (name, content, vertex) = dockerfile(request, sources, teller, cancel)?;
        sources.set_dockerfile(&name);
        let platforms = match request.platforms.as_slice() {
            [] => vec![Platform::current()],
            platforms => platforms.to_vec(),
        };
        let mut outcome = Outcome { started: Timestamp::now(), ..Outcome::default() };
        for (number, platform) in platforms.into_iter().enumerate() {
            let target = request.target.clone().unwrap_or_default();
            let globals = Scope::with(platform_args(&platform, &target));
            let plan = Plan::new(&name, &content, request, globals)?;
            if number == 0 {
                warn(&plan, sources, teller, check_options(&plan, request)?, vertex)?;
            }
            let solver = Solver::new(self, request, &plan, platform.clone(), sources, teller, cancel);
            let result = solver.solve()?;
            let mut config = result.config.clone();
            config.config.labels.extend(request.labels.clone());
            let config_bytes = serde_json::to_vec(&config)
                .map_err(|error| BuildError::Invalid(format!("the image's configuration: {error}")))?;
            let config_bytes = crate::cache::inline(request, config_bytes, &sources.exported());
            let id = dory_types::Digest::of(&config_bytes).into();
            let layers = result.layers.clone();
            outcome.results.push(PlatformResult { platform, config, config_bytes, id, layers });
        }
        if let Some(checks) = sources.checks.get() {
            checks.verdict()?;
        }
        outcome.bases = sources.bases();
        outcome.finished = Timestamp::now();
        Ok(outcome)
    }
}

/// Counts a build while it goes on.
struct Active<'a>(&'a AtomicUsize);

impl<'a> Active<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The Dockerfile: its name, its text, and the vertex that brought it.
fn dockerfile(
    request: &Request,
    sources: &Sources<'_>,
    teller: &Teller,
    cancel: &Cancel,
) -> Result<(String, Vec<u8>, dory_types::Digest), BuildError> {
    let shown = match &request.dockerfile {
        DockerfileSource::Inline { name, .. } => name.clone(),
        DockerfileSource::File { path, .. } => path.clone(),
    };
    let label = format!("[internal] load build definition from {shown}");
    let failed = |error: StepError| match error {
        StepError::Cancelled => BuildError::Cancelled,
        error => BuildError::Dockerfile(error.to_string()),
    };
    teller.during(&label, Vec::new(), |vertex| match &request.dockerfile {
        DockerfileSource::Inline { name, content } => Ok((name.clone(), content.clone(), vertex)),
        DockerfileSource::File { path, context } => {
            let content = match context {
                Some(context) => sources.dockerfile_from(context, path, cancel).map_err(failed)?,
                None => {
                    sources.set_dockerfile(path);
                    sources.dockerfile_in_context(path).map_err(failed)?
                }
            };
            let missing = || BuildError::Dockerfile(format!("open {path}: no such file or directory"));
            let (name, content) = content.ok_or_else(missing)?;
            Ok((name, content, vertex))
        }
    })
}

/// How the file is checked: what the request's argument says, else its directive.
fn check_options(plan: &Plan, request: &Request) -> Result<CheckOptions, BuildError> {
    let argument = request.build_args.get(CHECK_ARGUMENT).cloned().flatten();
    let text = argument.or_else(|| plan.file.directives.check.clone()).unwrap_or_default();
    CheckOptions::parse(&text).map_err(BuildError::Invalid)
}

/// Tells what is likely wrong with the file, and fails where that was asked for.
fn warn(
    plan: &Plan,
    sources: &Sources<'_>,
    teller: &Teller,
    options: CheckOptions,
    vertex: dory_types::Digest,
) -> Result<(), BuildError> {
    let warnings = check(&plan.file, &options);
    let checks = sources.checks.get_or_init(|| Checks::new(options, vertex));
    for warning in warnings {
        checks.warn(warning, plan, teller);
    }
    checks.verdict()
}
