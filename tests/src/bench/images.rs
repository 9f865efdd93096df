//! An image of about a gigabyte in twelve uneven layers: how long it takes to load and to save it.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{BenchArguments, Table, docker_command};
use crate::engine::Engine;

/// How the files are divided among the layers.
const WEIGHTS: [u64; 12] = [30, 20, 12, 9, 7, 6, 5, 4, 3, 2, 1, 1];
/// The image's name.
const NAME: &str = "dory-bench:big";

/// Measures `rounds` loads and saves on both engines in turn, and beside them the least that it can take.
pub(super) fn run(
    arguments: &BenchArguments,
    docker: &Path,
    engines: &[Engine; 2],
    table: &mut Table,
) -> Result<()> {
    let work = arguments.work.join("image");
    fs::create_dir_all(&work)?;
    let archive = Archive::make(&work, arguments.image_size << 20)?;
    let (mut loads, mut saves) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut podman = Vec::new();
    let mut floor = Vec::new();
    for _ in 0..arguments.rounds.min(3) {
        for ((engine, loads), saves) in engines.iter().zip(&mut loads).zip(&mut saves) {
            let text = |path: &Path| path.display().to_string();
            let took = docker_command(docker, engine, &["load", "--quiet", "--input", &text(&archive.path)])?;
            loads.push(took.as_secs_f64());
            let saved = work.join("saved.tar");
            let took = docker_command(docker, engine, &["save", "--output", &text(&saved), NAME])?;
            saves.push(took.as_secs_f64());
            fs::remove_file(saved)?;
            docker_command(docker, engine, &["rmi", NAME])?;
        }
        floor.push(archive.unpack(&work)?.as_secs_f64());
        podman.extend(archive.podman(&work).map(|took| took.as_secs_f64()));
    }
    let [dory, dockerd] = loads;
    let size = archive.size >> 20;
    table.row(&format!("docker load of {size} MiB in 12 layers, s"), dory, dockerd.clone(), floor);
    if !podman.is_empty() {
        table.row("  the same, podman load in place of dory", podman, dockerd, vec![]);
    }
    let [dory, dockerd] = saves;
    table.row("docker save of the same, s", dory, dockerd, vec![]);
    Ok(())
}

/// The image's archive and its layers.
struct Archive {
    path: PathBuf,
    layers: Vec<PathBuf>,
    size: u64,
}

impl Archive {
    /// Makes the image of files of this machine, `size` bytes of them: programs, libraries and documents, as images have.
    fn make(work: &Path, size: u64) -> Result<Self> {
        let mut files = Vec::new();
        let mut total = 0;
        let listed =
            output(Command::new("find").args(["/usr", "-xdev", "-type", "f", "-printf", "%s %P\n"]))?;
        for line in listed.lines() {
            let Some((length, name)) = line.split_once(' ') else { continue };
            let length: u64 = length.parse()?;
            if total + length <= size {
                total += length;
                files.push((length, name));
            }
        }
        let mut layers = Vec::new();
        let mut rest = files.as_slice();
        for (number, weight) in WEIGHTS.iter().enumerate() {
            let wanted = total * weight / WEIGHTS.iter().sum::<u64>();
            let mut taken = 0;
            let count = rest.iter().take_while(|(length, _)| {
                taken += length;
                taken <= wanted
            });
            let (part, left) = rest.split_at(count.count());
            rest = left;
            layers.push(layer(work, number, part)?);
        }
        let path = pack(work, &layers)?;
        Ok(Self { size: fs::metadata(&path)?.len(), path, layers })
    }

    /// The least that a load can be: each layer hashed and unpacked by the usual tools, all at once.
    fn unpack(&self, work: &Path) -> Result<Duration> {
        let target = work.join("floor");
        fs::create_dir_all(&target)?;
        let began = Instant::now();
        let mut children = Vec::new();
        for layer in &self.layers {
            let name = layer.file_name().unwrap_or_default();
            fs::create_dir_all(target.join(name))?;
            children
                .push(Command::new("tar").arg("-xf").arg(layer).arg("-C").arg(target.join(name)).spawn()?);
            children.push(Command::new("sha256sum").arg(layer).stdout(std::process::Stdio::null()).spawn()?);
        }
        for mut child in children {
            ensure!(child.wait()?.success(), "a layer cannot be unpacked");
        }
        let took = began.elapsed();
        fs::remove_dir_all(target)?;
        Ok(took)
    }

    /// How long podman takes, where there is one.
    fn podman(&self, work: &Path) -> Option<Duration> {
        let root = work.join("podman");
        let podman = |arguments: &[&str]| {
            let status = Command::new("podman")
                .arg("--root")
                .arg(&root)
                .arg("--runroot")
                .arg(work.join("podman-run"))
                .args(arguments)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        let began = Instant::now();
        let loaded = podman(&["load", "--quiet", "--input", &self.path.display().to_string()]);
        let took = began.elapsed();
        if loaded {
            podman(&["rmi", "--all", "--force"]);
        }
        loaded.then_some(took)
    }
}

/// Packs `files` of `/usr`.
fn layer(work: &Path, number: usize, files: &[(u64, &str)]) -> Result<PathBuf> {
    let list = work.join("list");
    let names: String = files.iter().map(|(_, name)| format!("usr/{name}\n")).collect();
    fs::write(&list, names)?;
    let path = work.join(format!("layer{number}.tar"));
    output(
        Command::new("tar")
            .args(["--format=posix", "--no-recursion", "--pax-option=delete=atime,delete=ctime", "-C", "/"])
            .arg("-cf")
            .arg(&path)
            .arg("-T")
            .arg(&list),
    )?;
    Ok(path)
}

/// Puts the layers into one archive in docker's form.
fn pack(work: &Path, layers: &[PathBuf]) -> Result<PathBuf> {
    let mut diff_ids = Vec::new();
    for layer in layers {
        let mut hasher = Sha256::new();
        std::io::copy(&mut File::open(layer)?, &mut hasher)?;
        diff_ids.push(format!("sha256:{:x}", hasher.finalize()));
    }
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": ["/usr/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": names}]);
    let path = work.join("image.tar");
    let mut archive = tar::Builder::new(BufWriter::new(File::create(&path)?));
    for (name, layer) in names.iter().zip(layers) {
        archive.append_file(name, &mut File::open(layer)?)?;
    }
    for (name, document) in [("config.json", config), ("manifest.json", manifest)] {
        let text = document.to_string();
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.into_inner()?.flush()?;
    Ok(path)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
