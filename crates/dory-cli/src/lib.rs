//! Docker's verbs on the command line, through the API.
//!
//! A thin client: it reads flags ([`flags`](mod@flags)), makes one request or a few ([`client`](mod@client)), and
//! prints the answer in Docker's own forms. It holds no state and knows nothing of how the engine works, so it drives
//! any Docker-compatible engine. Where no engine is named and none answers, it asks an [`EngineStarter`] for one.
//!
//! Data goes to standard output and everything else to standard error; a closed pipe is no error; exit codes are
//! Docker's.

mod client;
mod command;
mod commands;
mod create;
mod data;
mod endpoint;
mod failure;
mod flags;
mod listing;
mod session;
mod table;
mod template;
mod terminal;
mod tls;
mod units;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use dory_registry::{DockerConfig, RegistryConfig};

use client::Client;
use command::{Command, Entry, Invocation, Node, two_columns};
use endpoint::{Address, Target};
use failure::{Exit, ExitStatus, code};
use flags::{Arguments, Flag, FlagsEnd};
use tls::{ClientTls, TlsFlags};

pub use client::EngineStarter;

/// What the binary knows and the command line needs.
pub struct Program<'p> {
    /// The version that `--version` and `version` print.
    pub version: &'p str,
    /// Starts an engine where none is named and none answers; `None` makes that an error.
    pub starter: Option<&'p dyn EngineStarter>,
    /// The engine where none is named; `None` looks in our own places.
    pub default_host: Option<&'p str>,
    /// How registries are configured, for commands that need no engine.
    pub registries: fn() -> Result<RegistryConfig>,
    /// Commands that the binary handles itself before it calls [`run`], for the help: name and description.
    pub own_commands: &'p [(&'p str, &'p str)],
}

/// Flags in front of the command.
const GLOBAL_FLAGS: &[Flag] = &[
    flags::value("host", 'H', "string", "Engine to talk to: unix://PATH or tcp://HOST:PORT"),
    flags::switch("version", 'v', "Print the version and quit"),
    flags::long_switch("tls", "Use TLS; implied by --tlsverify"),
    flags::long_switch("tlsverify", "Use TLS and verify the remote"),
    flags::long_value(
        "tlscacert",
        "string",
        "Trust certs signed only by this CA (default \"~/.docker/ca.pem\")",
    ),
    flags::long_value("tlscert", "string", "Path to TLS certificate file (default \"~/.docker/cert.pem\")"),
    flags::long_value("tlskey", "string", "Path to TLS key file (default \"~/.docker/key.pem\")"),
    // Docker's client takes these; they change nothing here.
    flags::switch("debug", 'D', ""),
    flags::value("log-level", 'l', "string", ""),
    flags::long_value("config", "string", "Directory of Docker's config.json (default ~/.docker)"),
];

/// Runs one command: `words` are the arguments of the program without its own name.
///
/// Returns when the command has ended and everything it printed is written.
pub fn run(words: Vec<OsString>, program: &Program<'_>) -> ExitCode {
    let mut name = "dory".to_owned();
    match dispatch(words, program, &mut name) {
        Ok(status) => status.into(),
        Err(error) => failure::report(&name, &error),
    }
}

/// True for the first word of a command.
pub fn is_command(word: &str) -> bool {
    find(commands::COMMANDS, word).is_some()
}

/// Commands that ask an engine about itself or wait for what it does: one started for them would have nothing to say,
/// and would hold the data-root against the engine that is about to be started by hand.
const ONLY_LOOK: &[&str] = &["version", "events", "wait", "dial-stdio"];

