//! What builds take: a project of five stages, a hundred thousand small files, one large file; beside dockerd's BuildKit and
//! Buildah, in turn and in one run.
//!
//! "Cold" means that nothing of the build was done before: a file that the first stage copies is new each time. The base image
//! is there.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::engine::Engine;
use crate::transcript::EngineKind;

/// What of builds is measured.
#[derive(Debug, clap::Args)]
pub struct BuildsArguments {
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
    #[arg(long, default_value = "/var/tmp/dory-bench-builds")]
    work: PathBuf,
    /// How often the project is built.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many small files.
    #[arg(long, default_value_t = 100_000)]
    files: usize,
    /// How large the large file is, in MiB.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Leave these out: `dory`, `dory-engine`, `buildkit`, `buildah`.
    #[arg(long)]
    without: Vec<String>,
    /// Measure only these.
    #[arg(value_parser = ["project", "files", "large"])]
    parts: Vec<String>,
}

/// Five small stages; the third's source is the one that is touched.
const PROJECT: &str = "FROM busybox AS base\n\
    COPY nonce /nonce\n\
    RUN echo base >/base\n\
    FROM base AS library\n\
    COPY library /library\n\
    RUN cat /library/* >/library.out\n\
    FROM base AS program\n\
    COPY program /program\n\
    RUN cat /program/* >/program.out\n\
    FROM base AS documents\n\
    COPY documents /documents\n\
    RUN cat /documents/* >/documents.out\n\
    FROM busybox\n\
    COPY --from=library /library.out /\n\
    COPY --from=program /program.out /\n\
    COPY --from=documents /documents.out /\n\
    CMD [\"cat\", \"/program.out\"]\n";

/// Who builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Builder {
    /// `dory build`, no engine.
    Dory,
    /// The docker command and dory's engine.
    DoryEngine,
    /// The docker command and dockerd.
    Buildkit,
    /// Debian's Buildah.
    Buildah,
}

impl Builder {
    const ALL: [Self; 4] = [Self::Dory, Self::DoryEngine, Self::Buildkit, Self::Buildah];

    fn name(self) -> &'static str {
        match self {
            Self::Dory => "dory",
            Self::DoryEngine => "dory-engine",
            Self::Buildkit => "buildkit",
            Self::Buildah => "buildah",
        }
    }
}

/// Everything that is needed to build.
struct Bench<'a> {
    arguments: &'a BuildsArguments,
    engines: Vec<Engine>,
    /// Has the data-root and the network of `dory build`, and does not run.
    alone: Option<Engine>,
    builders: Vec<Builder>,
}

/// Measures, and prints each figure when it is known.
///
/// # Errors
/// An engine or a builder fails.
pub fn run(arguments: &BuildsArguments) -> Result<()> {
    let _ = std::fs::remove_dir_all(&arguments.work);
    std::fs::create_dir_all(&arguments.work)?;
    let builders: Vec<Builder> = Builder::ALL
        .into_iter()
        .filter(|builder| !arguments.without.iter().any(|name| name == builder.name()))
        .collect();
    let mut bench = Bench { arguments, engines: Vec::new(), alone: None, builders };
    bench.prepare()?;
    println!("{:28}{:14}{:>9} s", "", "", "wall");
    let wanted = |part: &str| arguments.parts.is_empty() || arguments.parts.iter().any(|name| name == part);
    if wanted("project") {
        bench.project()?;
    }
    if wanted("files") {
        bench.once("small files", "FROM scratch\nCOPY files /files\n", |folder| {
            many(folder, arguments.files)
        })?;
    }
    if wanted("large") {
        bench.once("large file", "FROM scratch\nCOPY large /large\n", |folder| {
            large(folder, arguments.size)
        })?;
    }
    for engine in &mut bench.engines {
        engine.stop(Signal::TERM)?;
    }
    drop(bench);
    let _ = std::fs::remove_dir_all(&arguments.work);
    Ok(())
}

