//! Builds the container's file tree beneath its root descriptor.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode};

use crate::error::StartFailure;
use crate::filesystem::{attach, clone_mount, clone_path, mount_filesystem, set_flags, set_readonly};
use crate::spec::{ContainerSpec, Mount, MountFlags, MountSource, Namespace, Propagation};

use super::root::Root;

/// Mounts that the shim made, in the order in which the spec names them.
#[derive(Debug, Default)]
pub struct PreparedMounts {
    /// One for each [`MountSource::Bind`].
    pub binds: VecDeque<OwnedFd>,
    /// The container's own cgroup directories: one named `""` for cgroup2, else one for each v1 hierarchy.
    pub cgroups: VecDeque<(String, OwnedFd)>,
}

/// Makes every mount of the spec; `facts` receives what had to be done in a lesser way.
pub fn mount_all(
    root: Root<'_>,
    spec: &ContainerSpec,
    mut prepared: PreparedMounts,
    facts: &mut Vec<String>,
) -> Result<(), StartFailure> {
    for mount in &spec.mounts {
        let result = match &mount.source {
            MountSource::Bind { .. } => match prepared.binds.pop_front() {
                Some(source) => attach_bind(root, mount, &source),
                None => Err(io::Error::other("the shim sent no mount for it")),
            },
            MountSource::Filesystem { kind, options } => mount_new(root, spec, mount, kind, options, facts),
            MountSource::Cgroup => mount_cgroups(root, mount, &mut prepared.cgroups, facts),
        };
        result.map_err(|error| {
            StartFailure::refused(format!("error mounting to `{}`", mount.destination), error)
        })?;
    }
    Ok(())
}

/// A file is bound on a file, a directory on a directory; what is missing is made.
pub fn attach_bind(root: Root<'_>, mount: &Mount, source: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::statat(source, "", AtFlags::EMPTY_PATH)?;
    let place = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        root.ensure_directory(&mount.destination)?
    } else {
        root.ensure_file(&mount.destination)?
    };
    attach(source.as_fd(), place.as_fd())
}

fn mount_new(
    root: Root<'_>,
    spec: &ContainerSpec,
    mount: &Mount,
    kind: &str,
    options: &[String],
    facts: &mut Vec<String>,
) -> io::Result<()> {
    let place = root.ensure_directory(&mount.destination)?;
    let made = match kind {
        "proc" | "sysfs" => mount_kernel_view(spec, mount, kind, options, facts)?,
        _ => mount_filesystem(kind, kind, options, &mount.flags)?,
    };
    attach(made.as_fd(), place.as_fd())
}

/// A fresh `/proc` or `/sys`. The kernel refuses it in a user namespace where the outer one is partly covered
/// (mnt_already_visible) or belongs to another namespace; then the engine's own is bound, which shows more than it
/// should and is therefore said.
fn mount_kernel_view(
    spec: &ContainerSpec,
    mount: &Mount,
    kind: &str,
    options: &[String],
    facts: &mut Vec<String>,
) -> io::Result<OwnedFd> {
    let refusal = match mount_filesystem(kind, kind, options, &mount.flags) {
        Ok(made) => return Ok(made),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
        Err(error) => return Err(error),
    };
    let readonly = MountFlags { readonly: true, ..mount.flags };
    if kind == "sysfs" && !mount.flags.readonly {
        // A read-only outer sysfs allows a fresh one, but only read-only (nesting.md, surprise 4).
        if let Ok(made) = mount_filesystem(kind, kind, options, &readonly) {
            facts.push("/sys is read-only: the outer /sys is".to_owned());
            return Ok(made);
        }
    }
    let path = if kind == "proc" { "/proc" } else { "/sys" };
    let shared = match kind {
        "proc" => spec.namespaces.pid == Namespace::Host,
        _ => spec.namespaces.network == Namespace::Host,
    };
    let bound = clone_path(Path::new(path), true)?;
    set_flags(bound.as_fd(), &mount.flags, Propagation::RecursivePrivate)?;
    if !shared {
        facts.push(format!("{path} is the engine's own, a fresh one was refused ({refusal})"));
    }
    Ok(bound)
}

