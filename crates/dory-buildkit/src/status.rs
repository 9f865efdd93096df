//! What a build told so far, in BuildKit's messages, for everybody who asks and whenever they ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::google::protobuf;
use bollard_buildkit_proto::moby::buildkit::v1::{
    StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning,
};
use bollard_buildkit_proto::pb;
use dory_build::{Event, Progress, Status, Stream};
use dory_dockerfile::{LineRange, Warning};
use dory_types::{Digest, Timestamp};
use prost::Message;
use tokio::sync::watch;

/// Most bytes of one step's output that are kept; BuildKit's own limit.
const LOG_LIMIT: usize = 2 << 20;
/// Pieces in one message: far below gRPC's limit with ordinary lines.
const PIECES: usize = 1000;
/// Bytes of output in one message, about.
const MESSAGE_BYTES: usize = 1 << 20;

/// The story of one build.
#[derive(Debug)]
pub struct StatusLog {
    told: Mutex<Told>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Told {
    pieces: Vec<Piece>,
    /// Bytes of output of each step.
    written: HashMap<Digest, usize>,
    counts: Counts,
    seen: HashMap<Digest, (bool, bool)>,
    ended: bool,
}

/// How many steps a build had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub total: usize,
    /// Those that are done.
    pub completed: usize,
    /// Those whose results were there.
    pub cached: usize,
    /// Warnings.
    pub warnings: usize,
}

/// One thing told.
#[derive(Debug, Clone)]
enum Piece {
    Vertex(Vertex),
    Status(VertexStatus),
    Log(VertexLog),
    Warning(Box<VertexWarning>),
}

