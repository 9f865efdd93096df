//! A container's groups: joining, stopping, killing, removing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::control_file;
use crate::controller::Controller;
use crate::entrance::Entrance;
use crate::error::{CgroupError, Refusal};
use crate::limits;
use crate::mounts::{Mount, group_of};
use crate::resources::Resources;
use crate::usage::{self, Usage};

/// Name of the leaf that a delegated group's processes live in.
pub(crate) const LEAF: &str = "container";

/// How long processes may take to stop; one in an uninterruptible sleep takes until its sleep ends.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a group may stay busy after its last process was killed: the kernel lets go of it at the end of the exit.
const REMOVE_PATIENCE: Duration = Duration::from_millis(500);

/// Wait between two looks at a state that has no event to wait for.
const POLL: Duration = Duration::from_millis(1);

/// The container's group in one tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) mount: Mount,
    /// Those that can limit here: a v1 tree's own, or those enabled in a v2 group.
    pub(crate) controllers: Vec<Controller>,
    pub(crate) is_v2: bool,
    /// The group with the limits, beneath the mount point.
    pub(crate) limits: PathBuf,
    /// Whether processes live in a leaf of their own.
    pub(crate) delegated: bool,
}

impl Place {
    pub(crate) fn limits_directory(&self) -> PathBuf {
        self.mount.point.join(&self.limits)
    }

    /// The leaf, if limits and processes are apart.
    pub(crate) fn separate_leaf(&self) -> Option<PathBuf> {
        self.delegated.then(|| self.limits_directory().join(LEAF))
    }

    /// Where the processes live.
    pub(crate) fn leaf_directory(&self) -> PathBuf {
        self.mount.point.join(self.leaf())
    }

    /// Where the process is whose /proc/<pid>/cgroup reads `groups`. It cannot be outside of this group, but if this
    /// view of the tree says so, the leaf is the place.
    fn directory_with(&self, groups: &str) -> PathBuf {
        let controller = if self.is_v2 { None } else { self.controllers.first().copied() };
        let relative = group_of(groups, controller).and_then(|group| self.mount.relative(group));
        let inside = relative.filter(|relative| relative.starts_with(self.leaf()));
        inside.map_or_else(|| self.leaf_directory(), |relative| self.mount.point.join(relative))
    }

    /// Where the processes live, beneath the mount point.
    fn leaf(&self) -> PathBuf {
        if self.delegated { self.limits.join(LEAF) } else { self.limits.clone() }
    }
}

/// The groups of one container, one in each tree; none where no tree could be written. Made by
/// [`crate::Manager::create`], kept in the container's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub(crate) places: Vec<Place>,
}

impl Group {
    /// A group of a container that has none: every operation on processes fails or does nothing.
    pub fn none() -> Self {
        Self { places: Vec::new() }
    }

    /// True where no tree has a group of this container.
    pub fn is_none(&self) -> bool {
        self.places.is_empty()
    }

    fn v2(&self) -> Option<&Place> {
        self.places.iter().find(|place| place.is_v2)
    }

    fn with(&self, controller: Controller) -> Option<&Place> {
        self.places.iter().find(|place| place.controllers.contains(&controller))
    }

    /// Directories in which the container's processes live, and the v1 controllers of each (none for v2): these are
    /// what its /sys/fs/cgroup shows.
    pub fn leaf_directories(&self) -> impl Iterator<Item = (PathBuf, &[Controller])> {
        self.places.iter().map(|place| {
            let controllers: &[Controller] = if place.is_v2 { &[] } else { &place.controllers };
            (place.leaf_directory(), controllers)
        })
    }

    /// Moves process `pid`, of the caller's pid namespace, into the container's groups.
    ///
    /// # Errors
    /// [`CgroupError::Write`] at the first tree that refuses: limits would not hold for the process.
    pub fn join(&self, pid: Pid) -> Result<(), CgroupError> {
        self.places.iter().try_for_each(|place| attach(&place.leaf_directory(), pid))
    }

