//! `RUN --mount`: what is mounted, and what of it is in the key.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dory_dockerfile::{CacheSharing, Mount, MountType, Run};
use dory_types::Digest;
use rustix::fs::{self, Gid, Mode, OFlags, Uid};

use super::stage::{Stage, StageError};
use crate::error::StepError;
use crate::executor::{RunMount, RunMountSource};
use crate::operations::copy::{CopyFiles, CopyPath, Source};
use crate::operations::key::Key;
use crate::operations::select::clean;

/// Where a secret is found whose line names no target.
const SECRETS: &str = "/run/secrets";
/// Where agents' sockets are.
const AGENTS: &str = "/run/buildkit";
/// Permissions of secrets, and of cache directories and agents' sockets.
const SECRET_MODE: u32 = 0o400;
const CACHE_MODE: u32 = 0o755;
const AGENT_MODE: u32 = 0o600;
/// Between two looks at a cache that somebody has.
const CACHE_PAUSE: Duration = Duration::from_millis(20);

/// The mounts of one command, read.
pub(super) struct Mounts {
    /// Of what is mounted, where it counts.
    pub(super) key: Digest,
    all: Vec<(Mount, Option<Bound>)>,
}

/// What a bind shows: a layer's files.
struct Bound {
    layer: dory_store::LayerLease,
    /// The one file in it that is meant; empty for all.
    subpath: String,
}

/// The mounts of one command, ready.
pub(super) struct PreparedMounts {
    pub(super) mounts: Vec<RunMount>,
    /// Variables with secrets.
    pub(super) env: Vec<String>,
    /// Held while the command runs: nobody else has caches that it wants for itself (`sharing=locked`).
    _caches: Vec<OwnedFd>,
}

impl Stage<'_, '_> {
    /// Reads the mounts of a line, and brings what binds show.
    pub(super) fn mounts(&self, run: &Run) -> Result<Mounts, StageError> {
        let mut key = Key::new("mounts");
        let mut all = Vec::new();
        for text in &run.mounts {
            let lexer = self.solver.plan.lexer();
            let mount = Mount::parse(text, |value| self.expand_raw(lexer, value))?;
            let target = self.mount_target(&mount);
            key.text(mount.kind.as_str()).text(&target).number(i64::from(mount.read_only));
            key.text(mount.id.as_deref().unwrap_or_default()).text(mount.env.as_deref().unwrap_or_default());
            let bound = match mount.kind {
                MountType::Bind => Some(self.bind(&mount)?),
                MountType::Cache if mount.from.is_some() => {
                    return Err(StepError::Unsupported(
                        "a cache mount that begins with files (`from`) is not supported".to_owned(),
                    )
                    .into());
                }
                _ => None,
            };
            if let Some(bound) = &bound {
                key.content(&bound.layer.diff_id()).text(&bound.subpath);
            }
            all.push((mount, bound));
        }
        Ok(Mounts { key: key.digest(), all })
    }

    fn mount_target(&self, mount: &Mount) -> String {
        match (&mount.target, mount.kind) {
            (Some(target), _) => self.absolute(target),
            (None, MountType::Secret) => {
                let id = mount.id.as_deref().or(mount.source.as_deref()).unwrap_or_default();
                format!("{SECRETS}/{}", id.rsplit('/').next().unwrap_or_default())
            }
            (None, MountType::Ssh) => String::new(),
            (None, _) => "/".to_owned(),
        }
    }

    /// The files of a bind, as a layer of their own.
    fn bind(&self, mount: &Mount) -> Result<Bound, StageError> {
        let Some(source) = self.source(mount.from.as_deref())? else {
            return Err(StepError::Invalid("there is no build context to mount".to_owned()).into());
        };
        let path = mount.source.clone().unwrap_or_else(|| "/".to_owned());
        let (layer, subpath) = self.files_of(&source, &path)?;
        Ok(Bound { layer, subpath })
    }