fn dispatch(words: Vec<OsString>, program: &Program<'_>, name: &mut String) -> Result<ExitStatus> {
    let words = words.into_iter().map(into_text).collect::<Result<Vec<_>>>()?;
    let global = Arguments::parse(&[GLOBAL_FLAGS], FlagsEnd::FirstArgument, words)?;
    if global.on("version") {
        return print(&format!("dory version {}\n", program.version));
    }
    let mut rest = global.positional().to_vec();
    if rest.first().is_some_and(|word| word == "help") {
        rest.remove(0);
        rest.push("--help".to_owned());
    }
    let mut entries = commands::COMMANDS;
    let mut about = "Containers inside containers, with Docker's commands";
    let mut rest = rest.into_iter();
    loop {
        let Some(word) = rest.next().filter(|word| word != "--help" && word != "-h") else {
            return print(&group_help(name, about, entries, program));
        };
        match find(entries, &word) {
            Some(Node::Group(group_about, group)) => (entries, about) = (group, group_about),
            Some(Node::Command(command)) => {
                name.push_str(&format!(" {word}"));
                return execute(command, name, rest.collect(), &global, program);
            }
            None => return Err(unknown_command(name, &word)),
        }
        name.push_str(&format!(" {word}"));
    }
}

fn find(entries: &'static [Entry], word: &str) -> Option<&'static Node> {
    entries.iter().find(|entry| entry.names.contains(&word)).map(|entry| &entry.node)
}

fn execute(
    command: &'static Command,
    name: &str,
    words: Vec<String>,
    global: &Arguments,
    program: &Program<'_>,
) -> Result<ExitStatus> {
    let arguments = command.parse(name, words)?;
    if arguments.on("help") {
        return print(&command.help(name));
    }
    let tls = ClientTls::choose(&TlsFlags::of(global), |variable| std::env::var_os(variable));
    let mut target =
        Target::choose(global.value("host"), tls.as_ref(), |variable| std::env::var_os(variable))?;
    if let (Target::Search(_), Some(host)) = (&target, program.default_host) {
        target = Target::Named(Address::parse(host, None)?);
    }
    let only_looks = name.rsplit(' ').next().is_some_and(|word| ONLY_LOOK.contains(&word));
    let client = Client::new(target, program.starter.filter(|_| !only_looks));
    let docker_config = match global.value("config") {
        Some(directory) => PathBuf::from(directory).join("config.json"),
        None => DockerConfig::default_path(),
    };
    let invocation = Invocation {
        command: name.to_owned(),
        arguments,
        client,
        docker_config,
        registries: program.registries,
        version: program.version,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let outcome = runtime.block_on((command.run)(&invocation));
    // A thread may be waiting for standard input, which nobody will send.
    runtime.shutdown_background();
    outcome
}

fn into_text(word: OsString) -> Result<String> {
    // Requests are JSON, which cannot carry other bytes.
    word.into_string()
        .map_err(|word| anyhow::anyhow!("the argument `{}` is not UTF-8", word.to_string_lossy()))
}

fn unknown_command(name: &str, word: &str) -> anyhow::Error {
    let text = format!("{name}: '{word}' is not a dory command.\nSee '{name} --help'");
    Exit { text, code: code::FAILED }.into()
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> Result<ExitStatus> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).context("cannot write to standard output")?;
    output.flush().context("cannot write to standard output")?;
    Ok(ExitStatus::Success)
}

fn group_help(name: &str, about: &str, entries: &[Entry], program: &Program<'_>) -> String {
    let top = std::ptr::eq(entries, commands::COMMANDS);
    let (mut groups, mut leaves) = (Vec::new(), Vec::new());
    for entry in entries {
        match &entry.node {
            Node::Group(about, _) => groups.push((entry.names[0], *about)),
            Node::Command(command) => leaves.push((entry.names[0], command.about)),
        }
    }
    let mut text = format!("\nUsage:  {name} {}COMMAND\n\n{about}\n", if top { "[OPTIONS] " } else { "" });
    if top {
        let flags: Vec<_> = GLOBAL_FLAGS.iter().filter(|flag| !flag.help.is_empty()).collect();
        text.push_str(&format!("\nOptions:\n{}", command::flag_lines(&flags)));
        if !program.own_commands.is_empty() {
            text.push_str(&format!("\nEngine Commands:\n{}", two_columns(program.own_commands, 3)));
        }
    }
    if !groups.is_empty() {
        text.push_str(&format!("\nManagement Commands:\n{}", two_columns(&groups, 3)));
    }
    text.push_str(&format!("\nCommands:\n{}", two_columns(&leaves, 3)));
    text.push_str(&format!("\nRun '{name} COMMAND --help' for more information on a command.\n"));
    text
}
