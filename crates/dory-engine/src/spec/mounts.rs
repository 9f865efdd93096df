//! The mounts of a container: Docker's default ones, the engine's files, and the points of its configuration.

use std::path::{Path, PathBuf};

use dory_runtime::spec::{Mount, MountFlags, MountSource, Propagation, UserNamespace};
use dory_store::Share;

use super::namespace::Mode;
use super::{SpecInput, tmpfs};
use crate::EngineError;
use crate::mount::{Point, PointKind, clean};

const NONE: MountFlags = MountFlags {
    readonly: false,
    recursive_readonly: false,
    nosuid: false,
    nodev: false,
    noexec: false,
    noatime: false,
};
/// nosuid, nodev, noexec: what every filesystem of the kernel's gets.
const PLAIN: MountFlags = MountFlags { nosuid: true, nodev: true, noexec: true, ..NONE };

/// The engine's files in a container's /etc, and their names in the container's directory.
pub(crate) const ETC_FILES: [(&str, &str); 3] =
    [("/etc/resolv.conf", "resolv.conf"), ("/etc/hostname", "hostname"), ("/etc/hosts", "hosts")];

/// All mounts, parents before what lies below them.
pub(super) fn mounts(input: &SpecInput<'_>) -> Result<Vec<Mount>, EngineError> {
    let mut own = Vec::new();
    for (destination, path) in &input.files {
        own.push(file(destination, path.clone(), input.host_config.readonly_rootfs));
    }
    for (path, options) in &input.host_config.tmpfs {
        own.push(memory(clean(path), options)?);
    }
    for point in input.points {
        own.push(of_point(point, input)?);
    }
    own.extend(input.shared_store.iter().flat_map(|share| shared_store(share, input.user_namespace)));
    let mut mounts = defaults(input);
    mounts.retain(|mount| {
        !own.iter().any(|other| {
            // A mount of one's own on /dev takes everything below along.
            other.destination == mount.destination
                || (other.destination == "/dev" && mount.destination.starts_with("/dev/"))
        })
    });
    mounts.extend(own);
    mounts.sort_by_key(|mount| mount.destination.matches('/').count());
    Ok(mounts)
}

/// The binds of a container that does not run, parents before what lies below them: its volumes and binds whose sources are
/// there, and the engine's files of the last run. Memory is gone with the run.
pub(crate) fn stopped_binds(points: &[Point], directory: &Path, user: &UserNamespace) -> Vec<Mount> {
    let points = points.iter().filter(|point| point.kind != PointKind::Tmpfs);
    let files = ETC_FILES.map(|(inside, name)| file(inside, directory.join(name), false));
    let mut mounts: Vec<Mount> =
        files.into_iter().chain(points.map(|point| of_source(point, user))).collect();
    mounts.retain(|mount| match &mount.source {
        MountSource::Bind { path, .. } => path.exists(),
        _ => false,
    });
    mounts.sort_by_key(|mount| mount.destination.matches('/').count());
    mounts
}

/// Where a container finds what it may use of this engine's store, and `dory serve` looks for it.
pub(crate) const PARENT_STORE: &str = "/run/dory-parent/store";
/// Where it says what it uses.
pub(crate) const PARENT_LEASE: &str = "/run/dory-parent/lease";

/// This engine's images for an engine in the container. All but the lease is read-only, and stays so: see
/// `dory-runtime/src/shim/lock.rs`.
fn shared_store(share: &Share, user: &UserNamespace) -> [Mount; 4] {
    let bind = |destination: String, path: &Path, readonly: bool| Mount {
        destination,
        source: MountSource::Bind {
            path: path.to_owned(),
            subpath: String::new(),
            recursive: false,
            id_mapped: user.is_new(),
        },
        flags: MountFlags { readonly, nosuid: true, nodev: true, ..NONE },
        propagation: Propagation::default(),
    };
    [
        bind(PARENT_STORE.to_owned(), &share.root, true),
        bind(format!("{PARENT_STORE}/layers"), &share.layers, true),
        bind(format!("{PARENT_STORE}/content"), &share.content, true),
        bind(PARENT_LEASE.to_owned(), &share.lease, false),
    ]
}

