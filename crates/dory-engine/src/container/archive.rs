//! `cp`, `export` and `diff`: a container's files, read and written.
//!
//! A running container's files are reached through its own root directory: what it sees is what is copied, volumes, binds
//! and memory included. A stopped one's are put together for the time of the copy, with the lifecycle lock held, because a
//! start in the middle would mount the same upper directory twice. `export` and `diff` read the layers and mount nothing.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use dory_runtime::client::ShimError;
use dory_runtime::spec::{Rootfs, UserNamespace};
use dory_runtime::stopped::StoppedFiles;
use dory_store::{Change, FileError, IdMap, IdRange, LayeredFiles, Ownership, PathStat, Tree, UnpackOptions};
use dory_types::with_causes;
use tokio::sync::{mpsc, oneshot};

use super::object::Container;
use super::request::WaitCondition;
use crate::engine::{Engine, Inner, blocking};
use crate::spec::stopped_binds;
use crate::{EngineError, ErrorKind, Result};

/// Bytes after which a chunk is handed out.
const CHUNK: usize = 128 << 10;
/// Chunks that may wait for the client.
const CHUNKS: usize = 4;

/// How an archive is written into a container: API 1.51, `PUT /containers/{id}/archive`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteArchiveOptions {
    /// `noOverwriteDirNonDir`.
    pub no_overwrite_dir_non_dir: bool,
    /// `copyUIDGID`: everything belongs to the container's user in place of the archive's owners.
    pub copy_uid_gid: bool,
}

/// An archive that is being written. Dropping it ends the writing.
#[derive(Debug)]
pub struct ArchiveStream {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
}

impl ArchiveStream {
    /// The next chunk; an error means that the archive cannot be completed. `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.receiver.recv().await
    }
}

impl Engine {
    /// What is at `path` in a container: `HEAD /containers/{id}/archive`.
    ///
    /// # Errors
    /// `NotFound` for the container or the path.
    pub async fn stat_container_path(&self, reference: &str, path: &str) -> Result<PathStat> {
        let container = self.inner.registry.find(reference)?;
        let (id, path) = (container.id.clone(), path.to_owned());
        let work = move |files: &Files| files.tree.find(&path)?.stat().map_err(Failure::from);
        self.with_files(&container, work).await.map_err(|failure| failure.on(id.as_str()))
    }

    /// An archive of what is at `path` in a container: `GET /containers/{id}/archive`.
    ///
    /// # Errors
    /// `NotFound` for the container or the path.
    pub async fn read_container_archive(
        &self,
        reference: &str,
        path: &str,
    ) -> Result<(PathStat, ArchiveStream)> {
        let container = self.inner.registry.find(reference)?;
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let (told, head) = oneshot::channel();
        let (engine, target, path) = (self.clone(), Arc::clone(&container), path.to_owned());
        tokio::spawn(async move {
            let work = move |files: &Files| {
                let found = files.tree.find(&path).and_then(|found| Ok((found.stat()?, found)));
                let (stat, found) = match found {
                    Ok(found) => found,
                    Err(error) => return Err(Failure::from(error)),
                };
                // A client that went away needs no archive.
                if told.send(stat).is_err() {
                    return Ok(());
                }
                finish(found.pack(ChunkWriter::new(&sender)), &sender);
                Ok(())
            };
            engine.with_files(&target, work).await
        })
        .await_head(head)
        .await
        .map_err(|failure| failure.on(container.id.as_str()))
        .map(|stat| {
            self.publish(&container, "archive-path");
            (stat, ArchiveStream { receiver })
        })
    }

    /// Unpacks an archive into the directory at `path` in a container: `PUT /containers/{id}/archive`. Reads it on a
    /// thread of its own.
    ///
    /// # Errors
    /// `NotFound` for the container or the path, `Invalid` for an archive that is none or contradicts what is there,
    /// `Forbidden` where the path is read-only.
    pub async fn write_container_archive(
        &self,
        reference: &str,
        path: &str,
        archive: impl Read + Send + 'static,
        options: WriteArchiveOptions,
    ) -> Result<()> {
        let container = self.inner.registry.find(reference)?;
        let path = path.to_owned();
        let record = container.record();
        let work = move |files: &Files| {
            let owner = match options.copy_uid_gid && !record.config.user.is_empty() {
                true => {
                    let (uid, gid) = dory_runtime::user::find(&files.root, &record.config.user)
                        .map_err(|error| Failure::Engine(EngineError::invalid(with_causes(&error))))?;
                    Ownership::Given(uid, gid)
                }
                false => Ownership::Archive,
            };
            let options = UnpackOptions { keep_kinds: options.no_overwrite_dir_non_dir, owner, rename: None };
            let unpacked = files.tree.unpack(&path, archive, options);
            unpacked.map_err(|error| match error {
                FileError::ReadOnly { .. } => Failure::Engine(read_only(&record, &path)),
                error => error.into(),
            })
        };
        let written = self.with_files(&container, work).await;
        written.map_err(|failure| failure.on(container.id.as_str()))?;
        self.publish(&container, "extract-to-dir");
        Ok(())
    }

