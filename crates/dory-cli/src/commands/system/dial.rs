//! `system dial-stdio`: the engine's socket on standard input and output, for clients that come through ssh.

use anyhow::{Context, Result};
use tokio::io::{AsyncWriteExt, copy, split, stdin, stdout};

use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::FlagsEnd;

/// `dory system dial-stdio`.
pub(super) const DIAL: Command = Command {
    usage: "",
    about: "Join standard input and output with the engine's socket",
    flags: &[],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(dial(invocation)),
};

async fn dial(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let (mut reader, mut writer) = split(invocation.client.dial().await?);
    let up = async {
        copy(&mut stdin(), &mut writer).await.context("cannot forward standard input")?;
        writer.shutdown().await.context("cannot close the way to the engine")?;
        // The answer may outlast the request; its end is the end.
        std::future::pending::<Result<()>>().await
    };
    let down = async {
        let mut output = stdout();
        copy(&mut reader, &mut output).await.context("cannot forward the engine's answer")?;
        output.flush().await.context("cannot write to standard output")
    };
    tokio::select! {
        result = up => result?,
        result = down => result?,
    }
    Ok(ExitStatus::Success)
}
