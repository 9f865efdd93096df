//! Measures Dory beside dockerd, in one run and in turn, so that both see the same machine and the same noise.
//!
//! Nothing here fails for being slow: the numbers are for people.

pub mod builds;
pub mod images;
mod network;
mod scale;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::engine::Engine;
use crate::transcript::EngineKind;

/// What is measured against what.
#[derive(Debug, clap::Args)]
pub struct BenchArguments {
    /// The release binary of dory.
    #[arg(long)]
    dory: PathBuf,
    /// Docker's daemon.
    #[arg(long)]
    dockerd: PathBuf,
    /// Folder with the docker commands.
    #[arg(long)]
    tools: PathBuf,
    /// Folder with the image archives.
    #[arg(long)]
    images: PathBuf,
    /// Scratch space.
    #[arg(long, default_value = "/var/tmp/dory-bench")]
    work: PathBuf,
    /// Measure networks, and nothing else: all of these, or those that are named.
    #[arg(long, num_args = 0.., value_enum)]
    network: Option<Vec<network::Part>>,
    /// Measure Dory with so many containers on the disk, and nothing else.
    #[arg(long, default_value_t = 0)]
    stopped: usize,
    /// How many of those are started.
    #[arg(long, default_value_t = 0)]
    running: usize,
    /// How often each thing is done.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
}

/// How many containers are started to see what each costs in memory.
const CONTAINERS: usize = 8;

/// Runs all measurements and prints the table.
///
/// # Errors
/// An engine or the docker command fails.
pub fn run(arguments: &BenchArguments) -> Result<()> {
    let _ = std::fs::remove_dir_all(&arguments.work);
    let engine =
        |kind: EngineKind, binary: &Path| Engine::prepare(kind, binary, &arguments.work.join(kind.name()));
    let mut engines =
        [engine(EngineKind::Dory, &arguments.dory)?, engine(EngineKind::Dockerd, &arguments.dockerd)?];
    let docker = arguments.tools.join("new/docker");
    let mut table = Table::default();
    if let Some(parts) = &arguments.network {
        for engine in &mut engines {
            engine.start()?;
            load_busybox(arguments, &docker, engine)?;
        }
        network::run(parts, &docker, &engines, arguments.rounds, &mut table)?;
        return end(arguments, engines, &table);
    }
    if arguments.stopped > 0 {
        let [dory, _] = &mut engines;
        dory.start()?;
        dory.load_images(&arguments.tools, &[arguments.images.join("busybox.tar")])?;
        let scale = scale::Scale { stopped: arguments.stopped, running: arguments.running };
        scale::run(dory, scale, &mut table)?;
        return end(arguments, engines, &table);
    }
    starts(&mut engines, arguments.rounds.min(11), &mut table)?;
    for engine in &mut engines {
        engine.start()?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let idle: Vec<f64> = engines.iter().map(|engine| memory(engine.kind)).collect::<Result<_>>()?;
    for engine in &engines {
        load_busybox(arguments, &docker, engine)?;
    }
    let floor = Floor::prepare(arguments).ok();
    for network in ["bridge", "none"] {
        runs(&docker, &engines, network, floor.as_ref(), arguments.rounds, &mut table)?;
    }
    table.row("memory of the idle engine, MB", vec![idle[0]], vec![idle[1]], vec![]);
    let each = per_container(&docker, &engines)?;
    table.row("memory per running container, MB", vec![each[0]], vec![each[1]], vec![]);
    let size = |paths: &[&Path]| paths.iter().map(|path| file_size(path)).sum::<f64>();
    let docker_parts =
        ["containerd", "containerd-shim-runc-v2", "docker"].map(|name| Path::new("/usr/bin").join(name));
    let runc = Path::new("/usr/sbin/runc");
    let theirs: Vec<&Path> =
        docker_parts.iter().map(PathBuf::as_path).chain([arguments.dockerd.as_path(), runc]).collect();
    table.row("size of what is installed, MB", vec![size(&[&arguments.dory])], vec![size(&theirs)], vec![]);
    end(arguments, engines, &table)
}

fn load_busybox(arguments: &BenchArguments, docker: &Path, engine: &Engine) -> Result<()> {
    let archive = arguments.images.join("busybox.tar");
    docker_command(docker, engine, &["load", "--quiet", "--input", &archive.display().to_string()]).map(drop)
}

/// Prints what was measured, and takes everything down.
fn end(arguments: &BenchArguments, mut engines: [Engine; 2], table: &Table) -> Result<()> {
    table.print();
    for engine in &mut engines {
        engine.stop(Signal::TERM)?;
    }
    drop(engines);
    let _ = std::fs::remove_dir_all(&arguments.work);
    Ok(())
}

fn file_size(path: &Path) -> f64 {
    std::fs::metadata(path).map_or(0.0, |metadata| metadata.len() as f64 / 1e6)
}

/// From the engine's process being spawned to its first answer.
fn starts(engines: &mut [Engine; 2], rounds: usize, table: &mut Table) -> Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (engine, times) in engines.iter_mut().zip(&mut times) {
            times.push(milliseconds(engine.start()?));
            engine.stop(Signal::TERM)?;
        }
    }
    let [dory, dockerd] = times;
    table.row("start to first _ping, ms", dory, dockerd, vec![]);
    Ok(())
}