    fn files_of(
        &self,
        source: &Arc<Source>,
        path: &str,
    ) -> Result<(dory_store::LayerLease, String), StageError> {
        let failed = |error: dory_store::FileError| StepError::Copy {
            path: path.to_owned(),
            message: dory_types::with_causes(&error),
        };
        let below = dory_store::View::of_layers(&[]).map_err(failed)?;
        let node = source.view.find(path.as_bytes(), true).map_err(failed)?;
        let is_directory = node.as_ref().is_some_and(dory_store::Node::is_directory);
        let name = clean(path).pop().unwrap_or_default();
        let paths = [CopyPath { source: Arc::clone(source), path: path.to_owned(), unpack: false }];
        let copy = CopyFiles::plain(&below, &paths, self.now());
        let prepared = copy.prepare()?;
        let made = self.solve_key(prepared.key()?, &format!("mount {path}"), "internal", || {
            Ok(Some(prepared.layer(&self.solver.builder.store)?))
        })?;
        let layer = made.layer.ok_or_else(|| StepError::Invalid(format!("{path} is empty")))?;
        Ok((layer, if is_directory { String::new() } else { name }))
    }
}

impl Mounts {
    /// Makes what the command finds mounted. Called only where it is run.
    pub(super) fn prepare(&self, stage: &Stage<'_, '_>) -> Result<PreparedMounts, StageError> {
        let mut prepared =
            PreparedMounts { mounts: Vec::new(), env: Vec::new(), _caches: self.lock_caches(stage)? };
        let mut agents = 0;
        for (mount, bound) in &self.all {
            let target = stage.mount_target(mount);
            let mut add = |target: String, source, read_only| {
                prepared.mounts.push(RunMount { target, source, read_only });
            };
            match mount.kind {
                MountType::Bind => {
                    if let Some(bound) = bound {
                        add(target, bound_directory(stage, bound, mount.read_only)?, mount.read_only);
                    }
                }
                MountType::Tmpfs => add(target, RunMountSource::Memory { size: mount.size }, false),
                MountType::Cache => {
                    let path = cache(stage, mount, &target)?.path;
                    let source = RunMountSource::Directory { path, subpath: String::new() };
                    add(target, source, mount.read_only);
                }
                MountType::Secret => {
                    let Some((id, content)) = secret(stage, mount)? else { continue };
                    if let Some(name) = &mount.env {
                        let name = if name.is_empty() { &id } else { name };
                        prepared.env.push(format!("{name}={}", String::from_utf8_lossy(&content)));
                        if mount.target.is_none() {
                            continue;
                        }
                    }
                    let mode = mount.mode.unwrap_or(SECRET_MODE);
                    let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
                    let source = RunMountSource::Secret { content, mode, uid, gid };
                    prepared.mounts.push(RunMount { target, source, read_only: true });
                }
                MountType::Ssh => {
                    let Some(source) = agent(stage, mount)? else { continue };
                    let target = match target.as_str() {
                        "" => format!("{AGENTS}/ssh_agent.{agents}"),
                        _ => target,
                    };
                    if agents == 0 {
                        prepared.env.push(format!("SSH_AUTH_SOCK={target}"));
                    }
                    agents += 1;
                    prepared.mounts.push(RunMount { target, source, read_only: false });
                }
            }
        }
        Ok(prepared)
    }

    /// Locks the caches: all that are mounted, in the order of their names, so that no two commands wait for each other.
    fn lock_caches(&self, stage: &Stage<'_, '_>) -> Result<Vec<OwnedFd>, StageError> {
        let mut caches = BTreeMap::new();
        for (mount, _) in self.all.iter().filter(|(mount, _)| mount.kind == MountType::Cache) {
            let target = stage.mount_target(mount);
            let found = cache(stage, mount, &target)?;
            let (_, _, locked) = caches.entry(found.path).or_insert((found.directory, target, false));
            *locked |= mount.sharing == CacheSharing::Locked;
        }
        caches
            .into_values()
            .map(|(directory, target, locked)| lock(stage, directory, &target, locked))
            .collect()
    }
}

/// Waits for a cache: for all others' end where it is wanted alone, else for that of one who wants it so. The lock is of the
/// open directory, so it ends with this process at the latest, and holds against other processes on the same store.
fn lock(stage: &Stage<'_, '_>, directory: OwnedFd, target: &str, alone: bool) -> Result<OwnedFd, StageError> {
    use rustix::fs::FlockOperation::{NonBlockingLockExclusive, NonBlockingLockShared};
    let operation = if alone { NonBlockingLockExclusive } else { NonBlockingLockShared };
    loop {
        match fs::flock(&directory, operation) {
            Ok(()) => return Ok(directory),
            Err(rustix::io::Errno::WOULDBLOCK) if stage.solver.cancel.is_cancelled() => {
                return Err(StepError::Cancelled.into());
            }
            // A blocking wait could not be cancelled.
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(CACHE_PAUSE),
            Err(errno) => return Err(cannot_mount(target, errno.into())),
        }
    }
}

