//! Progress as lines, in the form that people know from BuildKit's plain display, as JSON, and drawn on a terminal.

mod bars;

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use dory_build::{Event, Progress, Vertex};
use dory_types::{Digest, Timestamp};
use serde_json::json;

pub use bars::Bars;

/// Lines on standard error: `#3 [2/5] RUN make`, `#3 0.512 gcc ...`, `#3 DONE 1.2s`.
#[derive(Debug, Default)]
pub struct Plain(Mutex<HashMap<Digest, Shown>>);

#[derive(Debug)]
struct Shown {
    number: usize,
    started: Timestamp,
    /// A line that has no end yet.
    rest: String,
}

impl Progress for Plain {
    fn tell(&self, event: Event) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match event {
            Event::Vertex(vertex) => vertex_lines(&mut shown, &vertex),
            Event::Log { vertex, data, .. } => {
                shown.get_mut(&vertex).map(|shown| log_lines(shown, &data)).unwrap_or_default()
            }
            Event::Warning { warning, .. } => format!(" - {warning}\n"),
            Event::Status(status) if status.completed.is_some() => match shown.get(&status.vertex) {
                Some(shown) => format!("#{} {}\n", shown.number, status.name),
                None => String::new(),
            },
            Event::Status(_) | Event::Classic { .. } => String::new(),
        };
        // A terminal that is gone shows nothing; the build goes on.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

fn vertex_lines(all: &mut HashMap<Digest, Shown>, vertex: &Vertex) -> String {
    let Some(started) = vertex.started else { return String::new() };
    let mut text = String::new();
    let next = all.len() + 1;
    let shown = all.entry(vertex.digest).or_insert_with(|| {
        text = format!("#{next} {}\n", vertex.name);
        Shown { number: next, started, rest: String::new() }
    });
    let Some(completed) = vertex.completed else { return text };
    let number = shown.number;
    if !shown.rest.is_empty() {
        text.push_str(&format!("#{number} {}\n", std::mem::take(&mut shown.rest)));
    }
    let end = match (&vertex.error, vertex.cached) {
        (Some(error), _) => format!("ERROR: {error}"),
        (None, true) => "CACHED".to_owned(),
        (None, false) => format!("DONE {:.1}s", completed.since(started).as_secs_f64()),
    };
    text + &format!("#{number} {end}\n\n")
}

fn log_lines(shown: &mut Shown, data: &[u8]) -> String {
    let time = Timestamp::now().since(shown.started).as_secs_f64();
    let mut text = String::new();
    for piece in String::from_utf8_lossy(data).split_inclusive('\n') {
        match piece.strip_suffix('\n') {
            Some(end) => {
                let line = std::mem::take(&mut shown.rest) + end;
                text.push_str(&format!("#{} {time:.3} {line}\n", shown.number));
            }
            None => shown.rest.push_str(piece),
        }
    }
    text
}

/// One JSON object for each event, with BuildKit's field names (`moby.buildkit.v1.StatusResponse`).
#[derive(Debug, Clone, Copy)]
pub struct RawJson;

impl Progress for RawJson {
    fn tell(&self, event: Event) {
        let value = match event {
            Event::Vertex(vertex) => json!({ "vertexes": [{
                "digest": vertex.digest,
                "inputs": vertex.inputs,
                "name": vertex.name,
                "started": vertex.started,
                "completed": vertex.completed,
                "cached": vertex.cached,
                "error": vertex.error.unwrap_or_default(),
            }]}),
            Event::Status(status) => json!({ "statuses": [{
                "id": status.id,
                "vertex": status.vertex,
                "name": status.name,
                "current": status.current,
                "total": status.total,
                "timestamp": Timestamp::now(),
                "started": status.started,
                "completed": status.completed,
            }]}),
            Event::Log { vertex, stream, data } => json!({ "logs": [{
                "vertex": vertex,
                "stream": if stream == dory_build::Stream::Stdout { 1 } else { 2 },
                "data": String::from_utf8_lossy(&data),
                "timestamp": Timestamp::now(),
            }]}),
            Event::Warning { vertex, warning, file, .. } => json!({ "warnings": [{
                "vertex": vertex,
                "short": warning.to_string(),
                "url": warning.url(),
                "file": file,
            }]}),
            Event::Classic { .. } => return,
        };
        // A reader that is gone reads nothing; the build goes on.
        let _ = writeln!(io::stderr(), "{value}");
    }
}
