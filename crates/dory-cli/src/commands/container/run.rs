//! `run` and `create`.

use std::fs;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::json;

use super::super::image;
use super::attach::{self, Target, WaitCondition};
use crate::client::{Client, Path};
use crate::command::{Arity, Command, Invocation};
use crate::create::{self, CONTAINER_FLAGS, CreateRequest};
use crate::failure::{self, ApiError, Exit, ExitStatus, code};
use crate::flags::{Arguments, Flag, FlagError, FlagsEnd, long_switch, long_value, switch};
use crate::print;
use crate::session::{self, Streams};
use crate::terminal;

const RUN_FLAGS: &[Flag] = &[
    switch("detach", 'd', "Print the container's id and leave it running"),
    long_value("detach-keys", "string", "Keys that leave the container running"),
    long_switch("sig-proxy", "Pass signals on to the container (default true)"),
];

/// `dory run`.
pub(crate) const RUN: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a container and run a command in it",
    flags: &[RUN_FLAGS, CONTAINER_FLAGS],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::FirstArgument,
    run: |invocation| Box::pin(run(invocation)),
};

/// `dory create`.
pub(crate) const CREATE: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a container",
    flags: &[CONTAINER_FLAGS],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::FirstArgument,
    run: |invocation| Box::pin(create(invocation)),
};

async fn create(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let request = read_request(invocation, false)?;
    let id = create_container(invocation, &request).await?;
    print(&format!("{id}\n"))
}

async fn run(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let detached = arguments.on("detach");
    let request = read_request(invocation, detached)?;
    session::check_tty(request.attach.stdin, request.tty)?;
    let detach_keys = session::parse_detach_keys(arguments.text("detach-keys"))?;
    let id = create_container(invocation, &request)
        .await
        .map_err(|error| engine_failure(&invocation.command, error))?;
    let client = &invocation.client;
    if detached {
        start(client, &id).await.map_err(|error| engine_failure(&invocation.command, error))?;
        return print(&format!("{id}\n"));
    }
    let target = Target {
        id: &id,
        streams: Streams {
            tty: request.tty,
            stdin: request.attach.stdin,
            stdout: request.attach.stdout,
            stderr: request.attach.stderr,
            detach_keys,
        },
        wait: WaitCondition::before_start(arguments.on("rm")),
        signal_proxy: arguments.on_or("sig-proxy", true),
    };
    if !request.attach.any() {
        print(&format!("{id}\n"))?;
    }
    attach::start_attached(client, &target, start(client, &id))
        .await
        .map_err(|error| engine_failure(&invocation.command, error))
}

/// Starts a container that exists.
pub(super) async fn start(client: &Client<'_>, id: &str) -> Result<()> {
    client.post(Path::new(&["containers", id, "start"]).as_str()).await
}

fn read_request(invocation: &Invocation<'_>, detached: bool) -> Result<CreateRequest> {
    let mut request = create::request(&invocation.arguments, detached).map_err(|error| {
        match error.downcast::<FlagError>() {
            Ok(flag) => flag.into(),
            Err(other) => refusal(&invocation.command, &format!("{other:#}")),
        }
    })?;
    if let (true, Some(size)) = (request.tty, terminal::window_size()) {
        request.body["HostConfig"]["ConsoleSize"] = json!([size.rows, size.columns]);
    }
    Ok(request)
}

/// `dory: ...` with exit code 125, as Docker refuses a container that was never made.
fn refusal(command: &str, message: &str) -> anyhow::Error {
    refusal_with_code(command, message, code::ENGINE)
}

fn refusal_with_code(command: &str, message: &str, code: u8) -> anyhow::Error {
    let text = format!("dory: {}.\nSee '{command} --help'.", message.trim_end_matches('.'));
    Exit { text, code }.into()
}

/// Gives a failure to create or start a container the exit code that scripts know it by.
fn engine_failure(command: &str, error: anyhow::Error) -> anyhow::Error {
    if error.is::<Exit>() || failure::is_broken_pipe(&error) {
        return error;
    }
    match error.downcast_ref::<ApiError>() {
        Some(failure) => refusal_with_code(command, &failure.to_string(), exit_code(&failure.message)),
        None => Exit { text: failure::describe_chain("dory", &error), code: code::ENGINE }.into(),
    }
}

