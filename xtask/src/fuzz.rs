//! `cargo xtask fuzz`: what `fuzz/` has, built and run without cargo-fuzz and with the stable toolchain.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::paths;
use crate::process::run;
use crate::test::cargo;

/// What cargo-fuzz passes for `--sanitizer none`: coverage counters and compared values for libFuzzer, no sanitizer.
///
/// `crt-static` is left out on purpose: libFuzzer wants the shared C++ library.
const INSTRUMENTED: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Ccodegen-units=16",
    "--cfg=fuzzing",
];

/// Seconds that one input may take, and bytes of memory that the process may have.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=2048"];

/// What to run.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Names of targets; all of them where none is named.
    targets: Vec<String>,
    /// How long to run each target; 0 only builds them.
    #[arg(long, default_value_t = 1)]
    minutes: u64,
}

/// Builds the targets and runs one after another, with lowest priority.
///
/// What they find that is new stays in `target/fuzz/corpus`, what breaks them in `target/fuzz/artifacts`.
///
/// # Errors
/// A target does not build, or an input breaks it.
pub fn fuzz(arguments: &Arguments) -> Result<()> {
    let targets = if arguments.targets.is_empty() { all()? } else { arguments.targets.clone() };
    for target in &targets {
        build(target)?;
    }
    // libFuzzer takes no time for all the time there is.
    if arguments.minutes == 0 {
        return Ok(());
    }
    let mut broken = Vec::new();
    for target in targets {
        if let Err(error) = search(&target, arguments.minutes) {
            eprintln!("{error:#}");
            broken.push(target);
        }
    }
    ensure!(broken.is_empty(), "broken: {}; the inputs are in `{}`", broken.join(", "), folder().display());
    Ok(())
}

/// Runs every target over its seeds and over small changes of them, without instrumentation.
///
/// # Errors
/// A target does not build, or a promise does not hold.
pub fn seeds() -> Result<()> {
    run(manifest(cargo().args(["fmt", "--check"])))?;
    run(manifest(cargo().args(["clippy", "--quiet", "--all-targets"])).args([
        "--no-default-features",
        "--",
        "-D",
        "warnings",
    ]))?;
    run(manifest(cargo().args(["test", "--quiet", "--lib"])).arg("--no-default-features"))
}

/// Runs one target for some minutes, from its seeds and what earlier runs found.
fn search(target: &str, minutes: u64) -> Result<()> {
    let artifacts = made(folder().join("artifacts").join(target))?;
    let corpus = made(folder().join("corpus").join(target))?;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut prefix = std::ffi::OsString::from("-artifact_prefix=");
    prefix.push(artifacts.join(""));
    run(Command::new("nice")
        .args(["-n", "19"])
        .arg(folder().join(triple).join("release").join(target))
        .arg(corpus)
        .arg(paths::repository().join("fuzz/seeds").join(target))
        .arg(prefix)
        .args(LIMITS)
        .arg(format!("-max_total_time={}", minutes * 60))
        .arg("-print_final_stats=1"))
}

fn build(target: &str) -> Result<()> {
    run(manifest(cargo().args(["build", "--quiet", "--release"]))
        .args(["--bin", target])
        .env("CARGO_TARGET_DIR", folder())
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTED.join("\x1f")))
}

/// The names of all targets: those of their programs.
fn all() -> Result<Vec<String>> {
    let programs = paths::repository().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in
        std::fs::read_dir(&programs).with_context(|| format!("cannot read `{}`", programs.display()))?
    {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn manifest(command: &mut Command) -> &mut Command {
    command.arg("--manifest-path").arg(paths::repository().join("fuzz/Cargo.toml"))
}

fn folder() -> PathBuf {
    paths::target().join("fuzz")
}

fn made(folder: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    Ok(folder)
}