fn cannot_mount(target: &str, source: std::io::Error) -> StageError {
    StepError::Execute(crate::executor::ExecuteError::Mount { target: target.to_owned(), source }).into()
}

fn bound_directory(
    stage: &Stage<'_, '_>,
    bound: &Bound,
    read_only: bool,
) -> Result<RunMountSource, StageError> {
    let store = &stage.solver.builder.store;
    let Some(path) = store.layer_directories(std::slice::from_ref(&bound.layer)).pop() else {
        return Err(StepError::Invalid("a mount has no files".to_owned()).into());
    };
    if !read_only {
        return Err(StepError::Unsupported(
            "a bind mount that may be written to is not supported".to_owned(),
        )
        .into());
    }
    Ok(RunMountSource::Directory { path, subpath: bound.subpath.clone() })
}

/// Where a cache is.
struct Cache {
    path: PathBuf,
    directory: OwnedFd,
}

/// A cache's directory, made where there is none.
fn cache(stage: &Stage<'_, '_>, mount: &Mount, target: &str) -> Result<Cache, StageError> {
    let store = &stage.solver.builder.store;
    let id = mount.id.as_deref().unwrap_or(target);
    let failed = |errno: rustix::io::Errno| cannot_mount(target, errno.into());
    if mount.sharing == CacheSharing::Private {
        return Err(
            StepError::Unsupported("a cache mount with sharing=private is not supported".to_owned()).into()
        );
    }
    let name = Digest::of(id.as_bytes()).hex();
    let build = store.build_directory()?;
    let make = |parent: &dyn std::os::fd::AsFd, name: &str, mode: u32| -> Result<_, rustix::io::Errno> {
        let made = match fs::mkdirat(parent.as_fd(), name, Mode::from_raw_mode(mode)) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(errno) => return Err(errno),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok((fs::openat(parent.as_fd(), name, flags, Mode::empty())?, made))
    };
    let (mounts, _) = make(&build, "mounts", 0o711).map_err(failed)?;
    let (directory, made) = make(&mounts, &name, CACHE_MODE).map_err(failed)?;
    if made {
        let mode = Mode::from_raw_mode(mount.mode.unwrap_or(CACHE_MODE));
        let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        fs::fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .and_then(|()| fs::fchmod(&directory, mode))
            .map_err(failed)?;
    }
    let path = store.data_root().join("build").join("mounts").join(name);
    Ok(Cache { path, directory })
}

/// A secret; `None` where nobody has it and nobody must.
fn secret(stage: &Stage<'_, '_>, mount: &Mount) -> Result<Option<(String, Vec<u8>)>, StageError> {
    let own = mount.target.as_deref().and_then(|target| target.rsplit('/').next());
    let id = mount.id.as_deref().or(mount.source.as_deref()).or(own).unwrap_or_default().to_owned();
    let content = match &stage.solver.request.secrets {
        None => None,
        Some(secrets) => secrets.secret(&id).map_err(|source| {
            StepError::Execute(crate::executor::ExecuteError::Mount { target: id.clone(), source })
        })?,
    };
    match content {
        Some(content) => Ok(Some((id, content))),
        None if mount.required => Err(StepError::NotGranted { kind: "secret", id }.into()),
        None => Ok(None),
    }
}

/// An SSH agent; `None` where nobody has it and nobody must.
fn agent(stage: &Stage<'_, '_>, mount: &Mount) -> Result<Option<RunMountSource>, StageError> {
    let id = mount.id.clone().unwrap_or_else(|| "default".to_owned());
    let failed =
        |source| StepError::Execute(crate::executor::ExecuteError::Mount { target: id.clone(), source });
    if let Some(agents) = &stage.solver.request.agents
        && agents.has(&id).map_err(failed)?
    {
        let mode = mount.mode.unwrap_or(AGENT_MODE);
        let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        return Ok(Some(RunMountSource::Agent { agents: Arc::clone(agents), id, mode, uid, gid }));
    }
    if mount.required {
        return Err(StepError::NotGranted { kind: "ssh", id }.into());
    }
    Ok(None)
}
