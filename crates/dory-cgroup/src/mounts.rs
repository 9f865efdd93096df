//! Parsing of /proc/self/mountinfo and /proc/<pid>/cgroup (proc(5), cgroups(7)).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::controller::Controller;

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// Which group of the hierarchy is visible at the mount point, as this cgroup namespace names it.
    pub(crate) root: String,
}

impl Mount {
    /// Path beneath the mount point of the group that /proc/<pid>/cgroup calls `group`; `None` where it is not visible
    /// through this mount. A root with `..` lies outside of this cgroup namespace, and nothing can be said about it.
    pub(crate) fn relative(&self, group: &str) -> Option<PathBuf> {
        let outside = |path: &str| path.split('/').any(|part| part == "..");
        if outside(&self.root) || outside(group) {
            return None;
        }
        Path::new(group).strip_prefix(&self.root).ok().map(Path::to_owned)
    }
}

/// A line of mountinfo that is about control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountLine {
    pub(crate) mount: Mount,
    pub(crate) writable: bool,
    pub(crate) kind: MountKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountKind {
    V1(Vec<Controller>),
    V2,
}

/// The control group mounts of `mountinfo`, without those that another mount covers. Named v1 hierarchies
/// (`name=systemd`) carry no controller and are left out.
pub(crate) fn parse_mountinfo(mountinfo: &str) -> Vec<MountLine> {
    let tree = MountTree::parse(mountinfo);
    let visible = tree.mounts.iter().filter(|(id, _)| tree.is_visible(**id));
    visible.filter_map(|(_, node)| parse_line(node.line, node.point.clone())).collect()
}

/// Which mount hangs on which. Lines come in the order of mount ids, which is not that of mounting: a tree that was
/// put together before it was attached has younger parents (fsmount(2), move_mount(2)).
struct MountTree<'a> {
    mounts: BTreeMap<u64, MountNode<'a>>,
}

struct MountNode<'a> {
    line: &'a str,
    parent: u64,
    point: PathBuf,
}

impl<'a> MountTree<'a> {
    fn parse(mountinfo: &'a str) -> Self {
        let node = |line: &'a str| {
            let mut fields = line.split(' ');
            let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some((id, MountNode { line, parent, point: unescape(fields.nth(2)?) }))
        };
        Self { mounts: mountinfo.lines().filter_map(node).collect() }
    }

    /// True where a path walk to the mount's point arrives at it: nothing is mounted on it, and on no step of the way
    /// down does a sibling lie above the mount that leads on.
    fn is_visible(&self, id: u64) -> bool {
        let covers = |parent: u64, way: u64, point: &Path| {
            self.mounts.iter().any(|(other, node)| {
                node.parent == parent && *other != way && *other != parent && point.starts_with(&node.point)
            })
        };
        let Some(node) = self.mounts.get(&id) else { return false };
        let covered = self.mounts.values().any(|other| other.parent == id && other.point == node.point);
        let mut way = id;
        let mut hidden = covered;
        // A root's parent is itself, or lies outside of what is shown.
        while let Some(node) = self.mounts.get(&way)
            && node.parent != way
            && !hidden
        {
            hidden = covers(node.parent, way, &node.point);
            way = node.parent;
        }
        !hidden
    }
}

fn parse_line(line: &str, point: PathBuf) -> Option<MountLine> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let root = fields.nth(3)?.to_owned();
    let options = fields.nth(1)?;
    let mut after = after.split(' ');
    let kind = after.next()?;
    let super_options = after.nth(1)?;
    let kind = match kind {
        "cgroup2" => MountKind::V2,
        "cgroup" => {
            let named = |controller: &Controller| {
                super_options.split(',').any(|option| option == controller.v1_name())
            };
            let controllers: Vec<Controller> = Controller::ALL.into_iter().filter(named).collect();
            if controllers.is_empty() {
                return None;
            }
            MountKind::V1(controllers)
        }
        _ => return None,
    };
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let writable = !read_only(options) && !read_only(super_options);
    Some(MountLine { mount: Mount { point, root }, writable, kind })
}

/// Resolves the octal escapes of space, tab, newline and backslash.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if *first == b'\\' => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// The group of a process in the hierarchy with `controller`, or in the v2 hierarchy for `None`.
pub(crate) fn group_of(cgroup_file: &str, controller: Option<Controller>) -> Option<&str> {
    cgroup_file.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let found = match controller {
            None => id == "0" && names.is_empty(),
            Some(controller) => names.split(',').any(|name| name == controller.v1_name()),
        };
        found.then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hybrid_mounts_and_forgets_covered_ones() {
        let text = "\
30 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
31 30 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro,relatime master:3 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/a\\040b rw,relatime - cgroup2 cgroup2 rw
";
        let lines = parse_mountinfo(text);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0].mount,
            Mount { point: "/sys/fs/cgroup/cpu,cpuacct".into(), root: "/docker/abc".to_owned() }
        );
        assert_eq!(lines[0].kind, MountKind::V1(vec![Controller::Cpu, Controller::CpuAcct]));
        assert!(!lines[0].writable);
        assert_eq!((lines[1].mount.point.to_str(), lines[1].writable), (Some("/sys/fs/cgroup/a b"), true));
        assert_eq!(lines[1].kind, MountKind::V2);
    }

    #[test]
    fn children_may_be_older_than_their_parents() {
        let text = "\
32 60 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
33 50 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
50 20 0:40 / /sys rw - sysfs sysfs rw
60 50 0:41 / /sys/fs/cgroup rw - tmpfs tmpfs rw
20 1 0:50 / / rw - overlay overlay rw
";
        let lines = parse_mountinfo(text);
        // The one that hangs on sysfs is hidden by the tmpfs, whichever is older.
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].kind, MountKind::V1(vec![Controller::Cpu]));
    }

    #[test]
    fn finds_a_process_group_beneath_the_mount() {
        for (root, group, expected) in [
            ("/", "/", Some("")),
            ("/", "/dory/x", Some("dory/x")),
            ("/docker/abc", "/docker/abc/init", Some("init")),
            ("/docker/abc", "/docker/abcdef", None),
            ("/..", "/", None),
            ("/", "/../other", None),
        ] {
            let mount = Mount { point: "/m".into(), root: root.to_owned() };
            assert_eq!(mount.relative(group), expected.map(PathBuf::from), "{root} {group}");
        }
    }

    #[test]
    fn picks_the_line_of_a_controller() {
        let text = "9:name=systemd:/s\n4:memory:/m\n1:cpu,cpuacct:/c:d\n0::/u\n";
        assert_eq!(group_of(text, Some(Controller::CpuAcct)), Some("/c:d"));
        assert_eq!(group_of(text, Some(Controller::Pids)), None);
        assert_eq!(group_of(text, None), Some("/u"));
    }
}
