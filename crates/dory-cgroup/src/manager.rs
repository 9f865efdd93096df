//! Making groups.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use dory_types::ContainerId;

use crate::control_file;
use crate::controller::Controller;
use crate::device::DeviceRule;
use crate::device_program;
use crate::error::{CgroupError, Refusal};
use crate::group::{Group, LEAF, Place, read_processes, remove_tree};
use crate::hierarchies::{ENGINE_LEAVES, Hierarchies, Tree};
use crate::limits;
use crate::resources::Resources;

/// Whether the container may make groups of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delegation {
    /// It may not.
    None,
    /// A leaf beneath the limits belongs to the container's root.
    To {
        /// The container's root as the engine sees it.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Times that a group's processes are listed and moved away before giving up: new ones may be forked meanwhile.
const VACATE_ROUNDS: usize = 16;

/// Makes groups beneath one parent.
#[derive(Debug)]
pub struct Manager {
    hierarchies: Hierarchies,
    parent: PathBuf,
}

impl Manager {
    /// A manager whose groups stand beneath `parent_name` (`dory` unless configured), at the root of the hierarchies or
    /// beneath the engine's own group as [`Hierarchies::position`] says. Touches nothing yet.
    ///
    /// # Errors
    /// [`CgroupError::InvalidParent`].
    pub fn new(hierarchies: Hierarchies, parent_name: &str) -> Result<Self, CgroupError> {
        Ok(Self { hierarchies, parent: parse_parent(parent_name)? })
    }

    /// The hierarchies in use.
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// Makes the groups of container `id` and puts `resources` into force. Where a tree refuses, the container goes
    /// without it, and the list says so. `cgroup_parent` (`HostConfig.CgroupParent`) stands in for the manager's own
    /// parent; absolute or not, it lies beneath what the engine may use.
    ///
    /// # Errors
    /// [`CgroupError::InvalidParent`] only.
    pub fn create(
        &self,
        id: &ContainerId,
        cgroup_parent: Option<&str>,
        resources: &Resources,
        delegation: Delegation,
    ) -> Result<(Group, Vec<Refusal>), CgroupError> {
        let parent = match cgroup_parent.filter(|parent| !parent.is_empty()) {
            Some(parent) => parse_parent(parent)?,
            None => self.parent.clone(),
        };
        let mut refusals = Vec::new();
        let mut places = Vec::new();
        for tree in &self.hierarchies.trees {
            match make_place(tree, &parent, id, &mut refusals) {
                Ok(place) => places.push(place),
                Err(error) => refusals.push(Refusal::stated("group", &error)),
            }
        }
        // Both before the leaf: v1 refuses the first denial of a device in a group with children, and a cpuset that is
        // smaller than theirs.
        if let Some(rules) = &resources.devices {
            refusals.extend(
                control_devices(&places, rules).err().map(|error| Refusal::stated("devices", &error)),
            );
        }
        refusals.extend(limits::apply(&places, resources));
        if let Delegation::To { uid, gid } = delegation {
            for place in &mut places {
                match delegate(place, uid, gid) {
                    Ok(()) => place.delegated = true,
                    Err(error) => refusals.push(Refusal::stated("delegation", &error)),
                }
            }
            limits::repeat_in_leaves(&places, resources);
        }
        Ok((Group { places }, refusals))
    }

    /// Removes groups beneath the manager's parent that look like containers' but belong to none of `live` and hold no
    /// process. Groups beneath other parents are found through their containers' records only.
    pub fn sweep(&self, live: &BTreeSet<ContainerId>) -> Vec<CgroupError> {
        let mut errors = Vec::new();
        for tree in &self.hierarchies.trees {
            let parent = tree.base_directory().join(&self.parent);
            // No parent: nothing was ever made here.
            let Ok(entries) = fs::read_dir(&parent) else { continue };
            for entry in entries.flatten() {
                let id = entry.file_name().to_str().and_then(|name| name.parse::<ContainerId>().ok());
                if id.is_some_and(|id| !live.contains(&id)) && !is_populated(&entry.path()) {
                    errors.extend(remove_tree(&entry.path()).err());
                }
            }
        }
        errors
    }

    /// Removes the manager's parent group where no container's group is left in it, for an engine that leaves nothing
    /// behind.
    pub fn remove_parent(&self) {
        for tree in &self.hierarchies.trees {
            for parent in self.parent.ancestors().filter(|parent| !parent.as_os_str().is_empty()) {
                // Another engine's groups, or none at all: either way it is not ours to remove.
                let _in_use = fs::remove_dir(tree.base_directory().join(parent));
            }
        }
    }
}

/// Makes the group of container `id` in one tree, and the groups above it.
fn make_place(
    tree: &Tree,
    parent: &Path,
    id: &ContainerId,
    refusals: &mut Vec<Refusal>,
) -> Result<Place, CgroupError> {
    let mut group = tree.base.clone();
    prepare(tree, &group, refusals);
    for name in parent.iter() {
        group.push(name);
        make_group(tree, &group)?;
        prepare(tree, &group, refusals);
    }
    group.push(id.as_str());
    let directory = tree.mount.point.join(&group);
    // What an earlier run of the same container left would carry its limits into this one.
    if directory.exists() {
        remove_tree(&directory)?;
    }
    make_group(tree, &group)?;
    let controllers = if tree.is_v2 {
        Controller::parse_v2(&control_file::read(&directory, "cgroup.controllers")?)
    } else {
        tree.controllers.clone()
    };
    Ok(Place { mount: tree.mount.clone(), controllers, is_v2: tree.is_v2, limits: group, delegated: false })
}

/// Lets children of a v2 group have every controller that the group itself has.
fn prepare(tree: &Tree, group: &Path, refusals: &mut Vec<Refusal>) {
    if !tree.is_v2 {
        return;
    }
    let directory = tree.mount.point.join(group);
    // A base with processes is the engine's own group, or the true root, which alone has no `cgroup.type` and may hold
    // processes beside controlled children. No other group is ever emptied: its processes have somebody else to care
    // for them. Waiting for the kernel's EBUSY would be wrong: it lets some controllers be enabled beside processes, and
    // the group's children could then hold nothing but threads.
    let in_the_way = group == tree.base
        && control_file::exists(&directory, "cgroup.type")
        && missing_controllers(&directory).is_ok_and(|missing| !missing.is_empty());
    let vacated = if in_the_way { vacate(&directory) } else { Ok(()) };
    let result = vacated.and_then(|()| enable_controllers(&directory));
    refusals.extend(result.err().map(|error| Refusal::stated("controllers", &error)));
}

/// Accepts `a`, `/a/b` and the like, never a way up.
fn parse_parent(text: &str) -> Result<PathBuf, CgroupError> {
    let mut parent = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => parent.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(CgroupError::InvalidParent(text.to_owned()));
            }
        }
    }
    if parent.as_os_str().is_empty() || text.contains('\0') {
        return Err(CgroupError::InvalidParent(text.to_owned()));
    }
    Ok(parent)
}

