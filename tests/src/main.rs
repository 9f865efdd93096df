//! Black-box tests: transcripts that must hold for dory and for dockerd alike.

mod archive;
mod bench;
mod builds;
mod compare;
mod engine;
mod images;
mod inspector;
mod pattern;
mod runner;
mod session;
mod transcript;
mod unpacked;
mod with;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use engine::Engine;
use runner::{Surroundings, Tally};
use transcript::{Case, EngineKind};

/// Black-box tests of an engine through the programs that people use.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the transcripts.
    Run(RunArguments),
    /// Measure dory beside dockerd.
    Bench(bench::BenchArguments),
    /// Measure what images take, beside dockerd, podman and plain tools.
    BenchImages(bench::images::ImagesArguments),
    /// Measure what builds take, beside dockerd and Buildah.
    BenchBuilds(bench::builds::BuildsArguments),
    /// Make the same things on dory and on dockerd, and report what they answer differently.
    Inspector(inspector::InspectorArguments),
    /// Compare two file trees in everything that an image can say of a file.
    Compare {
        /// The one tree's root.
        left: PathBuf,
        /// The other's.
        right: PathBuf,
    },
    /// Let both engines unpack the same images, and compare every file.
    Unpacked(unpacked::UnpackedArguments),
    /// Build the same Dockerfiles on dory and on dockerd, and report what differs in the images.
    BuildCompare(builds::BuildCompareArguments),
    /// Run a command beside an engine of its own.
    With(with::WithArguments),
    /// Make the archives of the test images that need nothing but this machine's busybox.
    Images {
        /// Where they go.
        #[arg(long)]
        out: PathBuf,
        /// The static binary that becomes the image `dory`.
        #[arg(long)]
        dory: Option<PathBuf>,
    },
    /// Pack a directory or a tar archive as a one-layer image archive.
    Pack {
        /// The directory or archive.
        root: PathBuf,
        /// The archive.
        out: PathBuf,
        /// Its name and tag.
        tag: String,
        /// The image's configuration as JSON.
        #[arg(long, default_value = "{}")]
        config: String,
    },
}

#[derive(Debug, Args)]
struct RunArguments {
    /// The dory binary; without it only dockerd is tried.
    #[arg(long)]
    dory: Option<PathBuf>,
    /// The dockerd binary; without it only dory is tried.
    #[arg(long)]
    dockerd: Option<PathBuf>,
    /// Folder with the docker commands, see docs/testing.md.
    #[arg(long)]
    tools: PathBuf,
    /// Folder with the image archives.
    #[arg(long)]
    images: PathBuf,
    /// Folder with the transcripts.
    #[arg(long)]
    cases: PathBuf,
    /// Scratch space; removed at the end.
    #[arg(long, default_value = "/var/tmp/dory-tests")]
    work: PathBuf,
    /// Try only this engine.
    #[arg(long, value_parser = ["dory", "dockerd"])]
    engine: Option<String>,
    /// Leave the scratch space behind.
    #[arg(long)]
    keep: bool,
    /// Run only cases that have one of these tags.
    #[arg(long)]
    tag: Vec<String>,
    /// Multiply all timeouts.
    #[arg(long, default_value_t = 1)]
    slow: u32,
    /// Cases that run at once on one engine.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Run only cases whose names contain one of these.
    filter: Vec<String>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Verb::Run(arguments) => run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments).map(|()| true),
        Verb::BenchImages(arguments) => bench::images::run(&arguments).map(|()| true),
        Verb::BenchBuilds(arguments) => bench::builds::run(&arguments).map(|()| true),
        Verb::Inspector(arguments) => inspector::run(&arguments),
        Verb::Compare { left, right } => compare::trees(&left, &right).map(|found| {
            found.iter().for_each(|difference| println!("{difference}"));
            found.is_empty()
        }),
        Verb::Unpacked(arguments) => unpacked::run(&arguments),
        Verb::BuildCompare(arguments) => builds::run(&arguments),
        Verb::With(arguments) => with::run(&arguments),
        Verb::Images { out, dory } => images::make_all(&out, dory.as_deref()).map(|()| true),
        Verb::Pack { root, out, tag, config } => images::pack(&root, &out, &tag, &config).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &RunArguments) -> Result<bool> {
    let cases = select(arguments)?;
    let work = scratch(&arguments.work)?;
    let around = Surroundings {
        tools: std::path::absolute(&arguments.tools)?,
        images: std::path::absolute(&arguments.images)?,
        cases: std::path::absolute(&arguments.cases)?,
        dory: std::path::absolute(arguments.dory.as_deref().unwrap_or(Path::new("dory")))?,
        work: work.clone(),
        slow: arguments.slow,
        jobs: arguments.jobs,
    };
    let legs = [(EngineKind::Dory, &arguments.dory), (EngineKind::Dockerd, &arguments.dockerd)];
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let running: Vec<_> = legs
            .into_iter()
            .filter(|(kind, _)| arguments.engine.as_deref().is_none_or(|name| name == kind.name()))
            .filter_map(|(kind, binary)| binary.as_ref().map(|binary| (kind, binary)))
            .map(|(kind, binary)| {
                let (cases, around) = (&cases, &around);
                scope.spawn(move || run_leg(kind, binary, cases, around))
            })
            .collect();
        running.into_iter().map(|leg| leg.join().unwrap_or_else(|_| broken("the leg panicked"))).collect()
    });
    let mut total = Tally::default();
    tallies.into_iter().for_each(|tally| total.add(tally));
    if arguments.keep {
        println!("left behind: {}", work.display());
    } else {
        let _ = std::fs::remove_dir_all(&work);
    }
    summarise(&cases, &total);
    Ok(total.failed.is_empty() && total.unstable.len() <= runner::MAY_BE_UNSTABLE)
}