    /// Moves `pid` to where the container's `init` is now. Scripts such as Docker's dind move all processes to a group
    /// beneath and enable controllers, after which the v2 leaf itself cannot be joined (EBUSY).
    ///
    /// # Errors
    /// [`CgroupError::Read`] where `init` is gone, [`CgroupError::Write`] where a tree refuses.
    pub fn join_for_exec(&self, init: Pid, pid: Pid) -> Result<(), CgroupError> {
        let groups = groups_of(init)?;
        self.places.iter().try_for_each(|place| attach(&place.directory_with(&groups), pid))
    }

    /// The way in for a process that is yet to be made; see [`Entrance`].
    ///
    /// # Errors
    /// [`CgroupError::Open`] where a group is gone.
    pub fn entrance(&self) -> Result<Entrance, CgroupError> {
        Entrance::open(self.places.iter().map(|place| (place.is_v2, place.leaf_directory())))
    }

    /// The same, to where the container's `init` is now, for the reason that [`Group::join_for_exec`] states.
    ///
    /// # Errors
    /// [`CgroupError::Read`] where `init` is gone, [`CgroupError::Open`] where a group is.
    pub fn entrance_for_exec(&self, init: Pid) -> Result<Entrance, CgroupError> {
        let groups = groups_of(init)?;
        Entrance::open(self.places.iter().map(|place| (place.is_v2, place.directory_with(&groups))))
    }