/// Makes one group, whose parent exists.
fn make_group(tree: &Tree, group: &Path) -> Result<(), CgroupError> {
    let directory = tree.mount.point.join(group);
    match fs::create_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::Make { path: directory, source: error })
        }
        // Existing ones too: an engine killed between the two steps leaves a group that is not initialised.
        _ => initialise_v1(&tree.controllers, &directory),
    }
}

/// A new v1 cpuset is empty and cannot be joined; before 5.11 memory was not hierarchical unless asked to be.
fn initialise_v1(controllers: &[Controller], group: &Path) -> Result<(), CgroupError> {
    let above = group.parent().unwrap_or(group);
    if controllers.contains(&Controller::CpuSet) {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if control_file::read(group, file)?.trim().is_empty() {
                control_file::write(group, file, control_file::read(above, file)?.trim())?;
            }
        }
    }
    if controllers.contains(&Controller::Memory)
        && control_file::read(group, "memory.use_hierarchy").is_ok_and(|text| text.trim() == "0")
    {
        control_file::write(group, "memory.use_hierarchy", "1")?;
    }
    Ok(())
}

/// Controllers that a v2 group has but its children lack.
fn missing_controllers(group: &Path) -> Result<Vec<Controller>, CgroupError> {
    let available = Controller::parse_v2(&control_file::read(group, "cgroup.controllers")?);
    let enabled = Controller::parse_v2(&control_file::read(group, "cgroup.subtree_control")?);
    Ok(available.into_iter().filter(|controller| !enabled.contains(controller)).collect())
}

fn enable_controllers(group: &Path) -> Result<(), CgroupError> {
    let missing = missing_controllers(group)?.into_iter();
    let words: Vec<String> = missing.filter_map(Controller::v2_name).map(|name| format!("+{name}")).collect();
    if words.is_empty() {
        return Ok(());
    }
    match control_file::write(group, "cgroup.subtree_control", &words.join(" ")) {
        Err(CgroupError::Write { source, .. }) if source.kind() != io::ErrorKind::ResourceBusy => {}
        result => return result,
    }
    // The kernel takes all or none: one that cannot be had must not cost the others.
    let mut result = Ok(());
    for word in words {
        result = control_file::write(group, "cgroup.subtree_control", &word).and(result);
    }
    result
}

