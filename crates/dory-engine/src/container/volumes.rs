//! A container's mounts at its creation: collected, made, and filled from the image.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use dory_store::{Snapshot, copy_up};
use dory_types::{ContainerId, VolumeName};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::record::{GuardedMount, Record};
use crate::config::{ContainerConfig, HostConfig};
use crate::engine::Inner;
use crate::mount::{
    Point, PointKind, SocketMeaning, check_socket, clean, covers, from_mount, parse_bind, parse_volumes_from,
    socket_meaning,
};
use crate::{EngineError, Result};

impl Inner {
    /// The points of a configuration, in dockerd's order; what comes later replaces what is taken over from other
    /// containers and from the image.
    pub(super) fn collect_points(&self, config: &ContainerConfig, host: &HostConfig) -> Result<Vec<Point>> {
        let mut points: Vec<Point> = Vec::new();
        for text in &host.volumes_from {
            let (reference, writable) = parse_volumes_from(text)?;
            // Not "not found": clients would take the image for missing.
            let other =
                self.registry.find(reference).map_err(|error| EngineError::invalid(error.message()))?;
            for point in &other.record().points {
                let taken = Point {
                    writable: point.writable && writable,
                    copy: false,
                    mode: String::new(),
                    ..point.clone()
                };
                points.retain(|known| known.destination != taken.destination);
                points.push(taken);
            }
        }
        let mut own: Vec<Point> = Vec::new();
        for text in &host.binds {
            add(&mut own, host, parse_bind(text)?)?;
        }
        for mount in &host.mounts {
            let point = from_mount(mount)?;
            if point.kind == PointKind::Bind
                && !point.create_source
                && check_socket(&point, &self.options)?.is_none()
                && !Path::new(&point.source).exists()
            {
                return Err(EngineError::invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    point.source
                )));
            }
            add(&mut own, host, point)?;
        }
        for point in own.iter_mut().filter(|point| point.kind == PointKind::Volume) {
            if point.mode.is_empty() && !point.anonymous {
                // What dockerd shows for every named volume, with SELinux or without.
                "z".clone_into(&mut point.mode);
            }
        }
        points.retain(|point| !own.iter().any(|mine| mine.destination == point.destination));
        points.extend(own);
        for destination in config.volumes.iter().flat_map(std::collections::BTreeMap::keys) {
            // Old clients send what they cannot read as `-v` here.
            let point = parse_bind(destination).map_err(|error| {
                EngineError::invalid(format!("invalid volume spec \"{destination}\": {error}"))
            })?;
            if !point.anonymous {
                return Err(EngineError::invalid(format!("invalid volume spec \"{destination}\"")));
            }
            let destination = point.destination;
            if !points.iter().any(|point| point.destination == destination)
                && !host.tmpfs.keys().any(|path| clean(path) == destination)
            {
                points.push(Point::anonymous(&destination));
            }
        }
        for point in &points {
            check_socket(point, &self.options)?;
        }
        Ok(points)
    }

    /// Makes the volumes that do not exist, and fills empty ones from the image.
    pub(super) fn make_volumes(
        &self,
        id: &ContainerId,
        points: &mut [Point],
        snapshot: &Snapshot,
    ) -> Result<()> {
        let made = self.make_each_volume(id, points, snapshot);
        // Mounted for the copying only.
        self.leave_volumes(id);
        made
    }

    fn make_each_volume(&self, id: &ContainerId, points: &mut [Point], snapshot: &Snapshot) -> Result<()> {
        let mut content = None;
        for point in points.iter_mut().filter(|point| point.kind == PointKind::Volume) {
            let existed = !point.volume.is_empty()
                && point.volume.parse().is_ok_and(|name: VolumeName| self.store.volume(&name).is_ok());
            let name = match point.volume.as_str() {
                "" => None,
                name => Some(
                    name.parse::<VolumeName>().map_err(|error| EngineError::invalid(error.to_string()))?,
                ),
            };
            let volume = self
                .store
                .create_volume(
                    name,
                    point.volume_labels.take().unwrap_or_default(),
                    point.volume_options.take().unwrap_or_default(),
                )
                .map_err(crate::image::store_error)?;
            if !existed {
                self.publish_volume("create", volume.name.as_str());
            }
            volume.name.as_str().clone_into(&mut point.volume);
            if volume.is_mounted_on_use() {
                self.use_volume(&volume.name, id)?;
            }
            if !point.subpath.is_empty() {
                check_subpath(&volume.mountpoint, &point.subpath)?;
            }
            point.source = volume.mountpoint.to_string_lossy().into_owned();
            if point.copy && point.subpath.is_empty() {
                let content = match &content {
                    Some(content) => content,
                    None => content.insert(ImageContent::open(&snapshot.layers)?),
                };
                content.fill(point).map_err(|error| {
                    tracing::warn!(container.id = %id, volume = %point.volume, %error, "Cannot fill a volume");
                    error
                })?;
            }
        }
        Ok(())
    }

    /// Mounts a volume that has options, until [`Self::leave_volumes`] for the last of those who use it.
    fn use_volume(&self, name: &VolumeName, id: &ContainerId) -> Result<()> {
        let mut users = self.mounted_volumes.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.mount_volume(name).map_err(crate::image::store_error)?;
        users.entry(name.clone()).or_default().insert(id.clone());
        Ok(())
    }

    /// Mounts the volumes with options among `points`.
    pub(crate) fn use_volumes(&self, points: &[Point], id: &ContainerId) -> Result<()> {
        for point in points.iter().filter(|point| point.kind == PointKind::Volume) {
            // One that is gone is the caller's to report.
            let Ok(name) = point.volume.parse::<VolumeName>() else { continue };
            if self.store.volume(&name).is_ok_and(|volume| volume.is_mounted_on_use()) {
                self.use_volume(&name, id)?;
            }
        }
        Ok(())
    }

    /// Unmounts the volumes that only this container has used.
    pub(crate) fn leave_volumes(&self, id: &ContainerId) {
        let mut users = self.mounted_volumes.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|name, users| {
            users.remove(id);
            if users.is_empty()
                && let Err(error) = self.store.unmount_volume(name)
            {
                tracing::warn!(volume = %name, %error, "Cannot unmount a volume");
            }
            !users.is_empty()
        });
    }

    /// Unmounts the volumes that nobody uses: an engine before this one was killed.
    pub(crate) fn sweep_volumes(&self) {
        let users = self.mounted_volumes.lock().unwrap_or_else(PoisonError::into_inner);
        for volume in self.store.volumes() {
            if volume.is_mounted_on_use()
                && !users.contains_key(&volume.name)
                && let Err(error) = self.store.unmount_volume(&volume.name)
            {
                tracing::warn!(volume = %volume.name, %error, "Cannot unmount a volume");
            }
        }
    }

    /// The points as a start mounts them: with sources that exist, and the engine's socket where that is meant.
    ///
    /// With it how the container has a guarded socket of its own, if it has one.
    pub(super) fn points_to_mount(&self, record: &Record) -> Result<(Vec<Point>, Option<GuardedMount>)> {
        let mut points = record.points.clone();
        let guard = self.put_sockets(record, &mut points)?;
        for point in &points {
            match point.kind {
                // The shim makes it.
                PointKind::Bind if point.socket => {}
                PointKind::Tmpfs => {}
                PointKind::Volume => {
                    if !Path::new(&point.source).exists() {
                        return Err(EngineError::not_found(format!("get {}: no such volume", point.volume)));
                    }
                }
                PointKind::Bind if Path::new(&point.source).exists() => {}
                PointKind::Bind if point.create_source => {
                    std::fs::create_dir_all(&point.source).map_err(|error| {
                        EngineError::failed(
                            format!("error while creating mount source path '{}'", point.source),
                            error,
                        )
                    })?;
                }
                PointKind::Bind => {
                    return Err(EngineError::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {}",
                        point.source
                    )));
                }
            }
        }
        Ok((points, guard))
    }

    /// Puts the sockets that are meant in the place of the engine's own, also where a directory above one is mounted.
    pub(super) fn put_sockets(
        &self,
        record: &Record,
        points: &mut Vec<Point>,
    ) -> Result<Option<GuardedMount>> {
        let mut guard: Option<GuardedMount> = None;
        let (socket, own) = self.guarded_socket_of(record);
        let mut covering = Vec::new();
        for point in points.iter_mut() {
            match socket_meaning(point, &self.options)? {
                Some(SocketMeaning::Raw(socket)) => {
                    point.source = socket.to_string_lossy().into_owned();
                    point.create_source = false;
                }
                Some(SocketMeaning::Guarded) => {
                    point.source = socket.to_string_lossy().into_owned();
                    point.create_source = false;
                    point.socket = true;
                    let read_only = guard.is_none_or(|guard| guard.read_only) && !point.writable;
                    guard = Some(GuardedMount { read_only });
                }
                Some(SocketMeaning::Shared) => {
                    point.create_source = false;
                    point.socket = true;
                }
                None => covering.extend(covers(point, &self.options, &socket)),
            }
        }
        covering.retain(|cover| !points.iter().any(|point| point.destination == cover.destination));
        for point in covering.iter().filter(|point| point.socket) {
            let read_only = guard.is_none_or(|guard| guard.read_only) && !point.writable;
            guard = Some(GuardedMount { read_only });
        }
        points.extend(covering);
        Ok(guard.filter(|_| own))
    }

    /// The containers that use a volume.
    pub(crate) fn volume_users(&self, name: &VolumeName) -> Vec<ContainerId> {
        let uses = |record: &Record| record.points.iter().any(|point| point.volume == name.as_str());
        self.registry
            .all()
            .iter()
            .filter(|container| !container.live().removed && uses(&container.record()))
            .map(|container| container.id.clone())
            .collect()
    }

    /// Bytes that a container has written; 0 where that cannot be told.
    pub(crate) fn writable_size(&self, id: &ContainerId) -> u64 {
        self.store.snapshot(id).map_or(0, |snapshot| directory_size(&snapshot.upper))
    }
}