/// A new folder in `parent`; process ids do not tell runs apart, since each has a pid namespace of its own.
fn scratch(parent: &Path) -> Result<PathBuf> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let folder = parent.join(format!("{:x}", since.as_micros()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    Ok(folder)
}

fn select(arguments: &RunArguments) -> Result<Vec<Case>> {
    let wanted = |case: &Case| {
        (arguments.filter.is_empty() || arguments.filter.iter().any(|part| case.name.contains(part)))
            && (arguments.tag.is_empty() || case.tags.iter().any(|tag| arguments.tag.contains(tag)))
    };
    let mut cases = transcript::read_folder(&arguments.cases)?;
    cases.retain(wanted);
    ensure!(!cases.is_empty(), "no case has such a name or tag");
    Ok(cases)
}

fn broken(why: &str) -> Tally {
    Tally { failed: vec![why.to_owned()], ..Tally::default() }
}

fn run_leg(kind: EngineKind, binary: &Path, cases: &[Case], around: &Surroundings) -> Tally {
    let mut engine = match ready_engine(kind, binary, around) {
        Ok(engine) => engine,
        Err(error) => {
            println!("FAIL {} does not get ready: {error:#}", kind.name());
            return broken(&format!("{} does not get ready", kind.name()));
        }
    };
    let mut tally = runner::run_all(&engine, cases, around);
    if !(tally.failed.is_empty() && tally.unstable.is_empty()) && kind == EngineKind::Dory {
        println!("the log of {} ends:\n{}", kind.name(), engine.log_tail());
    }
    engine::remove_containers(&engine, &around.tools);
    if let Err(error) = engine.stop(rustix::process::Signal::TERM) {
        println!("FAIL {error:#}");
        tally.failed.push(format!("{} does not stop cleanly", kind.name()));
    }
    tally
}

fn ready_engine(kind: EngineKind, binary: &Path, around: &Surroundings) -> Result<Engine> {
    let mut engine = Engine::prepare(kind, binary, &around.work.join(kind.name()))?;
    // Less than Ethernet has, as in clouds and tunnels: what is too big for it must not get lost.
    engine.set_uplink_mtu(1400)?;
    let took = engine.start()?;
    println!("     {} answers after {} ms", kind.name(), took.as_millis());
    engine.load_images(&around.tools, &engine::archives(&around.images)?)?;
    Ok(engine)
}

fn summarise(cases: &[Case], total: &Tally) {
    let differing: Vec<&Case> = cases.iter().filter(|case| case.differs.is_some()).collect();
    if !differing.is_empty() {
        println!("\nknown differences between the engines:");
        for case in differing {
            println!("  {}: {}", case.name, case.differs.as_deref().unwrap_or_default());
        }
    }
    if !total.failed.is_empty() {
        println!("\nfailed:\n  {}", total.failed.join("\n  "));
    }
    if !total.unstable.is_empty() {
        println!("\nunstable (held the second time only):\n  {}", total.unstable.join("\n  "));
    }
    println!(
        "\n{} passed, {} unstable, {} failed, {} skipped",
        total.passed,
        total.unstable.len(),
        total.failed.len(),
        total.skipped
    );
}
