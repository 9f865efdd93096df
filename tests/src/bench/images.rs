//! An image of about a gigabyte, compressed, in twelve uneven layers: how long load, save, push and pull take, and how much
//! processor time, beside dockerd, podman where it is installed, and plain tools as the floor.

mod floor;
mod material;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::engine::Engine;
use crate::transcript::EngineKind;
use material::Material;

/// What of images is measured.
#[derive(Debug, clap::Args)]
pub struct ImagesArguments {
    /// The release binary of dory.
    #[arg(long)]
    dory: PathBuf,
    /// Docker's daemon.
    #[arg(long)]
    dockerd: PathBuf,
    /// Folder with the docker commands.
    #[arg(long)]
    tools: PathBuf,
    /// Where the image is kept between runs.
    #[arg(long, default_value = "/var/tmp/dory-bench-image")]
    material: PathBuf,
    /// Scratch space.
    #[arg(long, default_value = "/var/tmp/dory-bench")]
    work: PathBuf,
    /// How much the image's files are, in MiB.
    #[arg(long, default_value_t = 2600)]
    size: u64,
    /// How often each thing is done.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Make the image, which takes minutes, and measure nothing.
    #[arg(long)]
    prepare: bool,
    /// Leave these out: `dockerd`, `podman`, `floor`.
    #[arg(long)]
    without: Vec<String>,
    /// Measure only these.
    #[arg(value_parser = ["load", "save", "push", "nested", "pull"])]
    steps: Vec<String>,
}

/// The image's name on engines.
const NAME: &str = "dory-bench:big";
/// The port of the registry, in the namespace of an engine.
const PORT: u16 = 5000;

/// The unit of proc_pid_stat(5) on all of Linux's architectures (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// What one measurement took, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    wall: f64,
    processor: f64,
}

/// Measures, and prints each figure when it is known.
///
/// # Errors
/// An engine or a tool fails.
pub fn run(arguments: &ImagesArguments) -> Result<()> {
    let material = Material::make(&arguments.material, arguments.size << 20, &arguments.dory)?;
    if arguments.prepare {
        return Ok(());
    }
    let _ = std::fs::remove_dir_all(&arguments.work);
    println!(
        "{} MiB of files in {} layers; compressed {} MiB\n{:8}{:12}{:>10}{:>14}",
        material.length(false)? >> 20,
        material.layers.len(),
        material.length(true)? >> 20,
        "",
        "",
        "wall, s",
        "processor, s"
    );
    for _ in 0..arguments.rounds {
        for (kind, binary) in [(EngineKind::Dory, &arguments.dory), (EngineKind::Dockerd, &arguments.dockerd)]
        {
            if !arguments.without.iter().any(|name| name == kind.name()) {
                let mut engine = Engine::prepare(kind, binary, &arguments.work.join(kind.name()))?;
                if kind == EngineKind::Dory {
                    engine.options.push("--share-store".to_owned());
                }
                engine.start()?;
                of_engine(arguments, &engine, &material)?;
                engine.stop(Signal::TERM)?;
            }
        }
        if !arguments.without.iter().any(|name| name == "floor") {
            floor::run(&material, &arguments.work, |step| wanted(arguments, step))?;
        }
        if !arguments.without.iter().any(|name| name == "podman")
            && Command::new("podman").arg("--version").stdout(Stdio::null()).status().is_ok()
        {
            of_podman(arguments, &material)?;
        }
    }
    let _ = std::fs::remove_dir_all(&arguments.work);
    Ok(())
}

fn wanted(arguments: &ImagesArguments, step: &str) -> bool {
    arguments.steps.is_empty() || arguments.steps.iter().any(|wanted| wanted == step)
}

fn report(step: &str, who: &str, cost: Cost) {
    println!("{step:8}{who:12}{:>10.1}{:>14.1}", cost.wall, cost.processor);
}