/// Moves every process of the engine's own group to a leaf: v2 has no processes beside controlled children.
fn vacate(group: &Path) -> Result<(), CgroupError> {
    if control_file::read(group, "cgroup.procs")?.is_empty() {
        return Ok(());
    }
    let leaf = group.join(ENGINE_LEAVES[0]);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(CgroupError::Make { path: leaf, source: error });
        }
        _ => {}
    }
    let mut last = Ok(());
    for _ in 0..VACATE_ROUNDS {
        let processes = read_processes(group)?;
        if processes.is_empty() {
            break;
        }
        for pid in processes {
            // One that has ended meanwhile fails, but is not listed again either.
            last = control_file::write(&leaf, "cgroup.procs", &pid.as_raw_nonzero().to_string());
        }
    }
    if read_processes(group)?.is_empty() { Ok(()) } else { last }
}

/// Makes the leaf and gives it to the container's root: the directory, to make groups in, and the files that move
/// processes and enable controllers (kernel cgroup-v2 "Delegation"), never those that limit.
fn delegate(place: &Place, uid: u32, gid: u32) -> Result<(), CgroupError> {
    let limits = place.limits_directory();
    let leaf = limits.join(LEAF);
    if place.is_v2 {
        enable_controllers(&limits)?;
    }
    fs::create_dir(&leaf).map_err(|source| CgroupError::Make { path: leaf.clone(), source })?;
    let files = if place.is_v2 {
        &["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"][..]
    } else {
        initialise_v1(&place.controllers, &leaf)?;
        &["cgroup.procs", "tasks"]
    };
    let paths = std::iter::once(leaf.clone()).chain(files.iter().map(|file| leaf.join(file)));
    for path in paths {
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(|source| CgroupError::Chown {
            path,
            uid,
            source,
        })?;
    }
    Ok(())
}

fn control_devices(places: &[Place], rules: &[DeviceRule]) -> Result<(), CgroupError> {
    if let Some(place) = places.iter().find(|place| place.controllers.contains(&Controller::Devices)) {
        let group = place.limits_directory();
        control_file::write(&group, "devices.deny", "a")?;
        return rules.iter().try_for_each(|rule| {
            let file = if rule.allow { "devices.allow" } else { "devices.deny" };
            control_file::write(&group, file, &rule.v1_line())
        });
    }
    let place = places.iter().find(|place| place.is_v2).ok_or(CgroupError::NotAvailable("devices"))?;
    let path = place.limits_directory();
    let attach = || {
        let program = dory_sys::bpf::load_cgroup_device(&device_program::assemble(rules))?;
        let group = rustix::fs::open(
            &path,
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        dory_sys::bpf::attach_cgroup_device(group.as_fd(), program.as_fd())
    };
    attach().map_err(|source| CgroupError::DeviceProgram { path, source })
}

/// Whether a process lives in `group` or beneath; unknown counts as yes.
fn is_populated(group: &Path) -> bool {
    if let Ok(events) = control_file::read_keyed(group, "cgroup.events") {
        return events.get("populated") != Some(&0);
    }
    let Ok(directories) = crate::group::subtree(group) else { return true };
    directories.iter().any(|directory| {
        // Processes of other pid namespaces read as 0: the text counts, not the numbers.
        control_file::read(directory, "cgroup.procs").map_or(true, |text| !text.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hierarchies::Mode;

    /// A hybrid machine prefers its v2 tree for freezing and killing; this one has none to prefer.
    #[test]
    fn privileged_v1_alone_freezes_and_kills() {
        let mut hierarchies = Hierarchies::detect().unwrap();
        hierarchies.trees.retain(|tree| !tree.is_v2);
        if hierarchies.mode() == Mode::None {
            eprintln!("SKIP: this machine has no v1 hierarchy");
            return;
        }
        let parent = format!("dory-test-v1-{}", std::process::id());
        let manager = Manager::new(hierarchies, &parent).unwrap();
        let id = ContainerId::from_bytes([1; 32]);
        let (group, refusals) = manager.create(&id, None, &Resources::default(), Delegation::None).unwrap();
        assert_eq!(refusals, []);

        let mut child =
            std::process::Command::new("/bin/sh").args(["-c", "while :; do sleep 1; done"]).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        group.join(pid).unwrap();
        group.freeze().unwrap();
        assert!(group.processes().unwrap().contains(&pid));
        group.kill_all().unwrap();
        let status = child.wait().unwrap();
        // The shell's own child may still be on its way out.
        let removed = group.remove();
        for tree in &manager.hierarchies.trees {
            fs::remove_dir(tree.base_directory().join(&parent)).unwrap();
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert!(removed.is_ok(), "{removed:?}");
    }

    #[test]
    fn parents_stay_beneath() {
        for (text, expected) in [
            ("dory", Some("dory")),
            ("/dory/", Some("dory")),
            ("/a/./b", Some("a/b")),
            ("machine.slice", Some("machine.slice")),
            ("", None),
            ("/", None),
            ("a/../../b", None),
            ("..", None),
            ("a\0b", None),
        ] {
            assert_eq!(parse_parent(text).ok(), expected.map(PathBuf::from), "{text:?}");
        }
    }
}
