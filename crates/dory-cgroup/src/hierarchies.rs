//! Which hierarchies there are, and where in them the engine stands.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::control_file;
use crate::controller::Controller;
use crate::error::CgroupError;
use crate::mounts::{Mount, MountKind, group_of, parse_mountinfo};

/// Inode of the initial process namespace (kernel `PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Leaf groups that hold processes of a group whose controllers are enabled for children: ours, and the one that
/// Docker's dind script makes. An engine that finds itself in one works beneath the group above it.
pub(crate) const ENGINE_LEAVES: [&str; 2] = ["dory-engine", "init"];

/// How controllers are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every controller has a tree of its own.
    V1,
    /// Controllers in v1 trees beside a v2 tree.
    Hybrid,
    /// One tree.
    V2,
    /// Nothing that can be written.
    None,
}

/// Where groups of this engine belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// At the root of the hierarchies, as dockerd does on a host.
    Root,
    /// Beneath the engine's own group: in a container, where the surroundings' limits must keep holding, or in a
    /// subtree that systemd delegated.
    Own,
}

/// One usable tree and the group in it that the engine works beneath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) mount: Mount,
    /// Controllers of a v1 tree; empty for v2, whose controllers differ from group to group.
    pub(crate) controllers: Vec<Controller>,
    pub(crate) is_v2: bool,
    /// Beneath the mount point.
    pub(crate) base: PathBuf,
}

impl Tree {
    /// Directory of the group that the engine works beneath.
    pub(crate) fn base_directory(&self) -> PathBuf {
        self.mount.point.join(&self.base)
    }
}

/// The usable hierarchies.
#[derive(Debug, Clone)]
pub struct Hierarchies {
    pub(crate) trees: Vec<Tree>,
    pub(crate) position: Position,
    mounted: bool,
}

/// What detection looks at.
struct Surroundings<'a> {
    mountinfo: &'a str,
    own_groups: &'a str,
    initial_pid_namespace: bool,
}

