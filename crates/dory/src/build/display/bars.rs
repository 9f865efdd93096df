//! Progress on a terminal: a line for each step, redrawn in place, with the last lines of what runs.
//!
//! ```text
//! [+] Building 3.2s (4/7)
//!  => [internal] load build context                       0.1s
//!  => CACHED [build 2/3] COPY src /src                     0.0s
//!  => [build 3/3] RUN make                                 2.9s
//!  => => cc -O2 -c main.c
//! ```

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dory_build::{Event, Progress, Vertex};
use dory_types::{Digest, Timestamp};

/// Between two drawings.
const TICK: Duration = Duration::from_millis(100);
/// Lines of output that a running step shows.
const TAIL: usize = 6;
/// Columns where nobody knows how many there are.
const COLUMNS: usize = 80;
/// Lines where nobody knows how many there are.
const ROWS: usize = 24;
/// Columns of a duration.
const TIME: usize = 8;

/// Draws on standard error until it is dropped.
#[derive(Debug)]
pub struct Bars {
    steps: Arc<Mutex<Steps>>,
    /// Its end ends the drawing.
    running: Option<Sender<()>>,
    drawer: Option<JoinHandle<()>>,
}

/// All that is known.
#[derive(Debug)]
struct Steps {
    began: Timestamp,
    order: Vec<Digest>,
    steps: HashMap<Digest, Step>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Step {
    vertex: Vertex,
    /// The last lines of its output; the last one may have no end yet.
    tail: VecDeque<String>,
    /// Transfers, by their ids, in their order.
    transfers: Vec<(String, String)>,
}

impl Default for Bars {
    fn default() -> Self {
        let steps =
            Steps { began: Timestamp::now(), order: Vec::new(), steps: HashMap::new(), warnings: Vec::new() };
        let steps = Arc::new(Mutex::new(steps));
        let (running, ended) = channel::<()>();
        let drawn = Arc::clone(&steps);
        let drawer = std::thread::spawn(move || {
            let mut height = 0;
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                height = draw(&lock(&drawn), height, false);
            }
            draw(&lock(&drawn), height, true);
        });
        Self { steps, running: Some(running), drawer: Some(drawer) }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        drop(self.running.take());
        if let Some(drawer) = self.drawer.take() {
            // A drawer that panicked has nothing left to draw.
            let _ = drawer.join();
        }
    }
}

fn lock(steps: &Mutex<Steps>) -> MutexGuard<'_, Steps> {
    steps.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress for Bars {
    fn tell(&self, event: Event) {
        lock(&self.steps).take(event);
    }
}

impl Steps {
    fn take(&mut self, event: Event) {
        match event {
            Event::Vertex(vertex) => {
                if !self.steps.contains_key(&vertex.digest) {
                    self.order.push(vertex.digest);
                }
                let step = self.steps.entry(vertex.digest).or_insert_with(|| Step {
                    vertex: vertex.clone(),
                    tail: VecDeque::new(),
                    transfers: Vec::new(),
                });
                step.vertex = vertex;
            }
            Event::Log { vertex, data, .. } => {
                if let Some(step) = self.steps.get_mut(&vertex) {
                    step.log(&String::from_utf8_lossy(&data));
                }
            }
            Event::Status(status) => {
                let Some(step) = self.steps.get_mut(&status.vertex) else { return };
                let text = match status.total {
                    0 if status.current == 0 => status.name.clone(),
                    0 => format!("{} {}", status.name, bytes(status.current)),
                    total => format!("{} {} / {}", status.name, bytes(status.current), bytes(total)),
                };
                match step.transfers.iter_mut().find(|(id, _)| *id == status.id) {
                    Some((_, shown)) => *shown = text,
                    None => step.transfers.push((status.id, text)),
                }
            }
            Event::Warning { warning, .. } => self.warnings.push(warning.to_string()),
            Event::Classic { .. } => {}
        }
    }

    /// What is shown; `complete` for the last time, when nothing is left out.
    fn frame(&self, now: Timestamp, columns: usize, rows: usize, complete: bool) -> Vec<String> {
        let shown: Vec<&Step> = self.order.iter().filter_map(|digest| self.steps.get(digest)).collect();
        let shown: Vec<&Step> = shown.into_iter().filter(|step| step.vertex.started.is_some()).collect();
        let done = shown.iter().filter(|step| step.vertex.completed.is_some()).count();
        let state = if complete { "Finished" } else { "Building" };
        let time = now.since(self.began).as_secs_f64();
        let mut lines = vec![format!("[+] {state} {time:.1}s ({done}/{})", self.order.len())];
        let mut body = Vec::new();
        for step in shown {
            step.lines(now, columns, &mut body);
        }
        body.extend(self.warnings.iter().map(|warning| cut(&format!(" ! {warning}"), columns)));
        // What does not fit is what ended first.
        let left_out = if complete { 0 } else { body.len().saturating_sub(rows.saturating_sub(2)) };
        lines.extend(body.drain(left_out..));
        lines
    }
}