    /// Stops all processes and waits until they stand.
    ///
    /// # Errors
    /// [`CgroupError::NotAvailable`] without a freezer, [`CgroupError::Timeout`] where a process does not stop within
    /// 5 s; the group is then thawed again.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.set_frozen(true).inspect_err(|error| {
            if matches!(error, CgroupError::Timeout { .. }) {
                let _ = self.set_frozen(false);
            }
        })
    }

    /// Lets stopped processes run again.
    ///
    /// # Errors
    /// As [`Group::freeze`].
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        let state = if frozen { "frozen" } else { "thawed" };
        if let Some(group) = self
            .v2()
            .map(Place::limits_directory)
            .filter(|group| control_file::exists(group, "cgroup.freeze"))
        {
            control_file::write(&group, "cgroup.freeze", if frozen { "1" } else { "0" })?;
            return wait_until(&group, state, FREEZE_PATIENCE, || {
                Ok(event(&group, "frozen")? == u64::from(frozen))
            });
        }
        let place = self.with(Controller::Freezer).ok_or(CgroupError::NotAvailable("freezer"))?;
        let group = place.limits_directory();
        let wanted = if frozen { "FROZEN" } else { "THAWED" };
        control_file::write(&group, "freezer.state", wanted)?;
        wait_until(&group, state, FREEZE_PATIENCE, || {
            Ok(control_file::read(&group, "freezer.state")?.trim() == wanted)
        })
    }

    /// Sends SIGKILL to every process, stopped ones too, and returns without waiting for their end.
    ///
    /// # Errors
    /// [`CgroupError::Write`] or [`CgroupError::Kill`] with what could not be killed.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        if let Some(group) = self.v2().map(Place::limits_directory)
            && control_file::exists(&group, "cgroup.kill")
        {
            return control_file::write(&group, "cgroup.kill", "1");
        }
        // Before 5.14: frozen processes cannot fork away from the list.
        let frozen = self.freeze().is_ok();
        let result = self.kill_listed();
        if frozen {
            self.thaw()?;
        }
        result
    }

    fn kill_listed(&self) -> Result<(), CgroupError> {
        for pid in self.processes()? {
            let failed = |source: rustix::io::Errno| CgroupError::Kill {
                pid: pid.as_raw_nonzero().get().cast_unsigned(),
                source: source.into(),
            };
            match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                // The list is read again with the descriptor at hand: the number may have gone to another process.
                Ok(pidfd) if self.processes()?.contains(&pid) => {
                    match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
                        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// The processes in these groups and beneath, as far as the caller's pid namespace shows them.
    ///
    /// # Errors
    /// [`CgroupError::Read`] where the group is gone.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        let Some(place) = self.v2().or(self.places.first()) else { return Ok(Vec::new()) };
        let mut processes = Vec::new();
        for directory in subtree(&place.limits_directory())? {
            match read_processes(&directory) {
                Ok(found) => processes.extend(found),
                // A threaded group lists its processes at its domain; another may be gone by now.
                Err(CgroupError::Read { source, .. })
                    if matches!(source.raw_os_error(), Some(libc_errno::EOPNOTSUPP | libc_errno::ENODEV))
                        || source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(processes)
    }

    /// Changes limits while the container runs; what is `None` stays as it is, and so do devices.
    pub fn update(&self, resources: &Resources) -> Vec<Refusal> {
        limits::apply(&self.places, resources)
    }

    /// What the container has used, as far as the trees account for it.
    pub fn usage(&self) -> Usage {
        usage::collect(&self.places)
    }

    /// How many processes the kernel killed for want of memory since the group was made.
    pub fn oom_kills(&self) -> u64 {
        self.with(Controller::Memory).map_or(0, usage::oom_kills)
    }

    /// Removes the groups with all that the container made beneath. Goes on past failures.
    ///
    /// # Errors
    /// Every group that could not be removed; those that are gone already do not count.
    pub fn remove(&self) -> Result<(), Vec<CgroupError>> {
        let errors: Vec<CgroupError> =
            self.places.iter().filter_map(|place| remove_tree(&place.limits_directory()).err()).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Errors of threaded and vanished groups that `std` has no name for.
mod libc_errno {
    pub(super) const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();
    pub(super) const ENODEV: i32 = rustix::io::Errno::NODEV.raw_os_error();
}

fn attach(group: &Path, pid: Pid) -> Result<(), CgroupError> {
    control_file::write(group, "cgroup.procs", &pid.as_raw_nonzero().to_string())
}

/// The text of /proc/<pid>/cgroup.
fn groups_of(pid: Pid) -> Result<String, CgroupError> {
    let path = PathBuf::from(format!("/proc/{}/cgroup", pid.as_raw_nonzero()));
    fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
}

/// The processes directly in `group`; those outside of the caller's pid namespace read as 0 and are left out.
pub(crate) fn read_processes(group: &Path) -> Result<Vec<Pid>, CgroupError> {
    let text = control_file::read(group, "cgroup.procs")?;
    Ok(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect())
}

/// A value of v2's `cgroup.events`.
fn event(group: &Path, key: &str) -> Result<u64, CgroupError> {
    Ok(control_file::read_keyed(group, "cgroup.events")?.get(key).copied().unwrap_or(0))
}

fn wait_until(
    group: &Path,
    state: &'static str,
    patience: Duration,
    mut reached: impl FnMut() -> Result<bool, CgroupError>,
) -> Result<(), CgroupError> {
    let start = Instant::now();
    while !reached()? {
        if start.elapsed() > patience {
            let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
            return Err(CgroupError::Timeout { path: group.to_owned(), state, milliseconds });
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// `group` and all groups beneath, parents first. Without recursion: the depth is the container's choice.
pub(crate) fn subtree(group: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let mut found = vec![group.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != group => continue,
            Err(source) => return Err(CgroupError::Open { path: directory, source }),
        };
        let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        found.extend(entries.flatten().filter(is_directory).map(|entry| entry.path()));
    }
    Ok(found)
}

/// Removes `group` and all groups beneath, deepest first; one that is gone already is no error.
pub(crate) fn remove_tree(group: &Path) -> Result<(), CgroupError> {
    let directories = match subtree(group) {
        Err(CgroupError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        directories => directories?,
    };
    let start = Instant::now();
    for path in directories.into_iter().rev() {
        loop {
            match fs::remove_dir(&path) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && start.elapsed() < REMOVE_PATIENCE =>
                {
                    thread::sleep(POLL);
                }
                Err(source) => return Err(CgroupError::Remove { path, source }),
            }
        }
    }
    Ok(())
}