/// Docker's client knows the reason only from the message.
fn exit_code(message: &str) -> u8 {
    let says = |text: &str| message.contains(text);
    if says("executable file not found") || says("no such file or directory") {
        code::NOT_FOUND
    } else if says("permission denied") || says("is a directory") {
        code::CANNOT_EXECUTE
    } else {
        code::ENGINE
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

async fn create_container(invocation: &Invocation<'_>, request: &CreateRequest) -> Result<String> {
    let arguments = &invocation.arguments;
    let id_file = arguments.value("cidfile").map(IdFile::create).transpose()?;
    let created = create_or_pull(invocation, request).await?;
    for warning in created.warnings.iter().flatten() {
        eprintln!("WARNING: {warning}");
    }
    if let Some(file) = id_file {
        file.write(&created.id)?;
    }
    Ok(created.id)
}

async fn create_or_pull(invocation: &Invocation<'_>, request: &CreateRequest) -> Result<Created> {
    let arguments = &invocation.arguments;
    let policy = arguments.value("pull").unwrap_or("missing");
    if !matches!(policy, "always" | "missing" | "never") {
        return Err(refusal(
            &invocation.command,
            &format!("invalid pull option: '{policy}': must be one of \"always\", \"missing\" or \"never\""),
        ));
    }
    let path = Path::new(&["containers", "create"])
        .optional("name", arguments.text("name"))
        .optional("platform", arguments.text("platform"));
    if policy == "always" {
        pull(invocation, &request.image, arguments).await?;
    }
    let answer = invocation.client.post_json(path.as_str(), &request.body).await;
    match answer {
        Err(error) if policy == "missing" && is_missing_image(&error) => {
            eprintln!("Unable to find image '{}' locally", image::with_tag(&request.image));
            pull(invocation, &request.image, arguments).await?;
            invocation.client.post_json(path.as_str(), &request.body).await
        }
        other => other,
    }
}

fn is_missing_image(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ApiError>()
        .is_some_and(|api| api.is_not_found() && api.message.to_lowercase().contains("image"))
}

async fn pull(invocation: &Invocation<'_>, name: &str, arguments: &Arguments) -> Result<()> {
    // A run's own output is the container's: progress goes to standard error.
    image::pull(
        invocation,
        &image::with_tag(name),
        arguments.text("platform"),
        arguments.on("quiet"),
        image::Progress::Stderr,
    )
    .await
}

/// The file of `--cidfile`: made before the container, so that an existing one stops everything, and taken back if the
/// container does not come to be.
#[derive(Debug)]
struct IdFile {
    path: String,
    file: Option<fs::File>,
}

impl IdFile {
    fn create(path: &str) -> Result<Self> {
        match fs::OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => Ok(Self { path: path.to_owned(), file: Some(file) }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let text = format!(
                    "dory: container ID file found, make sure the other container isn't running or delete {path}"
                );
                Err(Exit { text, code: code::ENGINE }.into())
            }
            Err(error) => {
                Err(error).with_context(|| format!("failed to create the container ID file `{path}`"))
            }
        }
    }

    fn write(mut self, id: &str) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.write_all(id.as_bytes())
            .with_context(|| format!("failed to write the container ID to `{}`", self.path))
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // The failure that led here is the one worth reporting.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_message() {
        for (message, code) in [
            ("failed to create task: exec: \"nope\": executable file not found in $PATH: unknown", 127),
            ("exec: \"/x\": stat /x: no such file or directory", 127),
            ("exec: \"/etc\": permission denied: unknown", 126),
            ("Conflict. The container name \"/x\" is already in use", 125),
        ] {
            assert_eq!(exit_code(message), code, "{message}");
        }
    }

    #[test]
    fn an_id_file_is_taken_back_unless_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        let text = path.to_str().unwrap();
        drop(IdFile::create(text).unwrap());
        assert!(!path.exists());
        IdFile::create(text).unwrap().write("abc").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
        assert!(IdFile::create(text).is_err());
        assert!(path.exists());
    }
}
