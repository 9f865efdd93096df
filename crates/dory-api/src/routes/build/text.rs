//! The classic builder's text, as a stream of JSON lines (API 1.51, `BuildInfo`).
//!
//! Stages are solved side by side, and the text has one after the other: a stage's lines wait until all before it have
//! ended.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dory_build::{BuildError, ClassicEvent, Event, Outcome, Progress, StepError, Stream};
use dory_types::ImageReference;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::body::json_line;
use super::Line;
use crate::error::ApiError;

/// The text of one build.
#[derive(Debug)]
pub(super) struct ClassicText {
    sender: mpsc::Sender<Line>,
    quiet: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Lines of stages whose turn has not come.
    waiting: BTreeMap<usize, Vec<String>>,
    /// The stage whose lines are told at once.
    current: Option<usize>,
    /// Stages that have ended.
    ended: Vec<usize>,
    /// How many steps each stage has still to tell, and how many it has in all.
    told: bool,
    /// What commands wrote, for a quiet build that fails.
    kept: Vec<String>,
}

impl ClassicText {
    pub(super) fn new(sender: mpsc::Sender<Line>, quiet: bool) -> Self {
        Self { sender, quiet, state: Mutex::default() }
    }

    fn send(&self, value: &Value) {
        // A client that has gone ends the build.
        let _ = self.sender.blocking_send(Line::Text(json_line(value)));
    }

    fn stream(&self, text: &str) {
        self.send(&json!({ "stream": text }));
    }

    fn lines(&self, stage: usize, lines: Vec<String>, ends: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.quiet {
            state.kept.extend(lines);
            return;
        }
        state.told = true;
        let mine = *state.current.get_or_insert(stage) == stage;
        if mine {
            lines.iter().for_each(|line| self.stream(line));
        } else {
            state.waiting.entry(stage).or_default().extend(lines);
        }
        if ends {
            state.ended.push(stage);
        }
        while state.current.is_some_and(|current| state.ended.contains(&current)) {
            let next = state.waiting.pop_first();
            state.current = next.as_ref().map(|(stage, _)| *stage);
            for line in next.into_iter().flat_map(|(_, lines)| lines) {
                self.stream(&line);
            }
        }
    }

    /// The last lines: the image's id and its names.
    pub(super) fn succeed(&self, outcome: &Outcome, names: &[ImageReference]) {
        self.flush();
        let Some(result) = outcome.results.last() else { return };
        let id = format!("sha256:{}", result.id);
        if self.quiet {
            self.stream(&format!("{id}\n"));
            return;
        }
        self.send(&json!({ "aux": { "ID": id } }));
        self.stream(&format!("Successfully built {}\n", result.id.short()));
        for name in names {
            self.stream(&format!("Successfully tagged {}\n", name.familiar()));
        }
    }

    /// The error: the last line, or the answer's status where nothing was said before.
    pub(super) fn fail(&self, error: &BuildError) {
        self.flush();
        let message = message(error);
        let (told, kept) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.told, std::mem::take(&mut state.kept))
        };
        if !told && kept.is_empty() {
            let error = ApiError::new(super::status(error), message);
            let _ = self.sender.blocking_send(Line::Failed(error));
            return;
        }
        kept.iter().for_each(|line| self.stream(line));
        let mut detail = json!({ "message": message });
        if let Some(code) = exit_code(error) {
            detail = json!({ "code": code, "message": message });
        }
        self.send(&json!({ "errorDetail": detail, "error": message }));
    }

    /// Tells what still waits.
    fn flush(&self) {
        let waiting = std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting);
        waiting.into_values().flatten().for_each(|line| self.stream(&line));
    }
}

impl Progress for ClassicText {
    fn tell(&self, event: Event) {
        let Event::Classic { stage, event } = event else { return };
        let lines = match event {
            ClassicEvent::Step { number, total, text } => {
                vec![format!("Step {number}/{total} : {text}"), "\n".to_owned()]
            }
            ClassicEvent::UsingCache => vec![" ---> Using cache\n".to_owned()],
            ClassicEvent::Output(Stream::Stdout, bytes) => vec![String::from_utf8_lossy(&bytes).into_owned()],
            // In red, whether or not anybody has a terminal, as dockerd has it.
            ClassicEvent::Output(Stream::Stderr, bytes) => {
                vec![format!("\x1b[91m{}\x1b[0m", String::from_utf8_lossy(&bytes))]
            }
            ClassicEvent::Running(id) => vec![format!(" ---> Running in {}\n", short(&id))],
            ClassicEvent::Removed(id) => vec![format!("Removing intermediate container {}\n", short(&id))],
            ClassicEvent::Image(id) => vec![format!(" ---> {}\n", short(&id))],
            ClassicEvent::End => return self.lines(stage, Vec::new(), true),
        };
        self.lines(stage, lines, false);
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn exit_code(error: &BuildError) -> Option<i32> {
    let BuildError::Step { cause, .. } = error else { return None };
    match &**cause {
        StepError::Exit { exit_code, .. } => Some(*exit_code),
        _ => None,
    }
}

/// The classic builder's words.
fn message(error: &BuildError) -> String {
    match error {
        BuildError::Step { instruction, cause, .. } => match &**cause {
            StepError::Exit { command, exit_code, .. } => {
                format!("The command '{command}' returned a non-zero code: {exit_code}")
            }
            StepError::Missing { path, pattern: false, .. } => {
                let keyword = instruction.split_whitespace().next().unwrap_or("COPY").to_ascii_uppercase();
                format!(
                    "{keyword} failed: file not found in build context or excluded by .dockerignore: stat {}: file does \
                     not exist",
                    path.trim_start_matches('/')
                )
            }
            StepError::Missing { .. } => "COPY failed: no source files were specified".to_owned(),
            cause => cause.to_string(),
        },
        BuildError::Parse { error, .. } => {
            format!("dockerfile parse error line {}: {}", error.lines.first, error.kind)
        }
        BuildError::Target(target) => format!("failed to reach build target {target} in Dockerfile"),
        BuildError::Dockerfile(message) => {
            match message.strip_prefix("open ").and_then(|rest| rest.split_once(':')) {
                Some((path, _)) => format!("Cannot locate specified Dockerfile: {path}"),
                None => message.clone(),
            }
        }
        error => error.to_string(),
    }
}
