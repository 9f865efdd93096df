//! Runs cases against engines and tells what came of them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::engine::Engine;
use crate::pattern::lines_match;
use crate::session::{Output, Session};
use crate::transcript::{Case, Cli, EngineKind, Step};

/// How many runs of cases may hold only the second time.
pub const MAY_BE_UNSTABLE: usize = 5;

/// Where things are, for every case.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Holds `old/docker`, `new/docker`, `python/bin/python3`.
    pub tools: PathBuf,
    /// Archives of the test images.
    pub images: PathBuf,
    /// The transcripts and what they call.
    pub cases: PathBuf,
    /// The binary under test.
    pub dory: PathBuf,
    /// Scratch space.
    pub work: PathBuf,
    /// What every timeout is multiplied by (emulated machines are slow).
    pub slow: u32,
    /// Cases that run at once on one engine.
    pub jobs: usize,
}

/// How many cases came to what.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Held.
    pub passed: usize,
    /// The names of those that did not hold.
    pub failed: Vec<String>,
    /// The names of those that held only when they were run again with the engine to themselves.
    pub unstable: Vec<String>,
    /// Not run, for a reason that the case states.
    pub skipped: usize,
}

impl Tally {
    /// Adds another engine's.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.unstable.extend(other.unstable);
        self.skipped += other.skipped;
    }
}

/// One run of a case that is still to be made.
type Attempt<'a> = (&'a Case, Cli);

/// Runs `cases` on `engine`, side by side where they allow it.
///
/// What fails is run once more with the engine to itself, and counts as unstable if it holds then: a machine that is busy
/// enough breaks expectations about time. The report of the first failure stays in the output, and [`MAY_BE_UNSTABLE`]
/// limits how many there may be.
pub fn run_all(engine: &Engine, cases: &[Case], around: &Surroundings) -> Tally {
    let tally = Mutex::new(Tally::default());
    let again = Mutex::new(Vec::new());
    let (alone, together): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.alone);
    let queue = Mutex::new(together.into_iter().collect::<VecDeque<_>>());
    std::thread::scope(|scope| {
        for _ in 0..around.jobs {
            scope.spawn(|| {
                while let Some(case) = lock(&queue).pop_front() {
                    run_case(engine, case, around, &tally, &again);
                }
            });
        }
    });
    for case in alone {
        run_case(engine, case, around, &tally, &again);
    }
    let mut tally = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    for attempt in again.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        run_again(engine, attempt, around, &mut tally);
    }
    tally
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn run_case<'a>(
    engine: &Engine,
    case: &'a Case,
    around: &Surroundings,
    tally: &Mutex<Tally>,
    again: &Mutex<Vec<Attempt<'a>>>,
) {
    for cli in &case.clis {
        let label = label(engine, (case, *cli));
        if let Some(why) = reason_to_skip(case, engine.kind) {
            lock(tally).skipped += 1;
            println!("skip {label} ({why})");
            continue;
        }
        let began = Instant::now();
        let outcome = run_once(engine, case, *cli, around, "");
        let seconds = began.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                lock(tally).passed += 1;
                println!("ok   {label} ({seconds:.1} s)");
            }
            Err(error) => {
                println!("MISS {label} ({seconds:.1} s), to be run again\n{}", indent(&format!("{error:#}")));
                lock(again).push((case, *cli));
            }
        }
    }
}

fn run_again(engine: &Engine, attempt: Attempt<'_>, around: &Surroundings, tally: &mut Tally) {
    let label = label(engine, attempt);
    match run_once(engine, attempt.0, attempt.1, around, "-again") {
        Ok(()) => {
            println!("UNSTABLE {label}: held the second time");
            tally.unstable.push(label);
        }
        Err(error) => {
            println!("FAIL {label}\n{}", indent(&format!("{error:#}")));
            tally.failed.push(label);
        }
    }
}

fn label(engine: &Engine, (case, cli): Attempt<'_>) -> String {
    format!("{:7} {:3} {}", engine.kind.name(), cli.name(), case.name)
}

fn reason_to_skip(case: &Case, kind: EngineKind) -> Option<&str> {
    if case.full_root && kind == EngineKind::Dockerd && !has_every_capability() {
        return Some("root lacks a capability here, and runc refuses --privileged then");
    }
    case.skips.iter().find(|(of, _)| *of == kind).map(|(_, why)| why.as_str())
}

