//! The command line without an engine of its own: for trying it against any Docker-compatible engine.

use std::process::ExitCode;

fn main() -> ExitCode {
    let program = dory_cli::Program {
        version: env!("CARGO_PKG_VERSION"),
        starter: None,
        default_host: None,
        registries: || Ok(Default::default()),
        own_commands: &[],
    };
    dory_cli::run(std::env::args_os().skip(1).collect(), &program)
}