impl Default for StatusLog {
    fn default() -> Self {
        Self { told: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl StatusLog {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a warning of the client's own.
    pub fn warn(&self, warning: VertexWarning) {
        let mut told = self.lock();
        told.counts.warnings += 1;
        told.pieces.push(Piece::Warning(Box::new(warning)));
        drop(told);
        self.changed.send_replace(());
    }

    /// Says that nothing more is told.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.send_replace(());
    }

    /// How many steps there were so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Reads from the beginning.
    pub fn follow(self: &Arc<Self>) -> Follower {
        Follower { log: self.clone(), changed: self.changed.subscribe(), next: 0 }
    }
}

impl Told {
    fn tell(&mut self, event: Event) {
        match event {
            Event::Vertex(vertex) => {
                self.count(&vertex);
                self.pieces.push(Piece::Vertex(to_vertex(vertex)));
            }
            Event::Status(status) => self.pieces.push(Piece::Status(to_status(status))),
            Event::Log { vertex, stream, data } => self.log(vertex, stream, data),
            Event::Warning { vertex, warning, file, source } => {
                self.counts.warnings += 1;
                let warning = to_warning(&vertex, &warning, file, &source);
                self.pieces.push(Piece::Warning(Box::new(warning)));
            }
            // For the classic text alone.
            Event::Classic { .. } => {}
        }
    }

    fn count(&mut self, vertex: &dory_build::Vertex) {
        let is_new = !self.seen.contains_key(&vertex.digest);
        let (completed, cached) = self.seen.entry(vertex.digest).or_default();
        self.counts.total += usize::from(is_new);
        self.counts.completed += usize::from(vertex.completed.is_some() && !*completed);
        self.counts.cached += usize::from(vertex.cached && !*cached);
        (*completed, *cached) = (vertex.completed.is_some(), vertex.cached);
    }

    fn log(&mut self, vertex: Digest, stream: Stream, mut data: Vec<u8>) {
        let written = self.written.entry(vertex).or_default();
        if *written >= LOG_LIMIT {
            return;
        }
        *written += data.len();
        if *written >= LOG_LIMIT {
            data.truncate(data.len() - (*written - LOG_LIMIT));
            data.extend_from_slice(b"\n[output clipped, log limit 2MiB reached]\n");
        }
        let stream = match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let timestamp = Some(to_timestamp(Timestamp::now()));
        self.pieces.push(Piece::Log(VertexLog { vertex: vertex.to_string(), timestamp, stream, msg: data }));
    }
}

impl Progress for StatusLog {
    fn tell(&self, event: Event) {
        self.lock().tell(event);
        self.changed.send_replace(());
    }
}

/// Somebody who reads the story.
#[derive(Debug)]
pub struct Follower {
    log: Arc<StatusLog>,
    changed: watch::Receiver<()>,
    next: usize,
}

impl Follower {
    /// What was told since the last time, as one message; waits for something. Nothing at the end.
    pub async fn next(&mut self) -> Option<StatusResponse> {
        loop {
            self.changed.borrow_and_update();
            if let Some(next) = self.take() {
                return next;
            }
            // The log is ours too, so its sender cannot be gone.
            self.changed.changed().await.ok()?;
        }
    }

    /// The same as bytes.
    pub async fn next_encoded(&mut self) -> Option<Vec<u8>> {
        self.next().await.map(|message| message.encode_to_vec())
    }

    /// What is there; `Some(None)` at the end, `None` where there is nothing yet.
    fn take(&mut self) -> Option<Option<StatusResponse>> {
        let told = self.log.lock();
        if self.next == told.pieces.len() {
            return told.ended.then_some(None);
        }
        let mut message = StatusResponse::default();
        let mut bytes = 0;
        for piece in told.pieces[self.next..].iter().take(PIECES) {
            self.next += 1;
            match piece.clone() {
                Piece::Vertex(vertex) => message.vertexes.push(vertex),
                Piece::Status(status) => message.statuses.push(status),
                Piece::Warning(warning) => message.warnings.push(*warning),
                Piece::Log(log) => {
                    bytes += log.msg.len();
                    message.logs.push(log);
                }
            }
            if bytes >= MESSAGE_BYTES {
                break;
            }
        }
        Some(Some(message))
    }
}

/// A time as protobuf has it.
pub fn to_timestamp(time: Timestamp) -> protobuf::Timestamp {
    protobuf::Timestamp {
        seconds: time.unix_seconds(),
        nanos: i32::try_from(time.subsecond_nanoseconds()).unwrap_or_default(),
    }
}

fn to_vertex(vertex: dory_build::Vertex) -> Vertex {
    Vertex {
        digest: vertex.digest.to_string(),
        inputs: vertex.inputs.iter().map(Digest::to_string).collect(),
        name: vertex.name,
        cached: vertex.cached,
        started: vertex.started.map(to_timestamp),
        completed: vertex.completed.map(to_timestamp),
        error: vertex.error.unwrap_or_default(),
        progress_group: None,
    }
}

fn to_status(status: Status) -> VertexStatus {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    VertexStatus {
        id: status.id,
        vertex: status.vertex.to_string(),
        name: status.name,
        current: number(status.current),
        total: number(status.total),
        timestamp: Some(to_timestamp(Timestamp::now())),
        started: Some(to_timestamp(status.started)),
        completed: status.completed.map(to_timestamp),
    }
}

fn to_warning(vertex: &Digest, warning: &Warning, file: String, source: &str) -> VertexWarning {
    VertexWarning {
        vertex: vertex.to_string(),
        level: 1,
        short: format!("{}: {} (line {})", warning.rule, warning.message, warning.lines.first).into_bytes(),
        detail: vec![warning.description.as_bytes().to_vec()],
        url: warning.url(),
        info: Some(source_info(file, source)),
        ranges: vec![range(warning.lines)],
    }
}

/// A Dockerfile that messages point into.
pub fn source_info(file: String, source: &str) -> pb::SourceInfo {
    pb::SourceInfo {
        filename: file,
        data: source.as_bytes().to_vec(),
        definition: None,
        language: "Dockerfile".to_owned(),
    }
}

/// Lines of a Dockerfile.
pub fn range(lines: LineRange) -> pb::Range {
    let position =
        |line: u32| Some(pb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
    pb::Range { start: position(lines.first), end: position(lines.last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(name: &str, completed: bool) -> Event {
        let time = Timestamp::from_unix(5, 7);
        Event::Vertex(dory_build::Vertex {
            digest: Digest::of(name.as_bytes()),
            inputs: Vec::new(),
            name: name.to_owned(),
            started: time,
            completed: time.filter(|_| completed),
            cached: completed,
            error: None,
        })
    }

    #[tokio::test]
    async fn everybody_hears_everything_in_order() {
        let log = Arc::new(StatusLog::default());
        log.tell(vertex("a", false));
        let mut early = log.follow();
        assert_eq!(early.next().await.unwrap().vertexes[0].name, "a");
        let waiting = tokio::spawn(async move {
            let next = early.next().await.unwrap();
            (next, early.next().await)
        });
        tokio::task::yield_now().await;
        log.tell(vertex("a", true));
        log.end();
        let (next, end) = waiting.await.unwrap();
        assert!(next.vertexes[0].cached && end.is_none());
        let mut late = log.follow();
        assert_eq!(late.next().await.unwrap().vertexes.len(), 2);
        assert!(late.next().await.is_none());
        assert_eq!(log.counts(), Counts { total: 1, completed: 1, cached: 1, warnings: 0 });
    }

    #[tokio::test]
    async fn endless_output_is_clipped() {
        let log = Arc::new(StatusLog::default());
        let digest = Digest::of(b"x");
        for _ in 0..40 {
            log.tell(Event::Log { vertex: digest, stream: Stream::Stdout, data: vec![b'x'; 100_000] });
        }
        log.end();
        let mut follower = log.follow();
        let (mut bytes, mut messages) = (0, 0);
        while let Some(message) = follower.next().await {
            messages += 1;
            bytes += message.logs.iter().map(|log| log.msg.len()).sum::<usize>();
        }
        assert!(messages > 1 && (LOG_LIMIT..LOG_LIMIT + 100).contains(&bytes), "{messages} {bytes}");
    }
}
