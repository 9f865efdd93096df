//! `start`.

use std::cell::RefCell;

use anyhow::{Result, bail};

use super::ContainerDetails;
use super::attach::{self, Target, WaitCondition};
use super::run;
use crate::client::{Client, Path};
use crate::command::{Arity, Command, Invocation};
use crate::failure::{Exit, ExitStatus};
use crate::flags::{FlagsEnd, long_switch, long_value, switch};
use crate::session::{self, Streams};

use super::super::each::for_each;

/// `dory start`.
pub(crate) const START: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start stopped containers",
    flags: &[&[
        switch("attach", 'a', "Attach standard output and error, and pass signals on"),
        long_value("detach-keys", "string", "Keys that leave the container running"),
        switch("interactive", 'i', "Attach standard input"),
        long_switch("sig-proxy", "Pass signals on to the container (default true)"),
    ]],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(start(invocation)),
};

async fn start(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let (arguments, client) = (&invocation.arguments, &invocation.client);
    let names = arguments.positional();
    let (attach, interactive) = (arguments.on("attach"), arguments.on("interactive"));
    if !attach && !interactive {
        return start_each(client, names).await;
    }
    let [name] = names else { bail!("you cannot start and attach multiple containers at once") };
    let details: ContainerDetails = client.get(Path::new(&["containers", name, "json"]).as_str()).await?;
    let stdin = interactive && details.config.open_stdin;
    session::check_tty(stdin, details.config.tty)?;
    let target = Target {
        id: &details.id,
        streams: Streams {
            tty: details.config.tty,
            stdin,
            stdout: true,
            stderr: true,
            detach_keys: session::parse_detach_keys(arguments.text("detach-keys"))?,
        },
        wait: WaitCondition::before_start(details.host_config.auto_remove),
        signal_proxy: arguments.on_or("sig-proxy", true),
    };
    attach::start_attached(client, &target, run::start(client, &details.id)).await
}

/// Starts containers one after the other; the names of those that failed come last.
async fn start_each(client: &Client<'_>, names: &[String]) -> Result<ExitStatus> {
    let failed = RefCell::new(Vec::new());
    let outcome = for_each(names, async |name| {
        let started = run::start(client, &name).await;
        started.inspect_err(|_| failed.borrow_mut().push(name.clone())).map(|()| name)
    })
    .await;
    outcome.map_err(|error| match error.downcast::<Exit>() {
        Ok(Exit { text, code }) => {
            let failed = failed.borrow().join(", ");
            Exit { text: format!("{text}\nError: failed to start containers: {failed}"), code }.into()
        }
        Err(other) => other,
    })
}