/// All steps on one engine. Its push comes after a load, so that it has to compress.
fn of_engine(arguments: &ImagesArguments, engine: &Engine, material: &Material) -> Result<()> {
    let who = engine.kind.name();
    let docker =
        |words: &[&str]| super::docker_command(&arguments.tools.join("new/docker"), engine, words).map(drop);
    let measured = |step: &str, words: &[&str]| -> Result<()> {
        if wanted(arguments, step) {
            report(step, who, measure(|| processor_time_of(engine.kind), || docker(words))?);
        }
        Ok(())
    };
    if ["load", "save", "push", "nested"].iter().any(|step| wanted(arguments, step)) {
        let archive = material.archive.display().to_string();
        let load = ["load", "--quiet", "--input", &archive];
        if wanted(arguments, "load") {
            measured("load", &load)?
        } else {
            docker(&load)?
        }
        if wanted(arguments, "nested") && engine.kind == EngineKind::Dory {
            nested(arguments, engine)?;
        }
        let saved = arguments.work.join("saved.tar");
        measured("save", &["save", "--output", &saved.display().to_string(), NAME])?;
        let _ = std::fs::remove_file(saved);
        if wanted(arguments, "push") {
            let storage = arguments.work.join("registry");
            let _registry = Registry::start(&engine.host, &storage)?;
            let name = format!("localhost:{PORT}/pushed:1");
            docker(&["tag", NAME, &name])?;
            measured("push", &["push", "--quiet", &name])?;
            docker(&["rmi", &name])?;
            std::fs::remove_dir_all(storage)?;
        }
        docker(&["rmi", NAME])?;
    }
    if wanted(arguments, "pull") {
        let _registry = Registry::start(&engine.host, &material.registry)?;
        let name = material.remote(PORT);
        // What was removed is deleted behind the answer.
        std::thread::sleep(Duration::from_secs(3));
        measured("pull", &["pull", "--quiet", &name])?;
        docker(&["rmi", &name])?;
    }
    Ok(())
}

/// From the start of an engine in a container, which has this one's store below its own, to the end of a container of the
/// large image there; and what the disk has more of then.
fn nested(arguments: &ImagesArguments, engine: &Engine) -> Result<()> {
    let docker = |words: &[&str]| super::docker_command(&arguments.tools.join("new/docker"), engine, words);
    let images = arguments.work.join("nested-images");
    crate::images::make_all(&images, Some(&arguments.dory))?;
    docker(&["load", "--quiet", "--input", &images.join("dory.tar").display().to_string()])?;
    let began = Instant::now();
    docker(&[
        "run",
        "-d",
        "--privileged",
        "--name",
        "nested",
        "-v",
        "nested:/var/lib/dory",
        "dory",
        "serve",
    ])?;
    let inner = |words: &[&str]| docker(&[&["exec", "nested", "dory"], words].concat());
    while let Err(error) = inner(&["version"]) {
        ensure!(began.elapsed() < Duration::from_secs(30), "the engine in the container: {error:#}");
    }
    // The image has data alone.
    let program = ["-v", "/usr/local/bin/dory:/bin/dory:ro", NAME, "/bin/dory", "--version"];
    inner(&[&["run", "--rm", "--network", "none"], program.as_slice()].concat())?;
    let wall = began.elapsed().as_secs_f64();
    let volume = engine.folder.join("data/volumes/nested");
    let used = Command::new("du").arg("-sk").arg(volume).output()?.stdout;
    let used = String::from_utf8_lossy(&used).split_whitespace().next().unwrap_or_default().to_owned();
    println!("{:8}{:12}{wall:>10.2}{:>14} (the disk has {used} KiB more)", "nested", engine.kind.name(), "");
    docker(&["rm", "--force", "--volumes", "nested"])?;
    docker(&["volume", "rm", "nested"])?;
    docker(&["rmi", "dory"])?;
    Ok(())
}

