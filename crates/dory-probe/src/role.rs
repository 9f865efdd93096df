//! The probe child: a process of its own in which forking is safe.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use dory_cgroup::Hierarchies;
use dory_sys::process::NEW_USER;

use crate::attempt::{Attempt, Feature};
use crate::environment::Environment;
use crate::facilities::{Facilities, UserNamespace};
use crate::id_map;
use crate::namespaced::{self, NAMESPACES};
use crate::plain;
use crate::tier::Tier;
use crate::trial::{self, Outcomes};

/// The first argument by which the binary chooses this role, before any thread starts.
pub const PROBE_ROLE: &str = "probe-child";

/// How much to try.
pub(crate) const QUICK: &str = "quick";
/// Everything.
pub(crate) const FULL: &str = "full";

/// Runs the role: `arguments` are what follows [`PROBE_ROLE`] on the command line, in the form that [`crate::quick`]
/// and [`crate::full`] give them. Must be called while the process is single-threaded. Answers on standard output.
pub fn run_child_role(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (Some(depth), Some(data_root)) = (arguments.next(), arguments.next()) else {
        return ExitCode::from(2);
    };
    let facilities = probe(depth == FULL, Path::new(&data_root));
    let written = serde_json::to_vec(&facilities)
        .map_err(io::Error::from)
        .and_then(|text| io::stdout().write_all(&text));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn probe(full: bool, data_root: &Path) -> Facilities {
    let start = Instant::now();
    let scratch = Scratch::new(data_root);
    let mut facilities = Facilities {
        environment: Environment::read(data_root),
        direct: scratch.within("direct", || in_namespaces(0).1),
        user_namespace: UserNamespace::default(),
        tried_data_root: scratch.in_data_root,
        microseconds: 0,
    };
    // A device node on a nodev tmpfs cannot be opened, chown fails on NFS: all of it depends on the directory.
    let plain = scratch.within("plain", || {
        trial::run(0, |_| Ok(()), |reporter| plain::run(reporter, full)).unwrap_or_default()
    });
    facilities.direct.extend(plain);
    let group = Hierarchies::detect().and_then(|hierarchies| hierarchies.try_make());
    facilities.direct.insert(Feature::CgroupWrite, cgroup_attempt(group));
    if full || facilities.tier() != Some(Tier::Kernel) {
        facilities.user_namespace = scratch.within("user", in_user_namespace);
    }
    facilities.microseconds = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    facilities
}

/// The error number that is at the bottom of a refusal by the control group layer.
fn cgroup_attempt(result: Result<(), dory_cgroup::CgroupError>) -> Attempt {
    let Err(error) = result else { return Attempt::Works };
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    let number = source.and_then(io::Error::raw_os_error);
    Attempt::Refused(number.unwrap_or(rustix::io::Errno::ROFS.raw_os_error()))
}

/// Tries all namespaces at once, and one by one where that is refused; then everything in those that can be had.
/// `base` is 0 or `NEW_USER`. Returns the id map besides.
fn in_namespaces(base: u64) -> (Option<id_map::IdMap>, Outcomes) {
    let map = Cell::new(None);
    let attempt = |namespaces: u64| {
        let prepare = |pid| {
            if base & NEW_USER != 0 {
                map.set(Some(id_map::write_best(pid)?));
            }
            Ok(())
        };
        trial::run(namespaces, prepare, |reporter| namespaced::run(reporter, namespaces))
    };
    let all = NAMESPACES.iter().fold(base, |flags, (_, flag)| flags | flag);
    if let Ok(mut outcomes) = attempt(all) {
        outcomes.extend(NAMESPACES.map(|(feature, _)| (feature, Attempt::Works)));
        return (map.get(), outcomes);
    }
    let single = NAMESPACES.map(|(feature, flag)| (feature, flag, trial::can_clone(base | flag)));
    let possible = single
        .iter()
        .filter(|(_, _, attempt)| attempt.works())
        .fold(base, |flags, (_, flag, _)| flags | flag);
    let mut outcomes = if possible == base { Outcomes::new() } else { attempt(possible).unwrap_or_default() };
    outcomes.extend(single.map(|(feature, _, attempt)| (feature, attempt)));
    (map.get(), outcomes)
}

fn in_user_namespace() -> UserNamespace {
    let new = trial::can_clone(NEW_USER);
    if !new.works() {
        return UserNamespace { new, ..UserNamespace::default() };
    }
    let (map, outcomes) = in_namespaces(NEW_USER);
    UserNamespace { new, map, outcomes }
}

/// Directories for attempts, removed at the end.
struct Scratch {
    root: Option<PathBuf>,
    in_data_root: bool,
}

impl Scratch {
    fn new(data_root: &Path) -> Self {
        let name = format!(".dory-probe-{}", std::process::id());
        let make = |parent: &Path| {
            let root = parent.join(&name);
            fs::create_dir(&root).is_ok().then_some(root)
        };
        let in_data_root = make(data_root);
        Self {
            in_data_root: in_data_root.is_some(),
            root: in_data_root.or_else(|| make(&std::env::temp_dir())),
        }
    }

    /// Runs `work` in a fresh directory with the entries that attempts count on. Without any writable directory the
    /// attempts that need one fail by themselves.
    fn within<T>(&self, name: &str, work: impl FnOnce() -> T) -> T {
        if let Some(root) = &self.root {
            let directory = root.join(name);
            for entry in ["m", "lower", "upper", "work"] {
                let _ = fs::create_dir_all(directory.join(entry));
            }
            let _ = fs::write(directory.join("lower/file"), b"x");
            let _ = fs::write(directory.join("file"), b"x");
            let _ = std::env::set_current_dir(&directory);
        }
        work()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(root) = &self.root else { return };
        let _ = std::env::set_current_dir("/");
        for name in ["direct", "user"] {
            // Overlay leaves a directory without permissions in its work directory, empty but unreadable for others
            // than root.
            let _ = fs::remove_dir(root.join(name).join("work/work"));
        }
        let _ = fs::remove_dir_all(root);
    }
}
