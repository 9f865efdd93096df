//! The JSON messages in which the engine tells of long work.

use std::io::{self, Write};

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::client::ConnectionLost;
use crate::failure::{Exit, code};
use crate::terminal;

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Standard output, redrawn in place on a terminal.
    Stdout,
    /// Standard error, line by line.
    Stderr,
    /// Only failures are told.
    Quiet,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    stream: String,
    status: String,
    id: String,
    progress: String,
    error: String,
    #[serde(rename = "progressDetail")]
    detail: Option<Detail>,
    #[serde(rename = "errorDetail")]
    error_detail: Option<ErrorDetail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    current: u64,
    total: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorDetail {
    message: String,
}

/// Shows the messages of `response` until it ends.
///
/// # Errors
/// The failure that a message tells of, as the engine words it.
pub(super) async fn show(response: Response<Incoming>, progress: Progress) -> Result<()> {
    let mut body = response.into_body();
    let mut screen = Screen {
        progress,
        redraws: progress == Progress::Stdout && terminal::stdout_is_terminal(),
        lines: Vec::new(),
    };
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.context(ConnectionLost)?.into_data() else { continue };
        text.extend_from_slice(&bytes);
        // Messages may follow each other with or without a line's end between them.
        let mut messages = serde_json::Deserializer::from_slice(&text).into_iter::<Message>();
        let mut consumed = 0;
        while let Some(Ok(message)) = messages.next() {
            consumed = messages.byte_offset();
            screen.show(&message)?;
        }
        text.drain(..consumed);
    }
    anyhow::ensure!(text.trim_ascii().is_empty(), "the engine's answer ended in the middle of a message");
    Ok(())
}

struct Screen {
    progress: Progress,
    redraws: bool,
    /// Ids in the order of their lines.
    lines: Vec<String>,
}

impl Screen {
    fn show(&mut self, message: &Message) -> Result<()> {
        let error = message.error_detail.as_ref().map_or(message.error.as_str(), |detail| &detail.message);
        if !error.is_empty() {
            return Err(Exit { text: error.to_owned(), code: code::FAILED }.into());
        }
        let text = match message {
            Message { stream, .. } if !stream.is_empty() => stream.clone(),
            // Facts for programs.
            Message { status, .. } if status.is_empty() => return Ok(()),
            Message { status, id, .. } if id.is_empty() => format!("{status}\n"),
            Message { status, id, .. } => format!("{id}: {status}{}\n", self.bar(message)),
        };
        match self.progress {
            Progress::Quiet => Ok(()),
            Progress::Stderr if is_step(message) => Ok(()),
            Progress::Stderr => {
                io::stderr().write_all(text.as_bytes()).context("cannot write to standard error")
            }
            Progress::Stdout if !self.redraws && is_step(message) => Ok(()),
            Progress::Stdout => self.draw(&message.id, &text),
        }
    }

    /// Draws over the line of `id`, or begins a new one.
    fn draw(&mut self, id: &str, text: &str) -> Result<()> {
        let mut output = io::stdout().lock();
        let position =
            (self.redraws && !id.is_empty()).then(|| self.lines.iter().position(|line| line == id));
        let drawn = match position.flatten() {
            Some(index) => {
                let up = self.lines.len() - index;
                write!(output, "\x1b[{up}A\x1b[2K\r{}\x1b[{up}B\r", text.trim_end())
            }
            None => {
                if self.redraws {
                    self.lines.push(id.to_owned());
                }
                output.write_all(text.as_bytes())
            }
        };
        drawn.and_then(|()| output.flush()).context("cannot write to standard output")
    }

    fn bar(&self, message: &Message) -> String {
        match &message.detail {
            _ if !message.progress.is_empty() => format!(" {}", message.progress),
            Some(Detail { current, total }) if *total > 0 && self.redraws => {
                let (current, total) =
                    (crate::units::short_size(*current as f64), crate::units::short_size(*total as f64));
                format!(" {current}/{total}")
            }
            _ => String::new(),
        }
    }
}

/// A message that is only worth redrawing.
fn is_step(message: &Message) -> bool {
    message.detail.as_ref().is_some_and(|detail| detail.total > 0)
}
