//! `dory policy`: what a policy file says, and what it would say of a request.

use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use dory_policy::{Facts, Identity, Kind, Need, PathMeaning, Raw, Request, Resolution, Verdict};

use super::load_policy;

/// Check, show and explain policies.
#[derive(Debug, Parser)]
#[command(name = "dory policy", version)]
struct Options {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say whether a file is a policy, and what is wrong where it is not.
    Check {
        /// A file, or the name of a preset.
        policy: String,
    },
    /// Print a preset, to start a file from.
    Show {
        /// read-only, build-only, ci, testcontainers, dev or unrestricted.
        preset: String,
    },
    /// Say what a policy decides about the request on standard input: `METHOD PATH`, and a body behind an empty line.
    Explain {
        /// A file, or the name of a preset.
        policy: String,
    },
}

/// Exit code 0 for a good policy and a permitted request, 1 otherwise.
pub fn main(words: &[OsString]) -> ExitCode {
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    match run(&options.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: &Verb) -> Result<bool> {
    match verb {
        Verb::Check { policy } => {
            let policy = load_policy(policy)?;
            println!("`{}` is a policy: {} groups of endpoints", policy.name, policy.allow.len());
            Ok(true)
        }
        Verb::Show { preset } => {
            let Some(text) = dory_policy::preset_text(preset) else {
                bail!("there is no preset `{preset}`; there are {}", dory_policy::PRESETS.join(", "));
            };
            print!("{text}");
            Ok(true)
        }
        Verb::Explain { policy } => {
            let mut input = String::new();
            std::io::stdin().read_to_string(&mut input).context("cannot read the request")?;
            explain(policy, &input)
        }
    }
}

/// Names are taken for the session's own, paths for what they say: a question about rules, not about objects.
fn explain(policy: &str, input: &str) -> Result<bool> {
    let policy = load_policy(policy)?;
    let (head, body) = input.split_once("\n\n").unwrap_or((input, ""));
    let mut words = head.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        bail!("no `METHOD PATH` in the first line")
    };
    let request = match Request::read(Raw { method, target, body: body.as_bytes(), registry_auth: None }) {
        Ok(request) => request,
        Err(error) => {
            println!("refused (model): {error}");
            return Ok(false);
        }
    };
    for field in &request.dropped {
        println!("dropped: {field}");
    }
    let mut facts = Facts::default();
    loop {
        match policy.judge(&request, &Identity::default(), &facts) {
            Verdict::Permit(permitted) => {
                for change in permitted.changes() {
                    println!("changed ({}): {}", change.rule, change.message);
                }
                println!("sent: {} {}", permitted.method(), permitted.target());
                if let Some(body) = permitted.body() {
                    println!("{}", String::from_utf8_lossy(body));
                }
                return Ok(true);
            }
            Verdict::Refuse(refusal) => {
                println!("refused ({}): {}", refusal.rule, refusal.message);
                return Ok(false);
            }
            Verdict::Needs(needs) => needs.iter().for_each(|need| assume(need, &mut facts)),
        }
    }
}

fn assume(need: &Need, facts: &mut Facts) {
    match need {
        Need::Name(kind, name) => {
            facts.names.insert((*kind, name.clone()), Resolution::Own(name.clone()));
        }
        Need::NewVolume(name) => {
            facts.names.insert((Kind::Volume, name.clone()), Resolution::Own(name.clone()));
        }
        Need::Count(kind) => {
            facts.counts.insert(*kind, 0);
        }
        Need::Path(path) => {
            let socket = matches!(path.as_str(), "/var/run/docker.sock" | "/run/docker.sock");
            let meaning = if socket { PathMeaning::Socket } else { PathMeaning::Host(path.clone()) };
            facts.paths.insert(path.clone(), meaning);
        }
    }
}