/// Adds a point of the request's own: two at one place contradict each other.
fn add(own: &mut Vec<Point>, host: &HostConfig, point: Point) -> Result<()> {
    let taken = own.iter().any(|known| known.destination == point.destination)
        || host.tmpfs.keys().any(|path| clean(path) == point.destination);
    if taken {
        return Err(EngineError::invalid(format!("Duplicate mount point: {}", point.destination)));
    }
    own.push(point);
    Ok(())
}

/// Looks whether a volume has `subpath`. The start resolves it again, in the same way: a container that shares the volume
/// may have changed it.
fn check_subpath(volume: &Path, subpath: &str) -> Result<()> {
    let failed = |error: rustix::io::Errno| {
        EngineError::invalid(format!("cannot access path {subpath} within the volume: {error}"))
    };
    let root = open_directory(volume).map_err(failed)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(&root, subpath, flags, Mode::empty(), resolve).map(drop).map_err(failed)
}

/// The image's files as a container sees them before it has written any.
#[derive(Debug)]
struct ImageContent {
    root: Option<OwnedFd>,
}

impl ImageContent {
    /// One layer is taken as it is; several are put together by an overlay that is mounted nowhere: it is gone with
    /// its descriptor.
    fn open(layers: &[PathBuf]) -> Result<Self> {
        let failed = |error| EngineError::failed("cannot read the image's files", error);
        let root = match layers {
            [] => None,
            [layer] => Some(open_directory(layer).map_err(failed)?),
            layers => Some(detached_overlay(layers).map_err(failed)?),
        };
        Ok(Self { root })
    }