/// cgroup2 is bound whole; v1 has a tmpfs with one directory for each hierarchy.
fn mount_cgroups(
    root: Root<'_>,
    mount: &Mount,
    groups: &mut VecDeque<(String, OwnedFd)>,
    facts: &mut Vec<String>,
) -> io::Result<()> {
    if groups.is_empty() {
        facts.push("no cgroup is available: /sys/fs/cgroup stays empty".to_owned());
        return Ok(());
    }
    let place = root.ensure_directory(&mount.destination)?;
    if groups.front().is_some_and(|(name, _)| name.is_empty()) {
        if let Some((_, group)) = groups.pop_front() {
            set_flags(group.as_fd(), &mount.flags, Propagation::RecursivePrivate)?;
            attach(group.as_fd(), place.as_fd())?;
        }
        return Ok(());
    }
    // The tmpfs is attached first: beneath a detached mount nothing can be attached before kernel 6.15.
    let writable = MountFlags { readonly: false, ..mount.flags };
    let tmpfs = mount_filesystem("tmpfs", "cgroup", &["mode=755".to_owned()], &writable)?;
    attach(tmpfs.as_fd(), place.as_fd())?;
    for (name, group) in groups.drain(..) {
        set_flags(group.as_fd(), &mount.flags, Propagation::RecursivePrivate)?;
        rustix::fs::mkdirat(&tmpfs, name.as_str(), Mode::from_raw_mode(0o755))?;
        let target = Root::new(tmpfs.as_fd()).locate(&name)?;
        attach(group.as_fd(), target.as_fd())?;
        // `cpu,cpuacct` is found under either name.
        for alias in name.split(',').filter(|alias| *alias != name) {
            rustix::fs::symlinkat(name.as_str(), &tmpfs, alias)?;
        }
    }
    if mount.flags.readonly { set_readonly(tmpfs.as_fd()) } else { Ok(()) }
}

/// Hides paths: a file beneath the container's `/dev/null`, a directory beneath an empty read-only tmpfs. What does not
/// exist needs no hiding.
pub fn mask_paths(root: Root<'_>, paths: &[String]) -> Result<(), StartFailure> {
    let mut null = None;
    for path in paths {
        let masked = mask(root, path, &mut null);
        masked.map_err(|error| StartFailure::refused(format!("cannot mask `{path}`"), error))?;
    }
    Ok(())
}

fn mask(root: Root<'_>, path: &str, null: &mut Option<OwnedFd>) -> io::Result<()> {
    let place = match root.locate(path) {
        Ok(place) => place,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let stat = rustix::fs::statat(&place, "", AtFlags::EMPTY_PATH)?;
    let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let readonly = MountFlags { readonly: true, ..MountFlags::default() };
        mount_filesystem("tmpfs", "tmpfs", &["nr_inodes=1".to_owned(), "size=0".to_owned()], &readonly)
            .or_else(|_| mount_filesystem("tmpfs", "tmpfs", &[], &readonly))?
    } else {
        let device = match null {
            Some(device) => device,
            None => null.insert(root.locate("/dev/null")?),
        };
        clone_mount(device.as_fd(), Path::new(""), false)?
    };
    attach(cover.as_fd(), place.as_fd())
}

/// Binds paths on themselves, read-only.
pub fn protect_paths(root: Root<'_>, paths: &[String]) -> Result<(), StartFailure> {
    for path in paths {
        let protect = || -> io::Result<()> {
            let place = match root.locate(path) {
                Ok(place) => place,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let copy = clone_mount(place.as_fd(), Path::new(""), true)?;
            set_readonly(copy.as_fd())?;
            attach(copy.as_fd(), place.as_fd())
        };
        protect().map_err(|error| StartFailure::refused(format!("cannot protect `{path}`"), error))?;
    }
    Ok(())
}
