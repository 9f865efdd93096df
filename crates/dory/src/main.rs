//! The binary: it picks the role.
//!
//! One program is everything: client, engine, shim, and pid 1 of a container. The role is decided here, before any thread
//! exists, because shim and reaper fork.

mod build;
mod buildah;
mod demo;
mod dind;
mod gateway;
mod kaniko;
mod probe;
mod serve;
mod starter;

use std::ffi::OsString;
use std::process::ExitCode;

/// Commands that this binary does itself; all others are the client's.
const OWN_COMMANDS: &[(&str, &str)] = &[
    ("serve", "Run an engine that speaks the Docker Engine API"),
    ("build", "Build an image from a Dockerfile with no engine"),
    ("kaniko", "Build and push with no engine, with the flags of Kaniko's executor"),
    ("buildah", "Make images step by step with no engine, with Buildah's verbs"),
    ("demo", "Show engines inside containers inside engines"),
    ("gateway", "Put sockets with policies in front of an engine"),
    ("with", "Run a command with an engine's socket of its own, and remove what it made"),
    ("policy", "Check, show and explain policies"),
    ("doctor", "Say what the surroundings allow, and what to ask for where they do not"),
];

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    if name == dory_runtime::reaper::NAME {
        return exit_code(dory_runtime::reaper::main(&texts(words)));
    }
    if kaniko::is_executor(&name) {
        return kaniko::main(&[vec![name], words].concat());
    }
    let docker = match dind::Role::of(&name) {
        Some(dind::Role::Dockerd) => return dind::dockerd(words),
        Some(dind::Role::EngineEntrypoint) => return dind::engine_entrypoint(words),
        Some(dind::Role::ClientEntrypoint) => return dind::client_entrypoint(words),
        Some(dind::Role::Docker) => true,
        None => false,
    };
    match words.first().and_then(|word| word.to_str()) {
        Some(dory_runtime::shim::ROLE) => exit_code(dory_runtime::shim::main()),
        Some(dory_runtime::stopped::ROLE) => exit_code(dory_runtime::stopped::main()),
        Some(dory_runtime::recorder::ROLE) => exit_code(dory_runtime::recorder::main()),
        Some(dory_probe::PROBE_ROLE) => dory_probe::run_child_role(words.into_iter().skip(1)),
        Some("serve") => serve::main(&words),
        Some("build") if !docker => build::main(&words),
        Some("kaniko") if !docker => kaniko::main(&words),
        Some("buildah") if !docker => buildah::main(&words),
        Some("demo") => demo::main(&words),
        Some("gateway") => gateway::main(&words),
        Some("with") => gateway::with_main(&words),
        Some("policy") => gateway::policy_main(&words),
        Some("doctor") => probe::main(&words),
        _ => dory_cli::run(words, &program(docker)),
    }
}

/// What the command line needs to know. Called `docker` it talks to Docker's socket, and starts nothing.
fn program(docker: bool) -> dory_cli::Program<'static> {
    dory_cli::Program {
        version: env!("CARGO_PKG_VERSION"),
        starter: if docker { None } else { Some(&starter::Starter) },
        default_host: docker.then_some(dind::DOCKER_SOCKET),
        registries: serve::registries,
        own_commands: OWN_COMMANDS,
    }
}

fn texts(words: Vec<OsString>) -> Vec<String> {
    words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Exit codes of processes are a byte; -1 and the like become 255.
fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
