//! Goes through all fault points.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use crate::drive::BYSTANDER;
use crate::inventory::{self, Inventory};

/// A point is tried at no more than so many arrivals; records are written at every step.
const ARRIVALS_MAX: u32 = 60;
/// So many arrivals are tried where nobody asks for all of them.
const ARRIVALS: u32 = 2;
/// No engine of this test lives longer.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long the last of a killed engine's work may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where it all happens, and what was there before.
struct Controller {
    directory: tempfile::TempDir,
    baseline: Inventory,
}

/// Tries every point that `wanted` chooses, at `every` arrival or at the first ones.
pub fn run(wanted: &dyn Fn(&str) -> bool, every: bool) -> ExitCode {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    // Ports are published on it.
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("iproute2").success());
    let empty = inventory_of(directory.path());
    let mut controller = Controller { directory, baseline: Inventory::new() };
    controller.succeed("begin");
    // One whole life without a fault: what it leaves is what every other one may leave.
    controller.succeed("drive");
    controller.succeed("finish");
    let whole = controller.inspect().and_then(|inspected| controller.settle(&inspected));
    controller.baseline = whole.expect("a whole life leaves nothing");
    let mut failures = 0;
    let points: Vec<String> = points().into_iter().filter(|point| wanted(point)).collect();
    for point in &points {
        failures += controller.try_point(point, if every { ARRIVALS_MAX } else { ARRIVALS });
    }
    controller.succeed("dismantle");
    let data = controller.directory.path().join("data");
    let left = inventory::difference(&empty, &inventory_of(controller.directory.path()));
    let left: Vec<&String> = left.iter().filter(|line| !line.contains(data.to_str().unwrap())).collect();
    println!("left of everything: {left:#?}");
    println!("\n{} points, {failures} failures", points.len());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Controller {
    /// Dies at each arrival at `point` in turn, and counts what was not right.
    fn try_point(&self, point: &str, arrivals: u32) -> usize {
        let begin = Instant::now();
        let mut failures = 0;
        let mut tried = 0;
        for arrival in 1..=arrivals {
            match self.try_arrival(point, arrival) {
                Ok(true) => tried = arrival,
                Ok(false) if arrival == 1 => {
                    println!("FAILED {point}: nothing comes by there; let `drive` do what does");
                    return failures + 1;
                }
                Ok(false) => break,
                Err(failure) => {
                    println!("FAILED {point} #{arrival}: {failure}");
                    failures += 1;
                    tried = arrival;
                    // The next one begins with the inventory that it should have.
                    self.succeed("finish");
                }
            }
        }
        println!("{point}: {tried} arrivals, {} ms", begin.elapsed().as_millis());
        failures
    }

    /// False where the life ended before that arrival.
    fn try_arrival(&self, point: &str, arrival: u32) -> Result<bool, String> {
        let plan = self.directory.path().join("plan");
        std::fs::write(&plan, format!("{arrival:06} {point}")).unwrap();
        let driven = self.run("drive", Some(&plan));
        let fired = std::fs::read_to_string(&plan).unwrap().starts_with("000000 ");
        let said = driven.said;
        if !driven.status.success() && driven.status.signal() != Some(9) {
            return Err(format!("the engine ended with {}:\n{said}", driven.status));
        }
        if !fired {
            return Ok(false);
        }
        let first = self.inspect()?;
        let settled = self.settle(&first).map_err(|error| format!("{error}\n{first}\n{said}"))?;
        let second = self.inspect()?;
        if first != second {
            return Err(format!("a second engine finds\n{second}\nand not\n{first}\n{said}"));
        }
        let later = self.settle(&second)?;
        let difference = inventory::difference(&settled, &later);
        if !difference.is_empty() {
            return Err(format!("a second engine changed {difference:#?}\n{said}"));
        }
        let finished = self.run("finish", None);
        if !finished.status.success() {
            return Err(format!("cannot go on from\n{first}\n{}\n{said}", finished.said));
        }
        let difference = eventually(|| {
            let difference = inventory::difference(&self.baseline, &inventory_of(self.directory.path()));
            if difference.is_empty() { Ok(()) } else { Err(difference) }
        });
        difference.map_err(|left| format!("leaks {left:#?}\n{first}\n{said}"))?;
        Ok(true)
    }

    fn inspect(&self) -> Result<String, String> {
        let Ended { status, said } = self.run("inspect", None);
        if !status.success() {
            return Err(format!("the next engine does not open:\n{said}"));
        }
        Ok(said.lines().filter(|line| line.starts_with("found ")).map(|line| format!("{line}\n")).collect())
    }

    /// Waits until the inventory is that of the running containers and of nothing else.
    fn settle(&self, inspected: &str) -> Result<Inventory, String> {
        // `bridge=172.17.0.2`: one for each network that a running container is in.
        let cables = inspected.split_whitespace().filter(|word| word.contains("=172.")).count();
        let running: BTreeSet<&str> = inspected
            .lines()
            .filter_map(|line| line.strip_prefix("found container "))
            .filter(|line| line.contains(" running ") || line.contains(" paused "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        if !inspected.lines().any(|line| line.contains(&format!("/{BYSTANDER} running "))) {
            return Err("the bystander does not run".into());
        }
        eventually(|| {
            let inventory = inventory_of(self.directory.path());
            let wrong = self.untrue(&inventory, &running, cables);
            if wrong.is_empty() { Ok(inventory) } else { Err(wrong) }
        })
        .map_err(|wrong| format!("not true: {wrong:#?}"))
    }

    /// What is there of containers that do not run, and what is missing of those that do.
    fn untrue(&self, inventory: &Inventory, running: &BTreeSet<&str>, connected: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let shims = inventory.iter().filter(|line| line.starts_with("process ") && line.contains(" shim "));
        let shims: BTreeSet<&str> = shims.filter_map(|line| line.split(' ').next_back()).collect();
        if shims != *running {
            wrong.push(format!("shims {shims:?}, running {running:?}"));
        }
        let exec_root = format!("file {}/containers/", self.directory.path().join("run").display());
        for line in inventory {
            let id = line.split(['/', ' ']).find(|word| word.len() == 64);
            let of_a_run = line.starts_with("cgroup ") || line.starts_with(&exec_root);
            if of_a_run && id.is_some_and(|id| !running.contains(id)) {
                wrong.push(line.clone());
            }
        }
        let programs =
            inventory.iter().filter(|line| line.starts_with("process ") && line.contains(" sleep 1"));
        if programs.clone().count() != running.len() {
            wrong.push(format!("programs {:?}", programs.collect::<Vec<_>>()));
        }
        // The last engine's probe of the surroundings ends by itself; so does a process on its way to its program.
        wrong.extend(inventory.iter().filter(|line| is_passing(line)).cloned());
        let cables = inventory.iter().filter(|line| line.starts_with("link ") && line.contains('@')).count();
        if cables != connected {
            wrong.push(format!("{cables} network cables for {connected} endpoints"));
        }
        wrong
    }

    fn succeed(&self, role: &str) {
        let Ended { status, said } = self.run(role, None);
        assert!(status.success(), "{role}: {status}\n{said}");
    }

    fn run(&self, role: &str, plan: Option<&Path>) -> Ended {
        // Not to a pipe: shims hold its other end for as long as they live.
        let path = self.directory.path().join("said");
        let said = std::fs::File::create(&path).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(role).arg(self.directory.path()).stdout(said.try_clone().unwrap()).stderr(said);
        command.envs(plan.map(|plan| (dory_sys::fault::PLAN, plan)));
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + LIFETIME;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    child.kill().unwrap();
                    break ExitStatus::from_raw(0xff00);
                }
                None => std::thread::sleep(Duration::from_millis(3)),
            }
        };
        Ended { status, said: std::fs::read_to_string(path).unwrap() }
    }
}

/// A process that is neither a shim nor a container's program.
fn is_passing(line: &str) -> bool {
    line.starts_with("process ") && !line.contains(" shim ") && !line.contains(" sleep 1")
}

/// How an engine ended, and what it said.
struct Ended {
    status: ExitStatus,
    said: String,
}

/// The points that the sources name.
fn points() -> Vec<String> {
    let mut sources = Vec::new();
    collect_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut sources);
    let mut points = BTreeSet::new();
    for source in sources {
        let text = std::fs::read_to_string(source).unwrap();
        let names = text.split("fault_point!(\"").skip(1).filter_map(|rest| rest.split('"').next());
        points.extend(names.map(str::to_owned));
    }
    assert!(!points.is_empty(), "the sources name no point");
    points.into_iter().collect()
}

fn collect_sources(directory: &Path, sources: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "tests" {
            collect_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}

fn inventory_of(directory: &Path) -> Inventory {
    inventory::take(directory, &crate::fixture::cgroup_parent(directory))
}

/// Asks until it is right, or long enough.
fn eventually<T>(check: impl Fn() -> Result<T, Vec<String>>) -> Result<T, Vec<String>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            outcome => return outcome,
        }
    }
}
