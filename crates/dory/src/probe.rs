//! `dory doctor`: what the surroundings allow.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Say what the surroundings allow, found by trying, and what to ask for where they do not.
#[derive(Debug, Parser)]
#[command(name = "dory doctor", version)]
struct Options {
    /// Try the overlay on this directory, which should be the data-root.
    #[arg(long, default_value = "/var/lib")]
    data_root: std::path::PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Probes in full and prints; exit code 1 where no engine can run containers here.
pub fn main(words: &[OsString]) -> ExitCode {
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let facilities = match dory_probe::full(&options.data_root) {
        Ok(facilities) => facilities,
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            return ExitCode::FAILURE;
        }
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&facilities).expect("facilities have string keys only"));
    } else {
        for (name, value) in facilities.render() {
            println!("{name:<28} {value}");
        }
    }
    if facilities.tier().is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