    /// An archive of a container's files without its mounts: `GET /containers/{id}/export`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn export_container(&self, reference: &str) -> Result<ArchiveStream> {
        let container = self.inner.registry.find(reference)?;
        let (inner, target) = (Arc::clone(&self.inner), Arc::clone(&container));
        let files = blocking(move || inner.layered_files(&target)).await?;
        let (sender, receiver) = mpsc::channel(CHUNKS);
        self.inner.runtime().spawn_blocking(move || {
            finish(files.export(ChunkWriter::new(&sender)), &sender);
        });
        self.publish(&container, "export");
        Ok(ArchiveStream { receiver })
    }

    /// What a container changed in its image's files: `GET /containers/{id}/changes`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn container_changes(&self, reference: &str) -> Result<Vec<Change>> {
        let container = self.inner.registry.find(reference)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let changes = inner.layered_files(&container)?.changes();
            changes.map_err(|error| Failure::from(error).on(container.id.as_str()))
        })
        .await
    }

    /// Runs `work`, which blocks, over a container's files.
    async fn with_files<T: Send + 'static>(
        &self,
        container: &Arc<Container>,
        work: impl FnOnce(&Files) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let lifecycle = container.lifecycle.lock().await;
        if container.live().removed {
            return Err(EngineError::not_found(format!("No such container: {}", container.id)).into());
        }
        let opened = if container.record().runs() { self.running_files(container).await? } else { None };
        let Some(files) = opened else {
            let (inner, target) = (Arc::clone(&self.inner), Arc::clone(container));
            let done = blocking(move || {
                let done = inner.use_volumes(&target.record().points, &target.id).and_then(|()| {
                    let files = inner.stopped_files(&target)?;
                    Ok(work(&files))
                });
                inner.leave_volumes(&target.id);
                done
            });
            return done.await.map_err(Failure::Engine).and_then(|done| done);
        };
        // Nothing of a running container's depends on its state: it may end while its files are copied.
        drop(lifecycle);
        blocking(move || Ok(work(&files))).await.map_err(Failure::Engine).and_then(|done| done)
    }

    /// A running container's files; `None` where it has just ended.
    async fn running_files(&self, container: &Arc<Container>) -> Result<Option<Files>> {
        let target = Arc::clone(container);
        let files = blocking(move || match target.shim().root() {
            Ok(root) => Files::new(root, None, &target.record().user_namespace).map(Some),
            Err(ShimError::Unreachable(_)) => Ok(None),
            Err(error) => Err(EngineError::failed("cannot reach the container's files", error)),
        });
        let files = files.await?;
        if files.is_none() {
            // What the shim left is being released; an engine that ends answers nobody.
            let _ended = container.wait(WaitCondition::NotRunning).await;
        }
        Ok(files)
    }
}

/// Waits for what a task tells first, or for the failure with which it ends instead.
trait AwaitHead<T> {
    async fn await_head(self, head: oneshot::Receiver<T>) -> Result<T, Failure>;
}

impl<T> AwaitHead<T> for tokio::task::JoinHandle<Result<(), Failure>> {
    async fn await_head(self, head: oneshot::Receiver<T>) -> Result<T, Failure> {
        if let Ok(head) = head.await {
            return Ok(head);
        }
        let ended = self.await;
        Err(match ended {
            Ok(Err(failure)) => failure,
            Ok(Ok(())) => Failure::Engine(EngineError::internal("the archive ended before it began")),
            Err(error) => Failure::Engine(EngineError::failed("the engine's own task ended early", error)),
        })
    }
}

