//! `dory buildah run`: a command in a working container.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use clap::Args;
use dory_build::{
    BuildError, DockerfileSource, Event, NoCache, Outcome, Progress, Request, StepError, Stream,
};
use dory_engine::Engine;

use super::mounted;
use super::working::{Shelf, Working, extend};
use crate::build;

/// Flags of Buildah's `run`.
#[derive(Debug, Args)]
pub(super) struct RunFlags {
    /// As this user.
    #[arg(short, long)]
    user: Option<String>,
    /// In this directory.
    #[arg(long)]
    workingdir: Option<String>,
    /// Variables for this command alone, `NAME=VALUE`.
    #[arg(short, long)]
    env: Vec<String>,
    /// Network: `none` or `host`.
    #[arg(long, visible_alias = "net")]
    network: Option<String>,
    /// A mount as in a Dockerfile's RUN: `type=cache,target=…`, `type=tmpfs,…`, `type=bind,from=IMAGE,…`.
    #[arg(long)]
    mount: Vec<String>,
    /// How commands are kept apart; there is one way here.
    #[arg(long, value_name = "KIND")]
    isolation: Option<String>,
    /// Terminals are not passed on; `--tty=false` is accepted.
    #[arg(short, long, visible_alias = "terminal", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,
    /// Say in the history what was run; it is always said.
    #[arg(long)]
    add_history: bool,
    /// The working container.
    container: String,
    /// The command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Runs a command; its exit code.
pub(super) fn run(engine: &Engine, shelf: &Shelf, flags: &RunFlags) -> Result<u8> {
    ensure!(flags.tty != Some(true), "--tty is not supported: commands get no terminal here");
    let command: Vec<&String> = match flags.command.split_first() {
        Some((first, rest)) if first == "--" => rest.iter().collect(),
        _ => flags.command.iter().collect(),
    };
    ensure!(!command.is_empty(), "there is no command to run");
    let mut lines = String::new();
    if let Some(user) = &flags.user {
        lines.push_str(&format!("USER {}\n", word(user)));
    }
    if let Some(directory) = &flags.workingdir {
        lines.push_str(&format!("WORKDIR {}\n", word(directory)));
    }
    for variable in &flags.env {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (variable.as_str(), std::env::var(variable).unwrap_or_default()),
        };
        lines.push_str(&format!("ENV {name}={}\n", quoted(&value)));
    }
    lines.push_str("RUN ");
    if let Some(network) = &flags.network {
        match network.as_str() {
            "none" | "host" => lines.push_str(&format!("--network={network} ")),
            "default" | "bridge" | "private" => {}
            other => bail!("--network={other} is not supported"),
        }
    }
    for mount in &flags.mount {
        lines.push_str(&format!("--mount={mount} "));
    }
    lines.push_str(&list(&command)?);
    let mut working = shelf.find(&flags.container)?;
    let request = Request {
        no_cache: NoCache::All,
        // Whoever types the flag grants it.
        entitlements: dory_build::Entitlements {
            network_host: flags.network.as_deref() == Some("host"),
            security_insecure: false,
        },
        ..Request::default()
    };
    let said =
        format!("buildah run {}", command.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" "));
    match step(engine, shelf, &mut working, &lines, request, &said)? {
        Stepped::Done => Ok(0),
        Stepped::Exited(code) => {
            eprintln!("Error: exit status {code}");
            Ok(u8::try_from(code).unwrap_or(u8::MAX))
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stepped {
    /// Its changes are the container's.
    Done,
    /// Its command failed with this status; nothing has changed.
    Exited(i32),
}

/// Does the lines of a Dockerfile upon a working container, of which the files are taken over and nothing else.
pub(super) fn step(
    engine: &Engine,
    shelf: &Shelf,
    working: &mut Working,
    lines: &str,
    request: Request,
    said: &str,
) -> Result<Stepped> {
    mounted::take_over(shelf, working)?;
    let content = format!("FROM {}\n{lines}\n", working.image).into_bytes();
    let request =
        Request { dockerfile: DockerfileSource::Inline { name: "buildah".to_owned(), content }, ..request };
    let progress: Arc<dyn Progress> = Arc::new(Output);
    let outcome = match build::solve(engine, request, &progress)? {
        Ok(outcome) => outcome,
        Err(error) => match exit_code(&error) {
            Some(code) => return Ok(Stepped::Exited(code)),
            None => bail!("{error}"),
        },
    };
    let Outcome { results, .. } = outcome;
    let Some(result) = results.into_iter().next() else { bail!("the step has no result") };
    let mut config = shelf.config(working)?;
    extend(&mut config, &result.layers, said);
    shelf.change(working, &config, result.layers)?;
    mounted::renew(shelf, working)?;
    Ok(Stepped::Done)
}

fn exit_code(error: &BuildError) -> Option<i32> {
    let BuildError::Step { cause, .. } = error else { return None };
    match **cause {
        StepError::Exit { exit_code, .. } => Some(exit_code),
        _ => None,
    }
}

/// Passes on what commands write, and nothing else.
#[derive(Debug)]
struct Output;

impl Progress for Output {
    fn tell(&self, event: Event) {
        let Event::Log { stream, data, .. } = event else { return };
        // A reader that is gone reads nothing; the command goes on.
        let _ = match stream {
            Stream::Stdout => io::stdout().write_all(&data).and_then(|()| io::stdout().flush()),
            Stream::Stderr => io::stderr().write_all(&data),
        };
    }
}

/// A JSON list in which no heredoc can be found.
pub(super) fn list<T: AsRef<str>>(words: &[T]) -> Result<String> {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    Ok(serde_json::to_string(&words)?.replace('<', "\\u003c"))
}

/// A word in which nothing is expanded.
pub(super) fn word(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | '$' | '"' | '\'' | ' ') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// A value in quotes, in which nothing is expanded.
fn quoted(text: &str) -> String {
    let mut escaped = String::from("\"");
    for character in text.chars() {
        if matches!(character, '\\' | '$' | '"') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_themselves() {
        assert_eq!(word("a $b\\c"), "a\\ \\$b\\\\c");
        assert_eq!(quoted("x \"y\" $z"), "\"x \\\"y\\\" \\$z\"");
        assert_eq!(list(&["sh", "-c", "cat <<E"]).unwrap(), "[\"sh\",\"-c\",\"cat \\u003c\\u003cE\"]");
    }
}