impl Hierarchies {
    /// Looks at what this process sees.
    ///
    /// # Errors
    /// [`CgroupError::Read`] where /proc does not tell; no hierarchy at all is not an error but [`Mode::None`].
    pub fn detect() -> Result<Self, CgroupError> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.into(), source })
        };
        let pid_namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Ok(Self::from_surroundings(
            &Surroundings {
                mountinfo: &read("/proc/self/mountinfo")?,
                own_groups: &read("/proc/self/cgroup")?,
                initial_pid_namespace: pid_namespace == Path::new(INITIAL_PID_NAMESPACE),
            },
            is_delegated,
        ))
    }

    fn from_surroundings(surroundings: &Surroundings<'_>, is_delegated: impl Fn(&Path) -> bool) -> Self {
        let lines = parse_mountinfo(surroundings.mountinfo);
        let mounted = !lines.is_empty();
        let mut position = if surroundings.initial_pid_namespace { Position::Root } else { Position::Own };
        let mut trees: Vec<Tree> = Vec::new();
        for line in lines.into_iter().filter(|line| line.writable) {
            let (controllers, is_v2) = match line.kind {
                MountKind::V1(controllers) => (controllers, false),
                MountKind::V2 => (Vec::new(), true),
            };
            let known = |tree: &Tree| tree.is_v2 == is_v2 && tree.controllers == controllers;
            let Some(own) = group_of(surroundings.own_groups, controllers.first().copied()) else { continue };
            // Containers often see one hierarchy twice; the first mount through which the own group shows is as good
            // as the others.
            let Some(own) = line.mount.relative(own).filter(|_| !trees.iter().any(known)) else { continue };
            if is_v2 && is_delegated(&line.mount.point.join(&own)) {
                position = Position::Own;
            }
            trees.push(Tree { mount: line.mount, controllers, is_v2, base: own });
        }
        for tree in &mut trees {
            tree.base = match position {
                Position::Root => PathBuf::new(),
                Position::Own => above_engine_leaf(&tree.base).to_owned(),
            };
        }
        Self { trees, position, mounted }
    }

    /// Mounts every hierarchy afresh beneath `directory`, whose mount namespace should be this process's own, and looks
    /// again. In a container the surroundings often mount them read-only, or not at all, while CAP_SYS_ADMIN in the
    /// cgroup namespace's user namespace allows a writable mount of the same trees.
    ///
    /// # Errors
    /// [`CgroupError::Read`] as [`Hierarchies::detect`]; [`CgroupError::Mount`] where not a single one can be mounted.
    pub fn mount_fresh(directory: &Path) -> Result<Self, CgroupError> {
        let path = PathBuf::from("/proc/self/cgroup");
        let own_groups = fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
        let results: Vec<_> =
            mounts_of(&own_groups).into_iter().map(|kind| mount_one(directory, &kind)).collect();
        if results.iter().all(Result::is_err) {
            results.into_iter().find_map(Result::err).map_or(Ok(()), Err)?;
        }
        Self::detect()
    }

    /// Tries whether groups can be made, in every tree, by making one and removing it.
    ///
    /// # Errors
    /// [`CgroupError::Make`] or [`CgroupError::Remove`] at the first tree that refuses; [`CgroupError::NotAvailable`]
    /// without a tree.
    pub fn try_make(&self) -> Result<(), CgroupError> {
        if self.trees.is_empty() {
            return Err(CgroupError::NotAvailable("a writable control group"));
        }
        self.trees.iter().try_for_each(|tree| {
            let path = tree.base_directory().join(format!("dory-try-{}", std::process::id()));
            fs::create_dir(&path).map_err(|source| CgroupError::Make { path: path.clone(), source })?;
            fs::remove_dir(&path).map_err(|source| CgroupError::Remove { path, source })
        })
    }

    /// How controllers are mounted.
    pub fn mode(&self) -> Mode {
        let v1 = self.trees.iter().any(|tree| !tree.is_v2);
        let v2 = self.trees.iter().any(|tree| tree.is_v2);
        match (v1, v2) {
            (true, true) => Mode::Hybrid,
            (true, false) => Mode::V1,
            (false, true) => Mode::V2,
            (false, false) => Mode::None,
        }
    }

    /// Where groups will be made.
    pub fn position(&self) -> Position {
        self.position
    }

    /// True where hierarchies are mounted but none can be used, being read-only or from outside of this cgroup namespace:
    /// [`Hierarchies::mount_fresh`] may help.
    pub fn needs_fresh_mount(&self) -> bool {
        self.trees.is_empty() && self.mounted
    }

    /// Mount points of the usable hierarchies, the v2 one last: what a container's /sys/fs/cgroup is made of.
    pub fn mount_points(&self) -> impl Iterator<Item = (&Path, &[Controller])> {
        let (v2, v1): (Vec<&Tree>, Vec<&Tree>) = self.trees.iter().partition(|tree| tree.is_v2);
        v1.into_iter().chain(v2).map(|tree| (tree.mount.point.as_path(), tree.controllers.as_slice()))
    }

    /// The controllers that groups can get.
    pub fn controllers(&self) -> Vec<Controller> {
        let of_v2 = self.trees.iter().filter(|tree| tree.is_v2).flat_map(|tree| {
            let text = control_file::read(&tree.base_directory(), "cgroup.controllers").unwrap_or_default();
            Controller::parse_v2(&text)
        });
        let of_v1 = self.trees.iter().flat_map(|tree| tree.controllers.iter().copied());
        let mut controllers: Vec<Controller> = of_v1.chain(of_v2).collect();
        controllers.sort_unstable();
        controllers.dedup();
        controllers
    }
}

