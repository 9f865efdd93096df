//! Many containers: how long the engine takes to list, inspect, start and find them again.
//!
//! Dory alone: dockerd needs a quarter of an hour to make and start as many. Requests go over the engine's socket, one
//! connection each, without a docker command around them.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{Table, milliseconds};
use crate::engine::Engine;

/// No request takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a question is asked.
const ROUNDS: usize = 11;

/// How many there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// Containers on the disk.
    pub(super) stopped: usize,
    /// How many of them are started.
    pub(super) running: usize,
}

/// Makes the containers on `engine`, which runs and has the image `busybox`, and measures.
pub(super) fn run(engine: &mut Engine, scale: Scale, table: &mut Table) -> Result<()> {
    let Scale { stopped, running } = scale;
    ensure!(running <= stopped, "only what is there can be started");
    let made = (0..stopped).map(|number| create(&engine.socket, number)).collect::<Result<Vec<f64>>>()?;
    row(table, "create, ms each", made);
    ask(&engine.socket, table, &format!("with {stopped} stopped"))?;
    row(table, &format!("open with {stopped} stopped, ms"), reopen(engine)?);
    let started = (0..running)
        .map(|number| timed(&engine.socket, "POST", &format!("/containers/scale-{number}/start"), ""))
        .collect::<Result<Vec<f64>>>()?;
    row(table, "start, ms each", started);
    ask(&engine.socket, table, &format!("with {running} running"))?;
    row(table, &format!("open with {running} running, ms"), reopen(engine)?);
    let found = request(&engine.socket, "GET", "/containers/json", "")?;
    let found: Vec<serde_json::Value> = serde_json::from_slice(&found)?;
    ensure!(found.len() == running, "{} of {running} run after the engine was killed", found.len());
    let removed = (0..stopped)
        .map(|number| timed(&engine.socket, "DELETE", &format!("/containers/scale-{number}?force=1&v=1"), ""))
        .collect::<Result<Vec<f64>>>()?;
    row(table, "remove, ms each", removed);
    Ok(())
}

fn create(socket: &Path, number: usize) -> Result<f64> {
    let body = r#"{"Image":"busybox","Cmd":["sleep","100000"]}"#;
    timed(socket, "POST", &format!("/containers/create?name=scale-{number}"), body)
}

/// Asks what people ask all the time.
fn ask(socket: &Path, table: &mut Table, when: &str) -> Result<()> {
    for (what, path) in [
        ("list all", "/containers/json?all=1"),
        ("list those that run", "/containers/json"),
        ("inspect by name", "/containers/scale-0/json"),
    ] {
        let times = (0..ROUNDS).map(|_| timed(socket, "GET", path, "")).collect::<Result<Vec<f64>>>()?;
        row(table, &format!("{what} {when}, ms"), times);
    }
    Ok(())
}

/// Kills the engine; the time to the next one's first answer.
fn reopen(engine: &mut Engine) -> Result<Vec<f64>> {
    (0..3)
        .map(|_| {
            engine.stop(Signal::KILL)?;
            Ok(milliseconds(engine.start()?))
        })
        .collect()
}

fn row(table: &mut Table, what: &str, times: Vec<f64>) {
    table.row(what, times, vec![], vec![]);
}

fn timed(socket: &Path, method: &str, path: &str, body: &str) -> Result<f64> {
    let began = Instant::now();
    request(socket, method, path, body)?;
    Ok(milliseconds(began.elapsed()))
}

/// One request on a connection of its own; the answer's body, which HTTP/1.0 keeps free of chunks.
fn request(socket: &Path, method: &str, path: &str, body: &str) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head =
        answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("an answer without a head")?;
    let text = String::from_utf8_lossy(&answer[..head]).into_owned();
    let content = answer.split_off(head + 4);
    let status = text.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "`{method} {path}`: {text}\n{}", String::from_utf8_lossy(&content));
    Ok(content)
}
