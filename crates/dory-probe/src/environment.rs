//! What can be read about the surroundings without trying anything.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::id_map;

/// Who seems to have made the container that the engine runs in. Used for the wording of hints only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerHint {
    /// No sign of a container.
    None,
    /// Docker, or something that leaves its mark.
    Docker,
    /// Podman or CRI-O's relatives.
    Podman,
    /// A Kubernetes pod.
    Kubernetes,
}

/// Facts that /proc and the like state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// `uname -r`.
    pub kernel: String,
    /// The engine's user id, as its own user namespace has it.
    pub user: u32,
    /// How many user ids its user namespace has.
    pub mapped_users: u64,
    /// True in the initial user namespace.
    pub initial_user_namespace: bool,
    /// The effective capabilities as /proc/self/status writes them.
    pub effective_capabilities: u64,
    /// Whether no_new_privs is set.
    pub no_new_privileges: bool,
    /// Whether a seccomp filter is in force.
    pub seccomp_filtered: bool,
    /// The AppArmor profile in force, such as `docker-default (enforce)` or `unconfined`; `None` without AppArmor.
    pub apparmor_profile: Option<String>,
    /// Whether AppArmor keeps user namespaces from programs without a profile (Ubuntu 23.10 and later).
    pub apparmor_restricts_user_namespaces: bool,
    /// Whether SELinux is enforcing.
    pub selinux_enforcing: bool,
    /// Yama's `ptrace_scope`; `None` without Yama.
    pub yama_ptrace_scope: Option<u32>,
    /// `user.max_user_namespaces`; 0 switches them off.
    pub max_user_namespaces: Option<u64>,
    /// Debian's `kernel.unprivileged_userns_clone`; `false` keeps them from ordinary users.
    pub unprivileged_user_namespaces: Option<bool>,
    /// First id and count that /etc/subuid gives to the engine's user.
    pub subordinate_users: Option<(u64, u64)>,
    /// Where newuidmap is, if anywhere in PATH.
    pub newuidmap: Option<String>,
    /// Version of Landlock's interface.
    pub landlock: Option<u32>,
    /// Who made the container, if it is one.
    pub container: ContainerHint,
    /// How control groups are mounted.
    pub cgroups: dory_cgroup::Mode,
    /// Where the engine keeps its data.
    pub data_root: PathBuf,
    /// Kind of the data-root's filesystem, such as `ext4` or `overlay`, or its magic number.
    pub data_root_filesystem: String,
}

/// CAP_NET_ADMIN's bit.
pub(crate) const NET_ADMIN: u64 = 1 << 12;
/// CAP_SYS_ADMIN's bit.
pub(crate) const SYS_ADMIN: u64 = 1 << 21;

impl Environment {
    /// Reads everything; what cannot be read counts as absent.
    pub(crate) fn read(data_root: &Path) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let map = id_map::parse(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default());
        let user = rustix::process::getuid().as_raw();
        let name = id_map::user_name(&fs::read_to_string("/etc/passwd").unwrap_or_default(), user);
        let subordinate = fs::read_to_string("/etc/subuid").unwrap_or_default();
        let modes = dory_cgroup::Hierarchies::detect();
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            user,
            mapped_users: map.iter().map(|[_, _, count]| count).sum(),
            initial_user_namespace: map == [[0, 0, u64::from(u32::MAX)]],
            effective_capabilities: status_field(&status, "CapEff")
                .and_then(|text| u64::from_str_radix(text, 16).ok())
                .unwrap_or(0),
            no_new_privileges: status_field(&status, "NoNewPrivs") == Some("1"),
            seccomp_filtered: status_field(&status, "Seccomp") == Some("2"),
            apparmor_profile: apparmor_profile(),
            apparmor_restricts_user_namespaces: number(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            ) == Some(1),
            selinux_enforcing: number("/sys/fs/selinux/enforce") == Some(1),
            yama_ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope"),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            unprivileged_user_namespaces: number::<u32>("/proc/sys/kernel/unprivileged_userns_clone")
                .map(|value| value != 0),
            subordinate_users: id_map::parse_subordinate(&subordinate, user, name.as_deref()),
            newuidmap: find_program("newuidmap"),
            landlock: dory_sys::probe::landlock_version().ok(),
            container: container_hint(),
            cgroups: modes.map_or(dory_cgroup::Mode::None, |hierarchies| hierarchies.mode()),
            data_root: data_root.to_owned(),
            data_root_filesystem: filesystem(data_root),
        }
    }

    /// True where AppArmor confines the engine.
    pub(crate) fn is_confined_by_apparmor(&self) -> bool {
        self.apparmor_profile.as_deref().is_some_and(|profile| !profile.starts_with("unconfined"))
    }

    /// True where the engine has this capability in its user namespace.
    pub(crate) fn has_capability(&self, bit: u64) -> bool {
        self.effective_capabilities & bit != 0
    }
}

fn status_field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
}

fn number<T: std::str::FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn apparmor_profile() -> Option<String> {
    // Without this test the older file could belong to another security module.
    if fs::read_to_string("/sys/module/apparmor/parameters/enabled").ok()?.trim() != "Y" {
        return None;
    }
    ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"]
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .map(|profile| profile.trim_end_matches(['\n', '\0']).to_owned())
}

fn find_program(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let candidates = std::env::split_paths(&path).map(|directory| directory.join(name));
    candidates
        .into_iter()
        .find(|candidate| candidate.is_file())
        .map(|found| found.to_string_lossy().into_owned())
}

fn container_hint() -> ContainerHint {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        ContainerHint::Kubernetes
    } else if Path::new("/run/.containerenv").exists() {
        ContainerHint::Podman
    } else if Path::new("/.dockerenv").exists() {
        ContainerHint::Docker
    } else {
        ContainerHint::None
    }
}

/// The names matter where an overlay's upper directory cannot be put (overlay itself), or where copies are cheap.
fn filesystem(path: &Path) -> String {
    let existing = path.ancestors().find_map(|ancestor| rustix::fs::statfs(ancestor).ok());
    let Some(statistics) = existing else { return "unknown".to_owned() };
    match statistics.f_type as u64 & 0xffff_ffff {
        0xef53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x0102_1994 => "tmpfs".to_owned(),
        0x794c_7630 => "overlay".to_owned(),
        0x2fc1_2fc1 => "zfs".to_owned(),
        0x6969 => "nfs".to_owned(),
        0x6573_5546 => "fuse".to_owned(),
        0xf2f5_2010 => "f2fs".to_owned(),
        other => format!("{other:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_fields() {
        let status = "Name:\tdory\nCapEff:\t00000000a80425fb\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(status_field(status, "CapEff"), Some("00000000a80425fb"));
        assert_eq!(status_field(status, "Seccomp"), Some("2"));
        assert_eq!(status_field(status, "NoNewPrivs"), None);
    }

    #[test]
    fn reads_this_machine() {
        let environment = Environment::read(Path::new("/does/not/exist/yet"));
        assert!(!environment.kernel.is_empty());
        assert_ne!(environment.data_root_filesystem, "unknown");
    }
}
