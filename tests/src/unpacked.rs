//! Lets both engines unpack the same images, and compares the trees that containers would see, file by file.
//!
//! The trees are the engines' own layers as `docker image inspect` names them (`GraphDriver.Data`), mounted with overlayfs:
//! what counts is what the kernel makes of whiteouts and opaque directories. Dory's are mounted a second time as a mount in a
//! user namespace reads them, with `userxattr`.

mod images;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::compare::{self, Aspect, Difference};
use crate::engine::Engine;
use crate::transcript::EngineKind;

/// Whose images are compared.
#[derive(Debug, clap::Args)]
pub struct UnpackedArguments {
    /// The dory binary.
    #[arg(long)]
    dory: PathBuf,
    /// Docker's daemon.
    #[arg(long)]
    dockerd: PathBuf,
    /// Folder with the docker commands.
    #[arg(long)]
    tools: PathBuf,
    /// Archives of more images; each must have exactly one.
    #[arg(long)]
    archive: Vec<PathBuf>,
    /// Scratch space; removed at the end.
    #[arg(long, default_value = "/var/tmp/dory-unpacked")]
    work: PathBuf,
}

/// How overlayfs shall read a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// As a mount of root's.
    Trusted,
    /// As a mount in a user namespace.
    User,
}

/// Compares all images; true where nothing differs.
///
/// # Errors
/// An engine does not start or does not take an image.
pub fn run(arguments: &UnpackedArguments) -> Result<bool> {
    let work = crate::scratch(&arguments.work)?;
    let mut archives = images::make(&work)?;
    archives.extend(arguments.archive.iter().cloned());
    let mut ours = Engine::prepare(EngineKind::Dory, &arguments.dory, &work.join("dory"))?;
    let mut theirs = Engine::prepare(EngineKind::Dockerd, &arguments.dockerd, &work.join("dockerd"))?;
    let docker = arguments.tools.join("new/docker");
    let mut is_same = true;
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?;
    for engine in [&mut ours, &mut theirs] {
        engine.start()?;
    }
    for archive in &archives {
        let right = Mounted::new(&theirs, &docker, archive, View::Trusted, &work)?;
        for view in [View::Trusted, View::User] {
            let left = Mounted::new(&ours, &docker, archive, view, &work)?;
            let mut differences = compare::trees(&left.root, &right.root)?;
            differences.retain(|difference| !is_of_unpacking(difference, began));
            let name = archive.file_stem().unwrap_or_default().to_string_lossy();
            println!(
                "{} {name} ({view:?}): {} differences",
                verdict(differences.is_empty()),
                differences.len()
            );
            differences.iter().take(50).for_each(|difference| println!("     {difference}"));
            is_same &= differences.is_empty();
        }
    }
    for engine in [&mut ours, &mut theirs] {
        engine.stop(Signal::TERM)?;
    }
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove `{}`", work.display()))?;
    Ok(is_same)
}

/// True for the times of a directory that no entry of the archive names: it was made now, on both sides.
fn is_of_unpacking(difference: &Difference, began: Duration) -> bool {
    let is_new = |time: &str| time.parse().is_ok_and(|seconds: f64| seconds >= began.as_secs_f64());
    difference.aspect == Aspect::Time && is_new(&difference.left) && is_new(&difference.right)
}

fn verdict(is_good: bool) -> &'static str {
    if is_good { "ok  " } else { "FAIL" }
}

/// An image's tree; unmounted when this goes away.
struct Mounted {
    root: PathBuf,
}

impl Mounted {
    /// Loads the image of `archive` on `engine`, and mounts what its container would see.
    fn new(engine: &Engine, docker: &Path, archive: &Path, view: View, work: &Path) -> Result<Self> {
        let loaded =
            docker_output(engine, docker, &["load", "--quiet", "--input", &archive.display().to_string()])?;
        let (_, image) = loaded.trim().rsplit_once(' ').context("`docker load` names no image")?;
        let format = r#"{{.GraphDriver.Data.UpperDir}}:{{with .GraphDriver.Data.LowerDir}}{{.}}{{end}}"#;
        let layers = docker_output(engine, docker, &["image", "inspect", "--format", format, image])?;
        let root = work.join(format!("{}-{view:?}", engine.kind.name()));
        std::fs::create_dir_all(&root)?;
        // Overlayfs wants two directories at least.
        let empty = work.join("empty");
        std::fs::create_dir_all(&empty)?;
        let layers = layers.trim().trim_end_matches(':').trim_end_matches(":<no value>");
        let userxattr = if view == View::User { "userxattr," } else { "" };
        let options = format!("ro,{userxattr}lowerdir={layers}:{}", empty.display());
        let mounted =
            Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&root).status()?;
        ensure!(mounted.success(), "cannot mount `{image}` of {}: {options}", engine.kind.name());
        Ok(Self { root })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.root).status();
    }
}

fn docker_output(engine: &Engine, docker: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(docker)
        .env("DOCKER_HOST", format!("unix://{}", engine.socket.display()))
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`docker {}` on {}: {errors}", arguments.join(" "), engine.kind.name());
    Ok(String::from_utf8(output.stdout)?)
}