impl Step {
    fn log(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            match self.tail.back_mut() {
                Some(last) if !last.ends_with('\n') => last.push_str(piece),
                _ => self.tail.push_back(piece.to_owned()),
            }
        }
        while self.tail.len() > TAIL {
            self.tail.pop_front();
        }
    }

    fn lines(&self, now: Timestamp, columns: usize, lines: &mut Vec<String>) {
        let Vertex { started, completed, cached, error, name, .. } = &self.vertex;
        let begun = started.unwrap_or(now);
        let time = format!("{:.1}s", completed.unwrap_or(now).since(begun).as_secs_f64());
        let mark = match (error, cached) {
            (Some(_), _) => "ERROR ",
            (None, true) => "CACHED ",
            (None, false) => "",
        };
        let width = columns.saturating_sub(TIME);
        let text = cut(&format!(" => {mark}{name}"), width);
        lines.push(format!("{text:width$}{time:>TIME$}"));
        if completed.is_none() {
            lines.extend(self.transfers.iter().map(|(_, text)| cut(&format!(" => => {text}"), columns)));
            lines.extend(self.tail.iter().map(|line| cut(&format!(" => => {line}"), columns)));
        }
    }
}

/// As much of a line as fits, without what would move the cursor.
fn cut(text: &str, columns: usize) -> String {
    let visible = text.chars().map(|character| if character == '\t' { ' ' } else { character });
    visible.filter(|character| !character.is_control()).take(columns).collect()
}

/// Bytes in decimal units, as docker prints them.
fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["B", "kB", "MB", "GB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{number}B") } else { format!("{value:.2}{}", UNITS[unit]) }
}

/// Draws over the `height` lines that were drawn before; how many there are now.
fn draw(steps: &Steps, height: usize, complete: bool) -> usize {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stderr()).ok();
    let or = |number: Option<u16>, default| number.map(usize::from).filter(|n| *n > 0).unwrap_or(default);
    let columns = or(size.map(|size| size.ws_col), COLUMNS);
    let rows = or(size.map(|size| size.ws_row), ROWS);
    let lines = steps.frame(Timestamp::now(), columns, rows, complete);
    let up = if height > 0 { format!("\x1b[{height}A") } else { String::new() };
    let text = format!("{up}\r\x1b[0J{}\n", lines.join("\n"));
    // A terminal that is gone shows nothing; the build goes on.
    let _ = io::stderr().write_all(text.as_bytes());
    lines.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(name: &str, started: i64, completed: Option<i64>) -> Vertex {
        Vertex {
            digest: Digest::of(name.as_bytes()),
            inputs: Vec::new(),
            name: name.to_owned(),
            started: Timestamp::from_unix(started, 0),
            completed: completed.and_then(|at| Timestamp::from_unix(at, 0)),
            cached: false,
            error: None,
        }
    }

    fn steps() -> Steps {
        let began = Timestamp::from_unix(100, 0).unwrap();
        Steps { began, order: Vec::new(), steps: HashMap::new(), warnings: Vec::new() }
    }

    #[test]
    fn steps_are_lines_and_what_runs_shows_its_output() {
        let mut steps = steps();
        steps.take(Event::Vertex(vertex("[1/2] FROM x", 100, Some(101))));
        steps.take(Event::Vertex(vertex("[2/2] RUN make", 101, None)));
        let log = |text: &str| Event::Log {
            vertex: Digest::of(b"[2/2] RUN make"),
            stream: dory_build::Stream::Stdout,
            data: text.as_bytes().to_vec(),
        };
        steps.take(log("one\ntw"));
        steps.take(log("o\n\x1b[31mred\n"));
        let frame = steps.frame(Timestamp::from_unix(103, 0).unwrap(), 30, 24, false);
        assert_eq!(
            frame,
            [
                "[+] Building 3.0s (1/2)",
                " => [1/2] FROM x          1.0s",
                " => [2/2] RUN make        2.0s",
                " => => one",
                " => => two",
                " => => [31mred",
            ]
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_but_at_the_end() {
        let mut steps = steps();
        for number in 0..50 {
            steps.take(Event::Vertex(vertex(&format!("step {number}"), 100, Some(100))));
        }
        let now = Timestamp::from_unix(100, 0).unwrap();
        let frame = steps.frame(now, 40, 10, false);
        assert_eq!(frame.len(), 9);
        assert!(frame[8].starts_with(" => step 49"));
        assert_eq!(steps.frame(now, 40, 10, true).len(), 51);
    }

    #[test]
    fn sizes_are_short() {
        for (number, text) in [(999, "999B"), (1500, "1.50kB"), (2_000_000_000_000, "2000.00GB")] {
            assert_eq!(bytes(number), text);
        }
    }
}