fn of_podman(arguments: &ImagesArguments, material: &Material) -> Result<()> {
    let network = crate::engine::NetworkNamespace::new()?;
    let root = arguments.work.join("podman");
    let podman = |words: &[&str]| -> Result<()> {
        let mut command = network.command("podman");
        command.arg("--root").arg(&root).arg("--runroot").arg(arguments.work.join("podman-run"));
        let output =
            command.args(["--storage-driver", "overlay"]).args(words).stdin(Stdio::null()).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`podman {}`: {errors}", words.join(" "));
        Ok(())
    };
    let measured = |step: &str, words: &[&str]| -> Result<()> {
        if wanted(arguments, step) {
            report(step, "podman", measure(processor_time_of_children, || podman(words))?);
        }
        Ok(())
    };
    if ["load", "save", "push"].iter().any(|step| wanted(arguments, step)) {
        let archive = material.archive.display().to_string();
        let load = ["load", "--quiet", "--input", &archive];
        if wanted(arguments, "load") {
            measured("load", &load)?
        } else {
            podman(&load)?
        }
        let saved = arguments.work.join("saved.tar");
        measured("save", &["save", "--quiet", "--output", &saved.display().to_string(), NAME])?;
        let _ = std::fs::remove_file(saved);
        if wanted(arguments, "push") {
            let storage = arguments.work.join("registry");
            let _registry = Registry::start(&network, &storage)?;
            let name = format!("docker://localhost:{PORT}/pushed:1");
            measured("push", &["push", "--quiet", "--tls-verify=false", NAME, &name])?;
            std::fs::remove_dir_all(storage)?;
        }
        podman(&["rmi", "--all", "--force"])?;
    }
    if wanted(arguments, "pull") {
        let _registry = Registry::start(&network, &material.registry)?;
        measured("pull", &["pull", "--quiet", "--tls-verify=false", &material.remote(PORT)])?;
        podman(&["rmi", "--all", "--force"])?;
    }
    Ok(())
}

/// Runs `work` when the disk is quiet; `processor` is the processor time so far, in seconds.
fn measure(processor: impl Fn() -> Result<f64>, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    rustix::fs::sync();
    let (before, began) = (processor()?, Instant::now());
    work()?;
    let wall = began.elapsed().as_secs_f64();
    Ok(Cost { wall, processor: processor()? - before })
}

/// The processor time of an engine's processes, in seconds, and of their children that have ended.
fn processor_time_of(kind: EngineKind) -> Result<f64> {
    let pids = super::processes(kind)?;
    pids.iter().map(|folder| processor_time(folder, true)).sum()
}

/// The processor time of this process's children that have ended, in seconds.
fn processor_time_of_children() -> Result<f64> {
    processor_time(Path::new("/proc/self"), false)
}

/// `utime`, `stime`, `cutime`, `cstime` of proc_pid_stat(5); the first two only where `own` says so.
fn processor_time(folder: &Path, own: bool) -> Result<f64> {
    // A process that has ended meanwhile counts with its parent.
    let Ok(text) = std::fs::read_to_string(folder.join("stat")) else { return Ok(0.0) };
    let (_, fields) = text.rsplit_once(')').context("no `stat` of a process")?;
    let ticks = fields.split_whitespace().skip(if own { 11 } else { 13 }).take(if own { 4 } else { 2 });
    let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Debian's registry, until this goes away.
struct Registry(Child);

impl Registry {
    fn start(network: &crate::engine::NetworkNamespace, storage: &Path) -> Result<Self> {
        std::fs::create_dir_all(storage)?;
        let config = storage.with_extension("yml");
        let storage = storage.display();
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: '127.0.0.1:{PORT}'}}\n"
            ),
        )?;
        let mut command = network.command("docker-registry");
        let child = command.arg("serve").arg(&config).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Self(child.context("cannot start `docker-registry`")?);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            let url = format!("http://localhost:{PORT}/v2/");
            if network.command("curl").args(["-sf", "-o", "/dev/null", &url]).status()?.success() {
                return Ok(registry);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the registry does not answer")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