    /// Copies what the image has at the point into the volume, if that is empty.
    fn fill(&self, point: &Point) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let source =
            match rustix::fs::openat2(root, point.destination.as_str(), flags, Mode::empty(), resolve) {
                Ok(source) => source,
                // Nothing there, or no directory: the volume begins empty.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
                Err(error) => return Err(EngineError::failed("cannot read the image's files", error)),
            };
        let destination = open_directory(Path::new(&point.source))
            .map_err(|error| EngineError::failed("cannot open the volume", error))?;
        copy_up(source.as_fd(), destination.as_fd())
            .map(drop)
            .map_err(|error| EngineError::failed("cannot fill the volume", error))
    }
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// A read-only overlay of `layers`, the topmost first, attached to no mount namespace (fsmount(2); `lowerdir+` is of
/// 6.5 and takes one layer a time, where a joined list may not exceed 256 bytes).
fn detached_overlay(layers: &[PathBuf]) -> rustix::io::Result<OwnedFd> {
    let filesystem = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers {
        rustix::mount::fsconfig_set_string(filesystem.as_fd(), "lowerdir+", layer.as_os_str())?;
    }
    rustix::mount::fsconfig_create(filesystem.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID;
    rustix::mount::fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The sum of the lengths of the files below `directory`; what vanishes meanwhile does not count.
fn directory_size(directory: &Path) -> u64 {
    let mut waiting = vec![directory.to_owned()];
    let mut size = 0;
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => waiting.push(entry.path()),
                Ok(metadata) if metadata.is_file() => size += metadata.len(),
                _ => {}
            }
        }
    }
    size
}