impl Inner {
    /// A stopped container's files; the caller holds the lifecycle lock.
    fn stopped_files(&self, container: &Container) -> Result<Files> {
        let record = container.record();
        let snapshot = self
            .store
            .snapshot(&container.id)
            .ok_or_else(|| EngineError::internal("the container's files are gone"))?;
        let files = StoppedFiles {
            rootfs: Rootfs {
                lower: snapshot.layers,
                upper: snapshot.upper,
                work: snapshot.work,
                readonly: record.host_config.readonly_rootfs,
            },
            binds: stopped_binds(&record.points, &container.directory, &record.user_namespace),
            user_namespace: record.user_namespace.clone(),
            // Not the container's own directory, which has the upper one in it.
            scratch: self.options.exec_root.join("containers"),
        };
        let root = self
            .launcher()?
            .open_stopped(&files)
            .map_err(|error| EngineError::failed("cannot reach the container's files", error))?;
        let (root, namespace) = root.into_parts();
        Files::new(root, Some(namespace), &record.user_namespace)
    }

    pub(super) fn layered_files(&self, container: &Container) -> Result<LayeredFiles> {
        let snapshot = self
            .store
            .snapshot(&container.id)
            .ok_or_else(|| EngineError::not_found(format!("No such container: {}", container.id)))?;
        let ids = id_map(&container.record().user_namespace);
        LayeredFiles::open(&snapshot.upper, &snapshot.layers, ids)
            .map_err(|error| Failure::from(error).on(container.id.as_str()))
    }
}

/// A container's files for the time of one request.
struct Files {
    tree: Tree,
    /// The same directory, for looking users up.
    root: OwnedFd,
    /// Keeps a stopped container's mounts; let go of last.
    #[expect(dead_code, reason = "holding it open is its use")]
    namespace: Option<OwnedFd>,
}

impl Files {
    fn new(root: OwnedFd, namespace: Option<OwnedFd>, user: &UserNamespace) -> Result<Self> {
        let copy = root
            .try_clone()
            .map_err(|error| EngineError::failed("cannot keep the container's root open", error))?;
        Ok(Self { tree: Tree::new(root, id_map(user)), root: copy, namespace })
    }
}

/// The container's ids; without a namespace of its own they are the engine's.
fn id_map(user: &UserNamespace) -> IdMap {
    let ranges = |mappings: &[dory_runtime::spec::IdMapping]| {
        let range = |map: &dory_runtime::spec::IdMapping| IdRange {
            inside: map.container_id,
            outside: map.host_id,
            length: map.size,
        };
        mappings.iter().map(range).collect()
    };
    match user {
        UserNamespace::Host => IdMap::default(),
        UserNamespace::New { uid_mappings, gid_mappings } => {
            IdMap { uids: ranges(uid_mappings), gids: ranges(gid_mappings) }
        }
    }
}

/// dockerd's words for a read-only directory: they tell a volume from the root.
fn read_only(record: &super::record::Record, path: &str) -> EngineError {
    let path = crate::mount::clean(path);
    let within = |destination: &str| {
        path.strip_prefix(destination).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let message = match record.points.iter().any(|point| within(&point.destination)) {
        true => "mounted volume is marked read-only",
        false => "container rootfs is marked read-only",
    };
    EngineError::new(ErrorKind::Forbidden, message)
}

/// What kept a request from a container's files.
enum Failure {
    Engine(EngineError),
    Files(FileError),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::Files(error)
    }
}

impl Failure {
    /// The answer for the container with this id.
    fn on(self, id: &str) -> EngineError {
        let error = match self {
            Self::Engine(error) => return error,
            Self::Files(error) => error,
        };
        match &error {
            FileError::NotFound { path } => {
                EngineError::not_found(format!("Could not find the file {path} in container {id}"))
            }
            error if error.is_callers() => EngineError::invalid(with_causes(error)),
            error => EngineError::internal(with_causes(error)),
        }
        .caused_by(error)
    }
}

/// Passes the end of an archive on, be it bad.
fn finish(written: Result<(), FileError>, sender: &mpsc::Sender<io::Result<Bytes>>) {
    match written {
        // A client that went away hears nothing of it.
        Ok(()) | Err(FileError::Write(_)) => {}
        Err(error) => {
            tracing::warn!(error = with_causes(&error), "An archive of a container's files is cut off");
            let _ = sender.blocking_send(Err(io::Error::other(error)));
        }
    }
}

/// Collects what is written into chunks for a client, and waits while it is slow.
struct ChunkWriter<'a> {
    sender: &'a mpsc::Sender<io::Result<Bytes>>,
    chunk: Vec<u8>,
}

impl<'a> ChunkWriter<'a> {
    fn new(sender: &'a mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self { sender, chunk: Vec::with_capacity(CHUNK) }
    }
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..length]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(Ok(chunk.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