impl Bench<'_> {
    /// Starts engines, and gives every builder the base image.
    fn prepare(&mut self) -> Result<()> {
        let busybox = self.arguments.images.join("busybox.tar");
        for (builder, kind, binary) in [
            (Builder::DoryEngine, EngineKind::Dory, &self.arguments.dory),
            (Builder::Buildkit, EngineKind::Dockerd, &self.arguments.dockerd),
        ] {
            if self.builders.contains(&builder) {
                let mut engine = Engine::prepare(kind, binary, &self.arguments.work.join(kind.name()))?;
                engine.start()?;
                engine.load_images(&self.arguments.tools, std::slice::from_ref(&busybox))?;
                self.engines.push(engine);
            }
        }
        if self.builders.contains(&Builder::Dory) {
            let BuildsArguments { dory, tools, work, .. } = self.arguments;
            self.alone = Some(Engine::prepare_store(
                dory,
                &work.join("alone"),
                tools,
                std::slice::from_ref(&busybox),
            )?);
        }
        if self.builders.contains(&Builder::Buildah) {
            let line = format!("{} pull --quiet docker-archive:{}", self.buildah(), busybox.display());
            self.shell(Builder::Buildah, &line, &self.arguments.work)?;
        }
        Ok(())
    }

    fn buildah(&self) -> String {
        let work = self.arguments.work.display();
        format!("buildah --root {work}/buildah/root --runroot {work}/buildah/run")
    }

    fn build(&self, builder: Builder, context: &Path) -> Result<f64> {
        let line = match builder {
            Builder::Dory => {
                let alone = self.alone.as_ref().context("nothing is prepared for `dory build`")?;
                format!(
                    "nsenter --net={} -- {} build --data-root {} --tag bench --progress quiet .",
                    alone.host.path(),
                    self.arguments.dory.display(),
                    alone.folder.join("data").display()
                )
            }
            Builder::DoryEngine | Builder::Buildkit => "docker build --quiet --tag bench .".to_owned(),
            // Its own isolation needs an OCI runtime and more rights than a container has.
            Builder::Buildah => {
                format!("{} build --layers --isolation chroot --quiet --tag bench .", self.buildah())
            }
        };
        let began = Instant::now();
        self.shell(builder, &line, context)?;
        Ok(began.elapsed().as_secs_f64())
    }

    fn shell(&self, builder: Builder, line: &str, folder: &Path) -> Result<()> {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("exec {line}")])
            .current_dir(folder)
            .env(
                "PATH",
                format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.arguments.tools.join("old").display()),
            )
            .env("DOCKER_BUILDKIT", "1")
            .stdin(Stdio::null());
        let kind = match builder {
            Builder::DoryEngine => Some(EngineKind::Dory),
            Builder::Buildkit => Some(EngineKind::Dockerd),
            Builder::Dory | Builder::Buildah => None,
        };
        if let Some(engine) = self.engines.iter().find(|engine| Some(engine.kind) == kind) {
            command.env("DOCKER_HOST", format!("unix://{}", engine.socket.display()));
        }
        let output = command.output().context("cannot start `sh`")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} fails at `{line}`: {said}", builder.name());
        Ok(())
    }

    /// Five stages: cold, unchanged, one file touched.
    fn project(&self) -> Result<()> {
        let context = self.arguments.work.join("project");
        for part in ["library", "program", "documents"] {
            std::fs::create_dir_all(context.join(part))?;
            for index in 0..20 {
                std::fs::write(context.join(part).join(format!("{index}.txt")), format!("{part} {index}\n"))?;
            }
        }
        std::fs::write(context.join("Dockerfile"), PROJECT)?;
        let mut times: Vec<[Vec<f64>; 3]> = vec![Default::default(); self.builders.len()];
        for round in 0..self.arguments.rounds {
            for (builder, times) in self.builders.iter().zip(&mut times) {
                std::fs::write(context.join("nonce"), format!("{} {round}", builder.name()))?;
                times[0].push(self.build(*builder, &context)?);
                times[1].push(self.build(*builder, &context)?);
                let mut touched =
                    std::fs::File::options().append(true).open(context.join("program/0.txt"))?;
                writeln!(touched, "{} {round}", builder.name())?;
                times[2].push(self.build(*builder, &context)?);
            }
        }
        for (index, what) in ["five stages, cold", "unchanged", "one file touched"].into_iter().enumerate() {
            for (builder, times) in self.builders.iter().zip(&mut times) {
                report(what, *builder, &mut times[index]);
            }
        }
        Ok(())
    }

    /// A context that is copied once, and once more unchanged.
    fn once(&self, what: &str, dockerfile: &str, fill: impl Fn(&Path) -> Result<()>) -> Result<()> {
        let context = self.arguments.work.join("context");
        std::fs::create_dir_all(&context)?;
        std::fs::write(context.join("Dockerfile"), dockerfile)?;
        fill(&context)?;
        for builder in &self.builders {
            let first = self.build(*builder, &context)?;
            report(&format!("{what}, first"), *builder, &mut [first]);
            let again = self.build(*builder, &context)?;
            report(&format!("{what}, unchanged"), *builder, &mut [again]);
        }
        std::fs::remove_dir_all(context)?;
        Ok(())
    }
}

/// A line with the median, and the range of several.
fn report(what: &str, builder: Builder, times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    let mut line = format!("{what:28}{:14}{:>9.3}", builder.name(), times[times.len() / 2]);
    if let [least, .., most] = times[..] {
        let _ = write!(line, "   {least:.3} to {most:.3}");
    }
    println!("{line}");
}

fn many(folder: &Path, count: usize) -> Result<()> {
    for index in 0..count {
        let parent = folder.join(format!("files/{}", index / 1000));
        if index % 1000 == 0 {
            std::fs::create_dir_all(&parent)?;
        }
        std::fs::write(
            parent.join(format!("{index}.txt")),
            format!("the content of the small file {index}\n"),
        )?;
    }
    Ok(())
}

/// Bytes that do not compress, as large files seldom do.
fn large(folder: &Path, mebibytes: usize) -> Result<()> {
    let mut file = std::fs::File::create(folder.join("large"))?;
    let mut random = std::fs::File::open("/dev/urandom")?;
    std::io::copy(&mut std::io::Read::take(&mut random, (mebibytes as u64) << 20), &mut file)?;
    Ok(())
}
