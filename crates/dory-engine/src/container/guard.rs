//! Guarded sockets: what a container gets in place of the engine's socket.
//!
//! The engine sees to the socket (held by the shim) and to whose it is; whoever serves the API takes [`GuardEvent`]s and
//! answers on it, as far as a policy goes.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use dory_runtime::protocol::{GUARD_DIRECTORY, GUARD_SOCKET};
use dory_types::{ContainerId, NetworkId, OWNER_LABEL};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::name::random_bytes;
use super::object::Container;
use super::record::Record;
use super::request::{ListOptions, RemoveOptions};
use crate::engine::{Engine, Inner, blocking};
use crate::filters::Filters;
use crate::mount::PointKind;
use crate::{EngineError, Result};

/// A container's own socket, on which nobody answers yet.
#[derive(Debug)]
pub struct GuardedSocket {
    /// Whose it is.
    pub container: ContainerId,
    /// Value of [`OWNER_LABEL`] on what is made through it; the same for all runs of the container.
    pub owner: String,
    /// It is mounted read-only, everywhere.
    pub read_only: bool,
    /// Where it lies on the host.
    pub path: PathBuf,
    /// It listens already.
    pub listener: UnixListener,
}

/// What whoever serves guarded sockets has to know.
#[derive(Debug)]
pub enum GuardEvent {
    /// A container with such a socket runs, since now or from an engine before.
    Begun(GuardedSocket),
    /// It runs no more.
    Ended(ContainerId),
}

/// Where a path of a container's leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerPath {
    /// To one of its volumes.
    Volume {
        /// Its name.
        name: String,
        /// What is meant in it; empty for all of it.
        subpath: String,
        /// The container cannot write there.
        read_only: bool,
    },
    /// To a bind of the host's.
    Bind {
        /// The bind's source, a path of the host.
        source: String,
        /// What is meant below it; empty for all of it.
        subpath: String,
        /// The container cannot write there.
        read_only: bool,
    },
    /// To an engine's socket, or what stands in its place.
    Socket,
    /// Into the container's own layer, or into memory: no other container can have it mounted.
    Own,
    /// Nowhere.
    Missing,
}

/// Events on their way to whoever serves guarded sockets.
#[derive(Debug)]
pub(crate) struct Guards {
    sender: mpsc::UnboundedSender<GuardEvent>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<GuardEvent>>>,
}

impl Guards {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

/// A secret that marks what one container makes.
pub(super) fn new_owner() -> String {
    NetworkId::from_bytes(random_bytes()).to_string()
}

impl Engine {
    /// Sockets that containers have in place of the engine's, from the engine's beginning on; for one taker.
    pub fn guard_events(&self) -> Option<mpsc::UnboundedReceiver<GuardEvent>> {
        self.inner.guards.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What `path` means in a running container, symbolic links followed as its processes would.
    ///
    /// # Errors
    /// `NotFound` where there is no such container; `Conflict` where it does not run.
    pub async fn caller_path(&self, container: &ContainerId, path: &str) -> Result<CallerPath> {
        let container = self.inner.registry.find(container.as_str())?;
        let (inner, path) = (Arc::clone(&self.inner), path.to_owned());
        blocking(move || inner.caller_path(&container, &path)).await
    }

    /// Removes what a container has made through its guarded socket, where the configuration says so. Boxed, because it
    /// removes containers, of which each may have made others.
    pub(super) fn clean_up_after<'e>(
        &'e self,
        container: &'e Container,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'e>> {
        Box::pin(async move {
            let Some(owner) = &container.record().guard_owner else { return };
            if self.inner.options.socket_cleanup {
                self.remove_owned(owner).await;
            }
        })
    }

    /// Removes everything that carries the owner's mark, and goes on past failures: containers with their anonymous
    /// volumes, networks, volumes, images.
    async fn remove_owned(&self, owner: &str) {
        let mut filters = Filters::default();
        filters.add("label", format!("{OWNER_LABEL}={owner}"));
        let failed = |what: &str, name: &str, error: EngineError| {
            tracing::warn!(what, name, %error, "Cannot remove what a container has made");
        };
        let options = ListOptions { all: true, filters: filters.clone(), ..ListOptions::default() };
        for container in self.list_containers(options).await.unwrap_or_default() {
            let options = RemoveOptions { force: true, volumes: true, link: false };
            if let Err(error) = self.remove_container(container.id.as_str(), options).await {
                failed("container", container.id.as_str(), error);
            }
        }
        for network in self.list_networks(&filters).await.unwrap_or_default() {
            if let Err(error) = self.remove_network(&network.id).await {
                failed("network", &network.name, error);
            }
        }
        for volume in self.list_volumes(&filters).await.map(|list| list.volumes).unwrap_or_default() {
            if let Err(error) = self.remove_volume(volume.name.as_str(), true).await {
                failed("volume", volume.name.as_str(), error);
            }
        }
        for image in self.list_images(&filters, false, false).await.unwrap_or_default() {
            if let Err(error) = self.remove_image(&image.id, true, false).await {
                failed("image", &image.id, error);
            }
        }
    }
}

impl Inner {
    /// Where a container's guarded socket lies.
    pub(super) fn guarded_socket_path(&self, id: &ContainerId) -> PathBuf {
        self.runtime_directory(id).join(GUARD_DIRECTORY).join(GUARD_SOCKET)
    }

