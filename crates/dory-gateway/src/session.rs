//! A session: one identity with its policy, in front of one engine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dory_policy::{BindRoot, Identity, PathMeaning, Policy, VERSIONS};

use crate::audit::Audit;
use crate::upstream::Upstream;

/// How a session begins.
#[derive(Debug)]
pub struct SessionOptions {
    /// Its name in audits; not a secret.
    pub name: String,
    /// What it may do.
    pub policy: Policy,
    /// The engine behind it.
    pub upstream: Upstream,
    /// Its own socket where the upstream runs, for containers that mount the engine's.
    pub socket: Option<PathBuf>,
    /// Directories that it may mount beside those of the policy.
    pub binds: Vec<BindRoot>,
    /// The value of its label, where it has to be the same as before; `None` for a new one.
    pub owner: Option<String>,
    /// The container that its requests come from.
    pub caller: Option<Arc<dyn Caller>>,
    /// Where decisions are written.
    pub audit: Arc<Audit>,
}

/// The container that a session's requests come from. The session sees it, and may share what it has.
pub trait Caller: std::fmt::Debug + Send + Sync {
    /// Its full id.
    fn id(&self) -> &str;

    /// What a path of the container's means to the engine.
    ///
    /// # Errors
    /// Those of looking; a path that cannot be mounted is a meaning.
    fn path<'c>(&'c self, path: &'c str) -> CallerFuture<'c>;
}

/// What [`Caller::path`] answers.
pub type CallerFuture<'c> = Pin<Box<dyn Future<Output = std::io::Result<PathMeaning>> + Send + 'c>>;

/// One identity with its policy. Shared by its connections.
#[derive(Debug)]
pub struct Session {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) identity: Identity,
    pub(crate) upstream: Upstream,
    pub(crate) caller: Option<Arc<dyn Caller>>,
    pub(crate) audit: Arc<Audit>,
    /// Newest minor version of the API that both sides speak.
    pub(crate) version: u32,
    seen: Mutex<Seen>,
    bucket: Mutex<Bucket>,
}

/// Own things whose events carry no label.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub networks: BTreeSet<String>,
    pub volumes: BTreeSet<String>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Session {
    /// Begins a session: asks the engine which version it speaks.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn begin(options: SessionOptions) -> std::io::Result<Arc<Self>> {
        let version = options.upstream.version().await?.min(VERSIONS.1);
        let socket = options.socket.as_deref().and_then(Path::to_str).map(str::to_owned);
        let owner = options.owner.map_or_else(secret, Ok)?;
        let in_container = options.caller.is_some();
        let identity = Identity { owner, socket, in_container, binds: options.binds };
        let burst = options.policy.limits.requests_per_second.map_or(0.0, |rate| f64::from(rate) * 2.0);
        Ok(Arc::new(Self {
            name: options.name,
            policy: options.policy,
            identity,
            upstream: options.upstream,
            caller: options.caller,
            audit: options.audit,
            version,
            seen: Mutex::default(),
            bucket: Mutex::new(Bucket { tokens: burst, filled: Instant::now() }),
        }))
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for the container that the session's requests come from.
    pub(crate) fn is_caller(&self, id: &str) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.id() == id)
    }

    /// Takes one request out of the rate; false where there is none left.
    pub(crate) fn admit(&self) -> bool {
        let Some(rate) = self.policy.limits.requests_per_second.map(f64::from) else { return true };
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        bucket.tokens = (bucket.tokens + (now - bucket.filled).as_secs_f64() * rate).min(rate * 2.0);
        bucket.filled = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }
}

/// 128 bits that nobody guesses: whoever knew a session's label could put it on an image.
fn secret() -> std::io::Result<String> {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
