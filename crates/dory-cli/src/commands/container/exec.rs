//! `exec`.

use anyhow::Result;
use serde::Deserialize;
use serde_json::json;

use crate::client::{Client, Path};
use crate::command::{Arity, Command, Invocation};
use crate::create;
use crate::failure::{ApiError, Exit, ExitStatus, code};
use crate::flags::{FlagsEnd, list, long_list, long_switch, long_value, switch, value};
use crate::session::{self, Resizer, SessionEnd, Streams};
use crate::terminal;

/// `dory exec`.
pub(crate) const EXEC: Command = Command {
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Run a command in a running container",
    flags: &[&[
        switch("detach", 'd', "Leave the command running in the background"),
        long_value("detach-keys", "string", "Keys that leave the command running"),
        list("env", 'e', "Set a variable (NAME=VALUE, or NAME to pass it on)"),
        long_list("env-file", "Read variables from a file"),
        switch("interactive", 'i', "Keep standard input open"),
        long_switch("privileged", "Give every capability, within the container's own confines"),
        switch("tty", 't', "Give the command a terminal"),
        value("user", 'u', "string", "User and group (NAME|UID[:NAME|GID])"),
        value("workdir", 'w', "string", "Working directory"),
    ]],
    arity: Arity::AtLeast(2),
    flags_end: FlagsEnd::FirstArgument,
    run: |invocation| Box::pin(exec(invocation)),
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExecState {
    running: bool,
    #[serde(default)]
    exit_code: Option<i64>,
}

async fn exec(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let (arguments, client) = (&invocation.arguments, &invocation.client);
    let (detached, tty) = (arguments.on("detach"), arguments.on("tty"));
    let stdin = arguments.on("interactive") && !detached;
    session::check_tty(stdin, tty)?;
    let detach_keys = session::parse_detach_keys(arguments.text("detach-keys"))?;
    let id = create(invocation, stdin, detached, tty).await?;
    let start = Path::new(&["exec", &id, "start"]);
    if detached {
        let body = json!({ "Detach": true, "Tty": tty });
        client.post_body(start.as_str(), &body).await?;
        return Ok(ExitStatus::Success);
    }
    let mut body = json!({ "Detach": false, "Tty": tty });
    if let (true, Some(size)) = (tty, terminal::window_size()) {
        body["ConsoleSize"] = json!([size.rows, size.columns]);
    }
    let connection = client.hijack(start.as_str(), Some(&body)).await.map_err(exec_failure)?;
    let streams = Streams { tty, stdin, stdout: true, stderr: true, detach_keys };
    let resizer = Resizer::new(client, Path::new(&["exec", &id, "resize"]));
    let resize = async { if tty { resizer.run().await } else { std::future::pending().await } };
    let end = tokio::select! {
        end = session::join(connection, &streams) => end?,
        never = resize => match never? {},
    };
    match end {
        SessionEnd::Detached => Ok(ExitStatus::Success),
        SessionEnd::Closed => exit_status(client, &id).await,
    }
}

async fn create(invocation: &Invocation<'_>, stdin: bool, detached: bool, tty: bool) -> Result<String> {
    let arguments = &invocation.arguments;
    let Some((container, command)) = arguments.positional().split_first() else {
        unreachable!("two arguments at least")
    };
    let body = json!({
        "AttachStdin": stdin,
        "AttachStdout": !detached,
        "AttachStderr": !detached,
        "Tty": tty,
        "Cmd": command,
        "Env": create::environment(arguments)?,
        "User": arguments.text("user"),
        "WorkingDir": arguments.text("workdir"),
        "Privileged": arguments.on("privileged"),
        "DetachKeys": arguments.text("detach-keys"),
        "Detach": detached,
    });
    let path = Path::new(&["containers", container, "exec"]);
    let created: Created = invocation.client.post_json(path.as_str(), &body).await?;
    Ok(created.id)
}

/// A refusal to start is the command's own failure, with the code of a shell that could not run it.
fn exec_failure(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<ApiError>() {
        Some(failure) if failure.message.contains("executable file not found") => {
            Exit { text: failure.to_string(), code: code::NOT_FOUND }.into()
        }
        Some(failure) if failure.message.contains("permission denied") => {
            Exit { text: failure.to_string(), code: code::CANNOT_EXECUTE }.into()
        }
        _ => error,
    }
}

async fn exit_status(client: &Client<'_>, id: &str) -> Result<ExitStatus> {
    let state: ExecState = client.get(Path::new(&["exec", id, "json"]).as_str()).await?;
    match state.exit_code {
        _ if state.running => Ok(ExitStatus::Success),
        Some(0) | None => Ok(ExitStatus::Success),
        Some(status) => Ok(ExitStatus::Code(u8::try_from(status).unwrap_or(code::ENGINE))),
    }
}