    /// The socket of the container through whose socket this one was made: it belongs to the same session. With it whether
    /// the socket is this container's own.
    pub(super) fn guarded_socket_of(&self, record: &Record) -> (PathBuf, bool) {
        let maker = record.config.labels.get(OWNER_LABEL).and_then(|owner| {
            let made = |container: &&Arc<Container>| container.record().guard_owner.as_ref() == Some(owner);
            self.registry.all().iter().find(made).map(|container| container.id.clone())
        });
        match maker {
            Some(maker) => (self.guarded_socket_path(&maker), false),
            None => (self.guarded_socket_path(&record.id), true),
        }
    }

    /// Hands the socket of a container that runs to whoever serves it.
    pub(crate) fn begin_guard(&self, container: &Container) {
        let record = container.record();
        let (Some(guard), Some(owner)) =
            (record.run.as_ref().and_then(|run| run.guard), record.guard_owner.clone())
        else {
            return;
        };
        let listener = match container.shim().guarded_socket() {
            Ok(Some(listener)) => listener,
            Ok(None) => return,
            // It has ended already.
            Err(error) if error.is_gone() => return,
            Err(error) => {
                tracing::warn!(container.id = %container.id, %error, "Cannot serve a container's own API socket");
                return;
            }
        };
        let path = self.guarded_socket_path(&container.id);
        let container = container.id.clone();
        let socket = GuardedSocket { container, owner, read_only: guard.read_only, path, listener };
        // Nobody takes them where this engine serves no API.
        let _ = self.guards.sender.send(GuardEvent::Begun(socket));
    }

    /// Says that a container's socket is gone.
    pub(super) fn end_guard(&self, container: &Container) {
        if container.record().run.as_ref().is_some_and(|run| run.guard.is_some()) {
            let _ = self.guards.sender.send(GuardEvent::Ended(container.id.clone()));
        }
    }

    fn caller_path(&self, container: &Container, path: &str) -> Result<CallerPath> {
        let root = container.shim().root().map_err(|error| {
            EngineError::conflict(format!("container {} is not running", container.id)).caused_by(error)
        })?;
        let root = std::os::fd::AsFd::as_fd(&root);
        let Some(real) = real_path(root, path)? else { return Ok(CallerPath::Missing) };
        let record = container.record();
        let mut points = record.points.clone();
        self.put_sockets(&record, &mut points)?;
        let mut found: Option<(PathBuf, &crate::mount::Point)> = None;
        for point in &points {
            let Some(destination) = real_path(root, &point.destination)? else { continue };
            let deeper = found.as_ref().is_none_or(|(known, _)| destination.starts_with(known));
            if real.starts_with(&destination) && deeper {
                found = Some((destination, point));
            }
        }
        let Some((destination, point)) = found else { return Ok(CallerPath::Own) };
        let below = real.strip_prefix(&destination).unwrap_or(Path::new(""));
        let Some(subpath) =
            Path::new(&point.subpath).join(below).to_str().map(|path| path.trim_end_matches('/').to_owned())
        else {
            return Ok(CallerPath::Missing);
        };
        let read_only = !point.writable;
        Ok(match point.kind {
            PointKind::Tmpfs => CallerPath::Own,
            PointKind::Bind if point.socket => CallerPath::Socket,
            PointKind::Bind => CallerPath::Bind { source: point.source.clone(), subpath, read_only },
            PointKind::Volume => CallerPath::Volume { name: point.volume.clone(), subpath, read_only },
        })
    }
}

/// `path` as it is called without symbolic links, in the mount namespace of `root`; `None` where nothing is there.
fn real_path(root: BorrowedFd<'_>, path: &str) -> Result<Option<PathBuf>> {
    let failed = |error: Errno| EngineError::failed("cannot look up a path of a container", error);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    // The kernel names a file by the mounts that it was reached through, whoever asks (proc_pid_fd(5)).
    let name = |descriptor: BorrowedFd<'_>| -> Result<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
            .map_err(|error| EngineError::failed("cannot look up a path of a container", error))
    };
    let (real, top) = (name(std::os::fd::AsFd::as_fd(&opened))?, name(root)?);
    Ok(real.strip_prefix(&top).ok().map(|inside| Path::new("/").join(inside)))
}