/// What to mount: the v1 controllers of each line of /proc/self/cgroup in the kernel's spelling, or nothing for v2.
fn mounts_of(own_groups: &str) -> Vec<Option<String>> {
    let kind = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (id, names) = (fields.next()?, fields.next()?);
        let known = |name: &str| Controller::ALL.iter().any(|controller| controller.v1_name() == name);
        match names {
            "" if id == "0" => Some(None),
            names if names.split(',').any(known) => Some(Some(names.to_owned())),
            _ => None,
        }
    };
    own_groups.lines().filter_map(kind).collect()
}

fn mount_one(directory: &Path, controllers: &Option<String>) -> Result<(), CgroupError> {
    use rustix::mount::{MountFlags, mount};
    let (name, kind) = controllers.as_deref().map_or(("unified", "cgroup2"), |names| (names, "cgroup"));
    let path = directory.join(name);
    let data = controllers.as_deref().map(|names| CString::new(names).expect("a line of /proc has no NUL"));
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    fs::create_dir_all(&path)
        .and_then(|()| Ok(mount(kind, &path, kind, flags, data.as_deref())?))
        .map_err(|source| CgroupError::Mount { kind: name.to_owned(), path, source })
}

/// The group above an engine's leaf, or `own` itself.
fn above_engine_leaf(own: &Path) -> &Path {
    match (own.file_name().and_then(|name| name.to_str()), own.parent()) {
        (Some(name), Some(parent)) if ENGINE_LEAVES.contains(&name) => parent,
        _ => own,
    }
}

/// Whether systemd gave this group away (`Delegate=yes`): it marks the directory with an extended attribute.
fn is_delegated(group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].into_iter().any(|attribute| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(group, attribute, &mut value).is_ok_and(|length| value[..length] == *b"1")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(mountinfo: &str, own_groups: &str, host: bool, delegated: bool) -> Hierarchies {
        let surroundings = Surroundings { mountinfo, own_groups, initial_pid_namespace: host };
        Hierarchies::from_surroundings(&surroundings, |_| delegated)
    }

    const V2: &str = "30 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn chooses_the_base_by_position() {
        for (own, host, delegated, expected) in [
            ("0::/user.slice/session.scope\n", true, false, ""),
            ("0::/system.slice/dory.service\n", true, true, "system.slice/dory.service"),
            ("0::/system.slice/dory.service/dory-engine\n", true, true, "system.slice/dory.service"),
            ("0::/\n", false, false, ""),
            ("0::/init\n", false, false, ""),
            ("0::/docker/abc\n", false, false, "docker/abc"),
        ] {
            let hierarchies = detect(V2, own, host, delegated);
            assert_eq!(hierarchies.mode(), Mode::V2);
            assert_eq!(hierarchies.trees[0].base, Path::new(expected), "{own}");
        }
    }

    #[test]
    fn knows_what_to_mount_afresh() {
        let text = "9:name=systemd:/\n4:memory:/a\n2:cpu,cpuacct:/a\n1:net_cls:/\n0::/\n";
        let expected = [Some("memory".to_owned()), Some("cpu,cpuacct".to_owned()), None];
        assert_eq!(mounts_of(text), expected);
    }

    #[test]
    fn hybrid_and_nothing() {
        let hybrid = "\
32 31 0:29 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:30 /docker/abc /elsewhere rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
        let own = "2:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n";
        let hierarchies = detect(hybrid, own, false, false);
        assert_eq!(hierarchies.mode(), Mode::Hybrid);
        assert_eq!(hierarchies.trees.len(), 3);
        assert!(hierarchies.trees.iter().all(|tree| tree.base == Path::new("")));

        let read_only = detect(&V2.replace(" rw - ", " ro - "), "0::/\n", false, false);
        assert_eq!((read_only.mode(), read_only.needs_fresh_mount()), (Mode::None, true));
        let absent = detect("", "0::/\n", false, false);
        assert_eq!((absent.mode(), absent.needs_fresh_mount()), (Mode::None, false));
    }
}
