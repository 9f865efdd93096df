//! `RUN --mount`: what is mounted, and what of it is in the key.

use std::sync::Arc;

use dory_dockerfile::{Mount, MountType, Run};
use dory_store::Scratch;
use dory_types::Digest;
use rustix::fs::{self, Mode};

use super::caches::Caches;
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
/// Permissions of secrets and of agents' sockets.
const SECRET_MODE: u32 = 0o400;
const AGENT_MODE: u32 = 0o600;

/// The mounts of one command, read.
pub(super) struct Mounts {
    /// Of what is mounted, where it counts.
    pub(super) key: Digest,
    all: Vec<(Mount, Option<Bound>)>,
}

/// What a bind shows: a layer's files.
pub(super) struct Bound {
    pub(super) layer: dory_store::LayerLease,
    /// The one file in it that is meant; empty for all.
    pub(super) subpath: String,
}

/// The mounts of one command, ready.
pub(super) struct PreparedMounts {
    pub(super) mounts: Vec<RunMount>,
    /// Variables with secrets.
    pub(super) env: Vec<String>,
    /// Held while the command runs.
    _caches: Caches,
    /// What it may write to, and nobody sees afterwards.
    _copies: Vec<Scratch>,
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
                MountType::Cache if mount.from.is_some() => Some(self.bind(&mount)?),
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
        let wanted = self.all.iter().filter(|(mount, _)| mount.kind == MountType::Cache);
        let wanted = wanted.map(|(mount, seed)| (mount, stage.mount_target(mount), seed.as_ref()));
        let caches = Caches::lock(stage, wanted)?;
        let (mut mounts, mut env, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        let mut agents = 0;
        for (mount, bound) in &self.all {
            let target = stage.mount_target(mount);
            let mut add = |target: String, source, read_only| {
                mounts.push(RunMount { target, source, read_only });
            };
            match mount.kind {
                MountType::Bind => {
                    if let Some(bound) = bound {
                        add(
                            target,
                            bound_directory(stage, bound, mount.read_only, &mut copies)?,
                            mount.read_only,
                        );
                    }
                }
                MountType::Tmpfs => add(target, RunMountSource::Memory { size: mount.size }, false),
                MountType::Cache => {
                    let Some(path) = caches.place(mount, &target, bound.as_ref()) else { continue };
                    let source = RunMountSource::Directory { path: path.clone(), subpath: String::new() };
                    add(target, source, mount.read_only);
                }
                MountType::Secret => {
                    let Some((id, content)) = secret(stage, mount)? else { continue };
                    if let Some(name) = &mount.env {
                        let name = if name.is_empty() { &id } else { name };
                        env.push(format!("{name}={}", String::from_utf8_lossy(&content)));
                        if mount.target.is_none() {
                            continue;
                        }
                    }
                    let mode = mount.mode.unwrap_or(SECRET_MODE);
                    let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
                    let source = RunMountSource::Secret { content, mode, uid, gid };
                    mounts.push(RunMount { target, source, read_only: true });
                }
                MountType::Ssh => {
                    let Some(source) = agent(stage, mount)? else { continue };
                    let target = match target.as_str() {
                        "" => format!("{AGENTS}/ssh_agent.{agents}"),
                        _ => target,
                    };
                    if agents == 0 {
                        env.push(format!("SSH_AUTH_SOCK={target}"));
                    }
                    agents += 1;
                    mounts.push(RunMount { target, source, read_only: false });
                }
            }
        }
        Ok(PreparedMounts { mounts, env, _caches: caches, _copies: copies })
    }
}

pub(super) fn cannot_mount(target: &str, source: std::io::Error) -> StageError {
    StepError::Execute(crate::executor::ExecuteError::Mount { target: target.to_owned(), source }).into()
}

/// What a bind shows: the layer itself, or a copy of it that may be written to and goes with the command.
fn bound_directory(
    stage: &Stage<'_, '_>,
    bound: &Bound,
    read_only: bool,
    copies: &mut Vec<Scratch>,
) -> Result<RunMountSource, StageError> {
    let store = &stage.solver.builder.store;
    let subpath = bound.subpath.clone();
    if read_only {
        let Some(path) = store.layer_directories(std::slice::from_ref(&bound.layer)).pop() else {
            return Err(StepError::Invalid("a mount has no files".to_owned()).into());
        };
        return Ok(RunMountSource::Directory { path, subpath });
    }
    let failed = |error| cannot_mount(&bound.subpath, error);
    let copy = store.build_scratch()?;
    fs::fchmod(copy.fd(), Mode::from_raw_mode(0o755)).map_err(|errno| failed(errno.into()))?;
    let root = copy.fd().try_clone_to_owned().map_err(failed)?;
    crate::output::files::unpack(store, std::slice::from_ref(&bound.layer), root)
        .map_err(|message| failed(std::io::Error::other(message)))?;
    let path = copy.path();
    copies.push(copy);
    Ok(RunMountSource::Directory { path, subpath })
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
