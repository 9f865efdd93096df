//! Directories of `RUN --mount=type=cache`, which live on between builds.
//!
//! A directory has the name of what it is called by; what begins with files is called by those too. Another command may
//! have it at the same time: with `sharing=locked` neither has it before the other ends, with `private` the second gets one
//! of its own, whose name has a number.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use dory_dockerfile::{CacheSharing, Mount};
use dory_store::make_and_open;
use dory_types::Digest;
use rustix::fs::FlockOperation::{NonBlockingLockExclusive, NonBlockingLockShared};
use rustix::fs::{self, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::mounts::{Bound, cannot_mount};
use super::stage::{Stage, StageError};
use crate::error::StepError;

/// Permissions of a directory that nobody says others of.
const MODE: u32 = 0o755;
/// Between two looks at a directory that somebody has.
const PAUSE: Duration = Duration::from_millis(20);
/// Directories of one name for commands that want their own: more do not run at the same time.
const PRIVATE_MAX: usize = 1024;

/// The directories that a command has, while it runs.
#[derive(Debug, Default)]
pub(super) struct Caches {
    /// By the names that the mounts have for them.
    places: BTreeMap<String, PathBuf>,
    /// The locks are of the open directories, so they end with this process at the latest, and hold against other processes
    /// on the same store.
    _locks: Vec<OwnedFd>,
}

/// What a command wants of one directory.
struct Wish<'m> {
    mount: &'m Mount,
    target: String,
    /// What a new one begins with.
    seed: Option<&'m Bound>,
    sharing: CacheSharing,
}

/// What the directory of a mount is called.
fn name(mount: &Mount, target: &str, seed: Option<&Bound>) -> String {
    let mut id = mount.id.as_deref().unwrap_or(target).to_owned();
    if let Some(seed) = seed {
        id = format!("{id}\0{}\0{}", seed.layer.diff_id(), seed.subpath);
    }
    Digest::of(id.as_bytes()).hex()
}

impl Caches {
    /// Waits for all that `mounts` want, in the order of the names, so that no two commands wait for each other.
    pub(super) fn lock<'m>(
        stage: &Stage<'_, '_>,
        mounts: impl Iterator<Item = (&'m Mount, String, Option<&'m Bound>)>,
    ) -> Result<Self, StageError> {
        let mut wishes: BTreeMap<String, Wish<'_>> = BTreeMap::new();
        for (mount, target, seed) in mounts {
            let name = name(mount, &target, seed);
            let sharing = mount.sharing;
            let wish = wishes.entry(name).or_insert(Wish { mount, target, seed, sharing });
            // Of two ways of sharing the one that keeps others away.
            if sharing != CacheSharing::Shared && wish.sharing != CacheSharing::Locked {
                wish.sharing = sharing;
            }
        }
        let mut caches = Self::default();
        if wishes.is_empty() {
            return Ok(caches);
        }
        let store = &stage.solver.builder.store;
        let build = store.build_directory()?;
        let directory =
            make_and_open(&build, "mounts", 0o711).map_err(|errno| cannot_mount("mounts", errno.into()))?;
        for (name, wish) in wishes {
            let (taken, lock) = wish.take(stage, &directory, &name)?;
            caches.places.insert(name, store.data_root().join("build").join("mounts").join(taken));
            caches._locks.push(lock);
        }
        Ok(caches)
    }

    /// Where the directory of a mount is.
    pub(super) fn place(&self, mount: &Mount, target: &str, seed: Option<&Bound>) -> Option<&PathBuf> {
        self.places.get(&name(mount, target, seed))
    }
}

impl Wish<'_> {
    /// The directory's name and its lock.
    fn take(
        &self,
        stage: &Stage<'_, '_>,
        directory: &OwnedFd,
        name: &str,
    ) -> Result<(String, OwnedFd), StageError> {
        let failed = |errno: Errno| cannot_mount(&self.target, errno.into());
        if self.sharing == CacheSharing::Private {
            for number in 0..PRIVATE_MAX {
                let own = if number == 0 { name.to_owned() } else { format!("{name}.{number}") };
                let cache = self.open(stage, directory, &own)?;
                match fs::flock(&cache, NonBlockingLockExclusive) {
                    Ok(()) => return Ok((own, cache)),
                    Err(Errno::WOULDBLOCK) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
        }
        let operation = match self.sharing {
            CacheSharing::Shared => NonBlockingLockShared,
            _ => NonBlockingLockExclusive,
        };
        let cache = self.open(stage, directory, name)?;
        loop {
            match fs::flock(&cache, operation) {
                Ok(()) => return Ok((name.to_owned(), cache)),
                Err(Errno::WOULDBLOCK) if stage.solver.cancel.is_cancelled() => {
                    return Err(StepError::Cancelled.into());
                }
                // A blocking wait could not be cancelled.
                Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    /// The directory, made where there is none. It gets its name when it is complete.
    fn open(&self, stage: &Stage<'_, '_>, directory: &OwnedFd, name: &str) -> Result<OwnedFd, StageError> {
        const NEW: &str = "cache";
        let failed = |errno: Errno| cannot_mount(&self.target, errno.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(failed),
        }
        let store = &stage.solver.builder.store;
        let scratch = store.build_scratch()?;
        let made = make_and_open(scratch.fd(), NEW, MODE).map_err(failed)?;
        if let Some(seed) = self.seed {
            let root = made.try_clone().map_err(|error| cannot_mount(&self.target, error))?;
            let layers = std::slice::from_ref(&seed.layer);
            let filled = crate::output::files::unpack(store, layers, root);
            filled.map_err(|message| cannot_mount(&self.target, std::io::Error::other(message)))?;
        }
        let Mount { mode, uid, gid, .. } = self.mount;
        let is_plain = self.seed.is_none();
        let owner = (uid.or(is_plain.then_some(0)), gid.or(is_plain.then_some(0)));
        fs::fchown(&made, owner.0.map(Uid::from_raw), owner.1.map(Gid::from_raw)).map_err(failed)?;
        if let Some(mode) = mode.or(is_plain.then_some(MODE)) {
            fs::fchmod(&made, Mode::from_raw_mode(mode)).map_err(failed)?;
        }
        match fs::renameat_with(scratch.fd(), NEW, directory, name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(made),
            // Somebody else was faster.
            Err(Errno::EXIST) => fs::openat(directory, name, flags, Mode::empty()).map_err(failed),
            Err(errno) => Err(failed(errno)),
        }
    }
}