/// moby `oci/defaults.go`, with the changes that modes ask for.
fn defaults(input: &SpecInput<'_>) -> Vec<Mount> {
    let privileged = input.host_config.privileged;
    let mut mounts = vec![
        filesystem("/proc", "proc", PLAIN, &[]),
        filesystem("/dev", "tmpfs", MountFlags { nosuid: true, ..NONE }, &["mode=755", "size=65536k"]),
        filesystem(
            "/dev/pts",
            "devpts",
            MountFlags { nosuid: true, noexec: true, ..NONE },
            &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        sys(input),
        filesystem("/dev/mqueue", "mqueue", PLAIN, &[]),
    ];
    if input.cgroup.is_some() {
        mounts.push(Mount {
            destination: "/sys/fs/cgroup".to_owned(),
            source: MountSource::Cgroup,
            flags: MountFlags { readonly: !privileged, ..PLAIN },
            propagation: Propagation::default(),
        });
    }
    match (&input.modes.ipc, &input.shared_memory) {
        (Mode::None, _) => {}
        (_, Some(path)) => mounts.push(Mount {
            destination: "/dev/shm".to_owned(),
            source: MountSource::Bind {
                path: path.clone(),
                subpath: String::new(),
                recursive: false,
                id_mapped: false,
            },
            flags: PLAIN,
            propagation: Propagation::default(),
        }),
        (_, None) => {
            let size = format!("size={}", input.shm_size);
            mounts.push(filesystem("/dev/shm", "tmpfs", PLAIN, &["mode=1777", &size]));
        }
    }
    mounts
}

/// A sysfs belongs to the network namespace: one that is not the container's own cannot be mounted from a user
/// namespace, so that the engine's is bound there.
fn sys(input: &SpecInput<'_>) -> Mount {
    let flags = MountFlags { readonly: !input.host_config.privileged, ..PLAIN };
    let foreign_network = matches!(input.modes.network, Mode::Host | Mode::Container(_));
    if !(input.user_namespace.is_new() && foreign_network) {
        return filesystem("/sys", "sysfs", flags, &[]);
    }
    Mount {
        destination: "/sys".to_owned(),
        source: MountSource::Bind {
            path: PathBuf::from("/sys"),
            subpath: String::new(),
            recursive: true,
            id_mapped: false,
        },
        flags: MountFlags { readonly: true, ..PLAIN },
        propagation: Propagation::RecursiveSlave,
    }
}

fn filesystem(destination: &str, kind: &str, flags: MountFlags, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: MountSource::Filesystem {
            kind: kind.to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        },
        flags,
        propagation: Propagation::default(),
    }
}

fn file(destination: &str, path: PathBuf, readonly: bool) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: MountSource::Bind { path, subpath: String::new(), recursive: false, id_mapped: false },
        flags: MountFlags { readonly, ..NONE },
        propagation: Propagation::default(),
    }
}

fn memory(destination: String, options: &str) -> Result<Mount, EngineError> {
    let (flags, options) = tmpfs::parse(options)?;
    let source = MountSource::Filesystem { kind: "tmpfs".to_owned(), options };
    Ok(Mount { destination, source, flags, propagation: Propagation::default() })
}

fn of_point(point: &Point, input: &SpecInput<'_>) -> Result<Mount, EngineError> {
    if point.kind == PointKind::Tmpfs {
        return memory(point.destination.clone(), &point.tmpfs);
    }
    Ok(of_source(point, input.user_namespace))
}

/// A mount of a build's command; what is wrong with a tmpfs's options is not asked, as the engine wrote them.
pub(crate) fn of_point_for_build(point: &Point, user: &UserNamespace) -> Mount {
    if point.kind == PointKind::Tmpfs {
        let options = [point.tmpfs.clone()].into_iter().filter(|option| !option.is_empty()).collect();
        let source = MountSource::Filesystem { kind: "tmpfs".to_owned(), options };
        let flags = MountFlags { nosuid: true, nodev: true, ..NONE };
        return Mount {
            destination: point.destination.clone(),
            source,
            flags,
            propagation: Propagation::default(),
        };
    }
    of_source(point, user)
}

/// A bind of a volume's or of a host path's.
fn of_source(point: &Point, user: &UserNamespace) -> Mount {
    Mount {
        destination: point.destination.clone(),
        source: MountSource::Bind {
            path: PathBuf::from(&point.source),
            subpath: point.subpath.clone(),
            recursive: point.recursive,
            id_mapped: user.is_new() && !point.socket,
        },
        flags: MountFlags { readonly: !point.writable, recursive_readonly: point.recursive_readonly, ..NONE },
        propagation: point.runtime_propagation(),
    }
}
