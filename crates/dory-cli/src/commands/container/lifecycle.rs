//! The verbs that change a container and have little to say: `stop`, `kill`, `rm` and their like.

use anyhow::Result;
use serde::Deserialize;

use super::super::each::for_each;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{Flag, FlagsEnd, parse_int, switch, value};

const MANY: &str = "CONTAINER [CONTAINER...]";
const MANY_WITH_OPTIONS: &str = "[OPTIONS] CONTAINER [CONTAINER...]";

const STOP_FLAGS: &[Flag] = &[
    value("signal", 's', "string", "Signal to send"),
    value("time", 't', "int", "Seconds to wait before SIGKILL"),
    // The name since Docker 28.
    crate::flags::long_value("timeout", "int", ""),
];

/// `dory stop`.
pub(crate) const STOP: Command = Command {
    usage: MANY_WITH_OPTIONS,
    about: "Stop running containers",
    flags: &[STOP_FLAGS],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(stop(invocation, "stop")),
};

/// `dory restart`.
pub(crate) const RESTART: Command = Command {
    usage: MANY_WITH_OPTIONS,
    about: "Restart containers",
    flags: &[STOP_FLAGS],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(stop(invocation, "restart")),
};

/// `dory kill`.
pub(crate) const KILL: Command = Command {
    usage: MANY_WITH_OPTIONS,
    about: "Send a signal to running containers, SIGKILL by default",
    flags: &[&[value("signal", 's', "string", "Signal to send")]],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(kill(invocation)),
};

/// `dory rm`.
pub(crate) const REMOVE: Command = Command {
    usage: MANY_WITH_OPTIONS,
    about: "Remove containers",
    flags: &[&[
        switch("force", 'f', "Kill the container first if it is running"),
        switch("link", 'l', "Remove a link instead of a container"),
        switch("volumes", 'v', "Remove its anonymous volumes, too"),
    ]],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(remove(invocation)),
};

/// `dory pause`.
pub(crate) const PAUSE: Command = Command {
    usage: MANY,
    about: "Pause all processes in containers",
    flags: &[],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(post_each(invocation, "pause")),
};

/// `dory unpause`.
pub(crate) const UNPAUSE: Command = Command {
    usage: MANY,
    about: "Let paused containers run again",
    flags: &[],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(post_each(invocation, "unpause")),
};

/// `dory wait`.
pub(crate) const WAIT: Command = Command {
    usage: MANY,
    about: "Wait until containers stop, and print their exit codes",
    flags: &[],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(wait(invocation)),
};

/// `dory rename`.
pub(crate) const RENAME: Command = Command {
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    flags: &[],
    arity: Arity::Exactly(2),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(rename(invocation)),
};

async fn post_each(invocation: &Invocation<'_>, verb: &str) -> Result<ExitStatus> {
    for_each(invocation.arguments.positional(), async |name| {
        invocation.client.post(Path::new(&["containers", &name, verb]).as_str()).await.map(|()| name)
    })
    .await
}

async fn stop(invocation: &Invocation<'_>, verb: &str) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let timeout = arguments.parsed("time", parse_int)?.or(arguments.parsed("timeout", parse_int)?);
    for_each(arguments.positional(), async |name| {
        let mut path = Path::new(&["containers", &name, verb]).optional("signal", arguments.text("signal"));
        if let Some(seconds) = timeout {
            path = path.query("t", seconds);
        }
        invocation.client.post(path.as_str()).await.map(|()| name)
    })
    .await
}

async fn kill(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let signal = invocation.arguments.value("signal").unwrap_or("KILL");
    for_each(invocation.arguments.positional(), async |name| {
        let path = Path::new(&["containers", &name, "kill"]).query("signal", signal);
        invocation.client.post(path.as_str()).await.map(|()| name)
    })
    .await
}

async fn remove(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    for_each(arguments.positional(), async |name| {
        let path = Path::new(&["containers", name.trim_matches('/')])
            .flag("force", arguments.on("force"))
            .flag("link", arguments.on("link"))
            .flag("v", arguments.on("volumes"));
        invocation.client.delete(path.as_str()).await.map(|_| name)
    })
    .await
}

async fn wait(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        status_code: i64,
    }
    for_each(invocation.arguments.positional(), async |name| {
        let path = Path::new(&["containers", &name, "wait"]);
        let answer: Answer = invocation.client.post_for(path.as_str()).await?;
        Ok(answer.status_code.to_string())
    })
    .await
}

async fn rename(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let [name, new_name] = invocation.arguments.positional() else { unreachable!("exactly two arguments") };
    let path = Path::new(&["containers", name, "rename"]).query("name", new_name);
    invocation.client.post(path.as_str()).await?;
    Ok(ExitStatus::Success)
}
