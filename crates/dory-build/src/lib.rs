//! Dockerfiles to images, with or without an engine around: one solver behind every door.
//!
//! ```text
//! Request ─▶ Dockerfile ─▶ graph ─▶ solver ─▶ layers + configuration ─▶ outputs
//!            (dory-dockerfile)        │
//!                                     ├─ cache: key of content ─▶ layer      (in the store)
//!                                     ├─ Context, Secrets, Agents            (lent by the door)
//!                                     ├─ Images: base images, push           (lent by the engine)
//!                                     ├─ Web: files and repositories         (lent by the engine)
//!                                     └─ Executor: the commands of RUN       (lent by the engine)
//! ```
//!
//! All calls block; asynchronous callers make them on threads for that. Nothing here knows HTTP, gRPC or the engine.

mod builder;
mod cache;
mod cancel;
pub mod context;
mod depot;
mod error;
mod executor;
mod git;
mod grant;
mod graph;
mod images;
mod operations;
mod outcome;
mod output;
mod progress;
mod prune;
mod remote;
mod request;
mod solve;
mod web;

pub use builder::Builder;
pub use cancel::Cancel;
pub use depot::{Depot, LayoutDepot, StoredDocument};
pub use error::{BuildError, StepError};
pub use executor::{ExecuteError, Executor, RunCommand, RunEnd, RunMount, RunMountSource, RunObserver};
pub use grant::{Agents, Secrets};
pub use images::{FoundImage, Images, ImagesError, TransferProgress};
pub use outcome::{Outcome, PlatformResult};
pub use output::{Attestor, Output, Provenance, Sink, Statement};
pub use progress::{ClassicEvent, Event, Progress, Quiet, Status, Stream, Vertex};
pub use prune::{CacheEntry, PruneOptions, Pruned, Registered};
pub use remote::RemoteContext;
pub use request::{
    Annotation, CacheLocation, DockerfileSource, Entitlements, NamedContext, NetworkMode, NoCache,
    PullPolicy, Request, RunLimits, Ulimit,
};
pub use web::{Offline, Web, WebAnswer, WebError, WebRequest};
