//! What a build tells while it works, in a form from which BuildKit's status, the classic text and progress bars are made.

use std::fmt::Debug;

use dory_dockerfile::Warning;
use dory_types::{Digest, Timestamp};

/// One of the two streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A step as it is displayed. It is told again whenever something in it changes; what is told later counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// Names the vertex within its build, and is the same in the next build of the same.
    pub digest: Digest,
    /// The vertices that it waits for.
    pub inputs: Vec<Digest>,
    /// Such as `[build 2/5] RUN make`, or `[internal] load build context`.
    pub name: String,
    /// When it began; `None` while it waits.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// Its result was there already.
    pub cached: bool,
    /// Why it failed.
    pub error: Option<String>,
}

/// A line of progress within a vertex: a download, a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The vertex.
    pub vertex: Digest,
    /// Names the line within the vertex.
    pub id: String,
    /// Such as `transferring context`; often the same as the id.
    pub name: String,
    /// So far, in bytes or whatever is counted.
    pub current: u64,
    /// Of how many; 0 where that is not known.
    pub total: u64,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub completed: Option<Timestamp>,
}

/// A step of the classic text (`Step 2/3 : RUN make`), which is told beside the vertices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassicEvent {
    /// `Step NUMBER/TOTAL : TEXT`.
    Step {
        /// From 1.
        number: usize,
        /// Of all stages that are built.
        total: usize,
        /// The instruction, its variables not expanded.
        text: String,
    },
    /// ` ---> Using cache`.
    UsingCache,
    /// A command wrote something.
    Output(Stream, Vec<u8>),
    /// ` ---> Running in ID`.
    Running(String),
    /// `Removing intermediate container ID`.
    Removed(String),
    /// ` ---> ID`: what a step made.
    Image(String),
    /// The stage has no more to tell.
    End,
}

/// Something that a build tells.
#[derive(Debug, Clone)]
pub enum Event {
    /// A vertex is new or has changed.
    Vertex(Vertex),
    /// A line of progress is new or has changed.
    Status(Status),
    /// A command of a vertex wrote something.
    Log {
        /// The vertex.
        vertex: Digest,
        /// To which stream.
        stream: Stream,
        /// What; not necessarily a line, nor text.
        data: Vec<u8>,
    },
    /// A check of the Dockerfile found something.
    Warning {
        /// The vertex that it is about.
        vertex: Digest,
        /// What.
        warning: Warning,
        /// The Dockerfile's name.
        file: String,
        /// Its text.
        source: std::sync::Arc<str>,
    },
    /// For the classic text.
    Classic {
        /// The stage's vertex that it belongs to; several stages may tell at the same time.
        stage: usize,
        /// What.
        event: ClassicEvent,
    },
}

/// Takes what a build tells. Called from several threads at once; a call that blocks holds the build up.
pub trait Progress: Debug + Send + Sync {
    /// Something happened.
    fn tell(&self, event: Event);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn tell(&self, _event: Event) {}
}
