//! Docker's verbs that have no request behind them here: they fail by name, with a way out.

use anyhow::Result;

use crate::command::{Arity, Command, Invocation};
use crate::failure::{ExitStatus, hinted};
use crate::flags::FlagsEnd;

macro_rules! unsupported {
    ($(#[$doc:meta])* $name:ident, $about:literal, $hint:literal) => {
        $(#[$doc])*
        pub(super) const $name: Command = Command {
            usage: "",
            about: $about,
            flags: &[],
            arity: Arity::AtLeast(0),
            // Whatever follows, the answer is the same.
            flags_end: FlagsEnd::Beginning,
            run: |invocation| Box::pin(refuse(invocation, $hint)),
        };
    };
}

unsupported!(
    /// `dory build`.
    BUILD, "Build an image (not supported yet)",
    "import an archive with `dory import`, or load one with `dory load`"
);

async fn refuse(invocation: &Invocation<'_>, hint: &str) -> Result<ExitStatus> {
    Err(hinted(format!("`{}` is not supported yet", invocation.command), hint))
}