/// Whether the bounding set goes up to the kernel's last capability, without a gap.
fn has_every_capability() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = bounding.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
    let last: Option<u32> = last.trim().parse().ok();
    matches!((bounding, last), (Some(set), Some(last)) if set == u64::MAX >> (63 - last.min(63)))
}

fn indent(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "     | {line}");
        all
    })
}

/// Runs a case; `suffix` tells the folders of a second run from those of the first.
fn run_once(engine: &Engine, case: &Case, cli: Cli, around: &Surroundings, suffix: &str) -> Result<()> {
    let number = case.steps.first().map_or(0, |step| step.line);
    let area = case.name.split(':').next().unwrap_or("case").replace(' ', "-");
    let id = format!("{area}{number}{}", cli.name());
    let folder = around.work.join(engine.kind.name()).join("cases").join(format!("{id}{suffix}"));
    let environment = environment(engine, cli, around, &id);
    let prelude = around.cases.join("prelude.sh");
    let mut session = Session::start(&folder, &prelude, &environment)?;
    let deadline = Instant::now() + case.timeout * around.slow;
    let outcome = case.steps.iter().try_for_each(|step| {
        let output = session
            .run(&step.command, deadline)
            .with_context(|| format!("line {}: `{}`", step.line, step.command))?;
        check(step, engine.kind, &output)
    });
    // What is left over would be in the way of others; its failure is nobody's but the engine's own cases'.
    let _ = session.run("cleanup", Instant::now() + Duration::from_secs(30) * around.slow);
    outcome
}

/// What programs beside an engine find in their environment; `id` names the case.
pub fn environment(engine: &Engine, cli: Cli, around: &Surroundings, id: &str) -> Vec<(String, String)> {
    let show = |path: &std::path::Path| path.display().to_string();
    let tools = show(&around.tools);
    let venv = around.tools.join("python/bin/python3");
    let python = if venv.exists() { show(&venv) } else { "/usr/bin/python3".to_owned() };
    let path = format!("{tools}/{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", cli.name());
    [
        ("PATH", path),
        ("DOCKER_HOST", format!("unix://{}", show(&engine.socket))),
        ("DOCKER_CONFIG", format!("{tools}/{}/config", cli.name())),
        ("DOCKER_BUILDKIT", "0".to_owned()),
        ("C", id.to_owned()),
        // For engines that a case starts itself; removed with the groups of the engine under test.
        ("CGROUP_PARENT", format!("{}-{id}", engine.cgroup_parent())),
        ("CLI", cli.name().to_owned()),
        ("ENGINE", engine.kind.name().to_owned()),
        ("ENGINE_PID", engine.pid().map_or(String::new(), |pid| pid.to_string())),
        ("ENGINE_ROOT", show(&engine.folder.join("data"))),
        ("SOCKET", show(&engine.socket)),
        ("HOST_NETNS", engine.host.path()),
        ("OUTSIDE_NETNS", engine.outside.path()),
        ("DORY", show(&around.dory)),
        ("IMAGES", show(&around.images)),
        ("CASES", show(&around.cases)),
        ("PYTHON", python),
        ("SLOW", around.slow.to_string()),
        ("LC_ALL", "C".to_owned()),
        ("TERM", "dumb".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn check(step: &Step, kind: EngineKind, output: &Output) -> Result<()> {
    let text = output.stdout.replace('\r', "");
    let actual: Vec<&str> = text.lines().collect();
    let expected = step.stdout(kind);
    let errors: Vec<&str> = output.stderr.lines().collect();
    let status = step.status(kind);
    let held = output.status == status
        && lines_match(&expected, &actual)
        && (step.stderr().is_empty() || lines_match(step.stderr(), &errors));
    if held {
        return Ok(());
    }
    let mut report = format!("line {}: $ {}\n", step.line, step.command);
    let _ = writeln!(report, "expected (status {status}):\n{}", expected.join("\n"));
    if !step.stderr().is_empty() {
        let _ = writeln!(report, "expected on standard error:\n{}", step.stderr().join("\n"));
    }
    let _ = writeln!(report, "got (status {}):\n{}", output.status, actual.join("\n"));
    let _ = write!(report, "got on standard error:\n{}", errors.join("\n"));
    bail!(report)
}
