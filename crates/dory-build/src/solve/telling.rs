//! What the solver tells: vertices and their digests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dory_types::{Digest, Timestamp};

use crate::progress::{ClassicEvent, Event, Progress, Status, Stream, Vertex};

/// Tells one build's events.
#[derive(Debug)]
pub(crate) struct Teller {
    progress: Arc<dyn Progress>,
    vertices: Mutex<HashMap<Digest, Vertex>>,
}

impl Teller {
    pub(crate) fn new(progress: Arc<dyn Progress>) -> Self {
        Self { progress, vertices: Mutex::default() }
    }

    /// A vertex that waits.
    pub(crate) fn plan(&self, name: &str, inputs: Vec<Digest>) -> Digest {
        let digest = Digest::of(name.as_bytes());
        let vertex = Vertex {
            digest,
            inputs,
            name: name.to_owned(),
            started: None,
            completed: None,
            cached: false,
            error: None,
        };
        self.change(digest, |known| *known = vertex.clone(), || vertex.clone());
        digest
    }

    pub(crate) fn start(&self, digest: Digest) {
        self.with(digest, |vertex| vertex.started = Some(Timestamp::now()));
    }

    pub(crate) fn complete(&self, digest: Digest, cached: bool, error: Option<&str>) {
        self.with(digest, |vertex| {
            let now = Timestamp::now();
            vertex.started.get_or_insert(now);
            vertex.completed = Some(now);
            (vertex.cached, vertex.error) = (cached, error.map(str::to_owned));
        });
    }

    /// Does `work` as a vertex of its own.
    pub(crate) fn during<T, E: std::fmt::Display>(
        &self,
        name: &str,
        inputs: Vec<Digest>,
        work: impl FnOnce(Digest) -> Result<T, E>,
    ) -> Result<T, E> {
        let digest = self.plan(name, inputs);
        self.start(digest);
        let result = work(digest);
        let error = result.as_ref().err().map(ToString::to_string);
        self.complete(digest, false, error.as_deref());
        result
    }

    fn with(&self, digest: Digest, change: impl Fn(&mut Vertex)) {
        let mut vertices = self.vertices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vertex) = vertices.get_mut(&digest) {
            change(vertex);
            let told = vertex.clone();
            drop(vertices);
            self.progress.tell(Event::Vertex(told));
        }
    }

    fn change(&self, digest: Digest, change: impl Fn(&mut Vertex), new: impl Fn() -> Vertex) {
        let mut vertices = self.vertices.lock().unwrap_or_else(PoisonError::into_inner);
        let vertex = vertices.entry(digest).or_insert_with(new);
        change(vertex);
        let told = vertex.clone();
        drop(vertices);
        self.progress.tell(Event::Vertex(told));
    }

    pub(crate) fn log(&self, vertex: Digest, stream: Stream, data: &[u8]) {
        self.progress.tell(Event::Log { vertex, stream, data: data.to_vec() });
    }

    pub(crate) fn status(&self, vertex: Digest, id: &str, current: u64, total: u64, done: bool) {
        let now = Timestamp::now();
        self.progress.tell(Event::Status(Status {
            vertex,
            id: id.to_owned(),
            name: id.to_owned(),
            current,
            total,
            started: now,
            completed: done.then_some(now),
        }));
    }

    pub(crate) fn classic(&self, stage: usize, event: ClassicEvent) {
        self.progress.tell(Event::Classic { stage, event });
    }

    pub(crate) fn warn(
        &self,
        vertex: Digest,
        warning: dory_dockerfile::Warning,
        file: &str,
        source: &Arc<str>,
    ) {
        let (file, source) = (file.to_owned(), Arc::clone(source));
        self.progress.tell(Event::Warning { vertex, warning, file, source });
    }
}