fn runs(
    docker: &Path,
    engines: &[Engine; 2],
    network: &str,
    floor: Option<&Floor>,
    rounds: usize,
    table: &mut Table,
) -> Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    let mut least = Vec::new();
    // The first of each is not counted: it pulls programs into memory.
    for round in 0..=rounds {
        for (engine, times) in engines.iter().zip(&mut times) {
            let took =
                docker_command(docker, engine, &["run", "--rm", "--network", network, "busybox", "true"])?;
            if round > 0 {
                times.push(milliseconds(took));
            }
        }
        if let (Some(floor), "none") = (floor, network)
            && let Ok(took) = floor.run()
            && round > 0
        {
            least.push(milliseconds(took));
        }
    }
    let [dory, dockerd] = times;
    table.row(&format!("docker run --rm --network {network} busybox true, ms"), dory, dockerd, least);
    Ok(())
}

fn docker_command(docker: &Path, engine: &Engine, arguments: &[&str]) -> Result<Duration> {
    let began = Instant::now();
    let output = Command::new(docker)
        .env("DOCKER_HOST", format!("unix://{}", engine.socket.display()))
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    let took = began.elapsed();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`docker {}` on {}: {errors}", arguments.join(" "), engine.kind.name());
    Ok(took)
}

/// What the engine and its helpers take more for each container, without the container's own process.
fn per_container(docker: &Path, engines: &[Engine; 2]) -> Result<Vec<f64>> {
    engines
        .iter()
        .map(|engine| {
            let before = memory(engine.kind)?;
            let names: Vec<String> = (0..CONTAINERS).map(|number| format!("bench-{number}")).collect();
            for name in &names {
                docker_command(docker, engine, &["run", "-d", "--name", name, "busybox", "sleep", "1000"])?;
            }
            std::thread::sleep(Duration::from_secs(1));
            let after = memory(engine.kind)?;
            let mut remove = vec!["rm", "--force"];
            remove.extend(names.iter().map(String::as_str));
            docker_command(docker, engine, &remove)?;
            Ok((after - before) / CONTAINERS as f64)
        })
        .collect()
}

/// The proportional set size, in MB, of all processes that run the engine's programs.
///
/// The run has a pid namespace of its own, so that no other engine on the machine is counted.
fn memory(kind: EngineKind) -> Result<f64> {
    let kilobytes: u64 =
        processes(kind)?.iter().map(|folder| proportional_set_size(folder).unwrap_or(0)).sum();
    ensure!(kilobytes > 0, "no process of {}", kind.name());
    Ok(kilobytes as f64 / 1e3)
}

/// The folders in `/proc` of all processes that run the engine's programs.
fn processes(kind: EngineKind) -> Result<Vec<PathBuf>> {
    let programs: &[&str] = match kind {
        EngineKind::Dory => &["dory"],
        EngineKind::Dockerd => &["dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy"],
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let folder = entry?.path();
        let Ok(program) = std::fs::read_link(folder.join("exe")) else {
            continue;
        };
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // A program that runs from a sealed memory file is called `/memfd:NAME (deleted)`.
        let name = name.trim_start_matches("memfd:").trim_end_matches(" (deleted)");
        if programs.contains(&name) {
            found.push(folder);
        }
    }
    Ok(found)
}

fn proportional_set_size(folder: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(folder.join("smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

/// `crun run` of the same program without any engine: as little as it can take.
struct Floor {
    bundle: PathBuf,
    /// Holds a mount namespace without the empty cgroup2 mount of hybrid machines, which crun refuses.
    holder: Child,
}

impl Floor {
    fn prepare(arguments: &BenchArguments) -> Result<Self> {
        let bundle = arguments.work.join("crun");
        let script =
            "mkdir -p \"$1/rootfs\"; cd \"$1\"; tar -xOf \"$2\" --wildcards '*/layer.tar' | tar -xC rootfs
            crun spec; sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"true\"/' config.json";
        let status = Command::new("sh")
            .args(["-ec", script, "sh"])
            .args([&bundle, &arguments.images.join("busybox.tar")])
            .status()?;
        ensure!(status.success(), "no crun");
        let holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", "umount /sys/fs/cgroup/unified 2>/dev/null; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(200));
        let floor = Self { bundle, holder };
        floor.run().context("`crun run` does not accept this machine")?;
        Ok(floor)
    }

    fn run(&self) -> Result<Duration> {
        let began = Instant::now();
        let status = Command::new("nsenter")
            .args([&format!("--mount=/proc/{}/ns/mnt", self.holder.id()), "--", "crun", "run", "--bundle"])
            .arg(&self.bundle)
            .arg("dory-bench-floor")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "`crun run` failed: {status}");
        Ok(began.elapsed())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[derive(Default)]
struct Table(Vec<(String, [Vec<f64>; 3])>);

impl Table {
    fn row(&mut self, what: &str, dory: Vec<f64>, dockerd: Vec<f64>, floor: Vec<f64>) {
        self.0.push((what.to_owned(), [dory, dockerd, floor]));
    }

    fn print(&self) {
        println!("\nmedian (min..max)");
        println!("{:52} {:>26} {:>26} {:>8} {:>24}", "", "dory", "dockerd", "ratio", "floor");
        for (what, [dory, dockerd, floor]) in &self.0 {
            let ratio = median(dory) / median(dockerd);
            let ratio = if ratio.is_nan() { "-".to_owned() } else { format!("{ratio:.2}") };
            let shown = [shown(dory), shown(dockerd), shown(floor)];
            println!("{what:52} {:>26} {:>26} {ratio:>8} {:>24}", shown[0], shown[1], shown[2]);
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shown(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    match values.len() {
        0 => "-".to_owned(),
        1 => format!("{least:.1}"),
        _ => format!("{:.1} ({least:.1}..{most:.1})", median(values)),
    }
}
