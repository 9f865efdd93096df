//! Where received contexts are kept between builds.
//!
//! ```text
//! <folder>/<key>.<n>/     the tree as the client last told it; n counts builds of the same at the same time
//! ```
//!
//! A directory is written by one build at a time. It may be removed at any time while no build has it: it costs the next build
//! the transfer. A torn one is repaired by the next transfer ([`super::receive()`]).

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, OFlags};
use sha2::{Digest, Sha256};

/// How long a received context is kept that no build has: as long as BuildKit keeps sources by default.
const KEPT: Duration = Duration::from_secs(48 * 60 * 60);

/// The folder of contexts; clones share it.
#[derive(Debug, Clone)]
pub struct ContextDirectories(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    taken: Mutex<HashSet<String>>,
    /// What nobody needs is looked for once, at the first build.
    tidied: Once,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A context's directory, ours alone while this exists.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    name: String,
    keep: bool,
}

impl ContextDirectories {
    /// Those in `folder`, which is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self(Arc::new(Shared { folder, taken: Mutex::default(), tidied: Once::new() }))
    }

    /// A directory for what the client calls `identity`: the one that an earlier build left, where no other build has it. Where
    /// the client does not say (an empty identity) it is a new one, which goes with the lease.
    ///
    /// # Errors
    /// The folder or the directory cannot be made or opened.
    pub fn take(&self, identity: &str) -> io::Result<(Lease, OwnedFd)> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0.folder)?;
        let key = Sha256::digest(identity.as_bytes());
        let key: String = key.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let key = if identity.is_empty() { "unnamed".to_owned() } else { key };
        let lease = self.reserve(&key, !identity.is_empty());
        let path = lease.path();
        if !lease.keep {
            remove(&path)?;
        }
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &path, flags, Mode::empty())?;
        // The time of the last use, for `prune`; told apart from that of the tree's root, which is no file of the context.
        rustix::fs::futimens(&root, &NOW)?;
        self.0.tidied.call_once(|| {
            let directories = self.clone();
            // Nothing waits for it, and it is told of where it fails.
            std::thread::spawn(move || directories.forget(KEPT));
        });
        Ok((lease, root))
    }

    fn reserve(&self, key: &str, keep: bool) -> Lease {
        let mut taken = self.0.lock();
        let mut number = 0;
        loop {
            let name = format!("{key}.{number}");
            if taken.insert(name.clone()) {
                return Lease { shared: self.0.clone(), name, keep };
            }
            number += 1;
        }
    }

    /// Removes what no build has and none has had for `unused`; what cannot be removed is left for the next time, and told of.
    pub fn forget(&self, unused: Duration) {
        if let Err(error) = self.prune(unused) {
            let folder = self.0.folder.display();
            tracing::warn!(folder = %folder, error = %error, "Cannot look for build contexts that nobody needs");
        }
    }

    /// Removes what no build has and none has had for `unused`.
    ///
    /// # Errors
    /// The folder cannot be read. What cannot be removed is left for the next time.
    fn prune(&self, unused: Duration) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.0.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let now = SystemTime::now();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let used = entry.metadata()?.modified()?;
            if now.duration_since(used).unwrap_or_default() < unused {
                continue;
            }
            // Taken, so that no build takes it meanwhile.
            if self.0.lock().insert(name.clone()) {
                let lease = Lease { shared: self.0.clone(), name, keep: false };
                drop(lease);
            }
        }
        Ok(())
    }
}

const NOW: rustix::fs::Timestamps = {
    const TIME: rustix::fs::Timespec = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    rustix::fs::Timestamps { last_access: TIME, last_modification: TIME }
};

impl Lease {
    /// The directory.
    pub fn path(&self) -> PathBuf {
        self.shared.folder.join(&self.name)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = remove(&self.path())
        {
            tracing::warn!(path = %self.path().display(), error = %error, "Cannot remove a build context");
        }
        self.shared.lock().remove(&self.name);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_builds_at_a_time_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let directories = ContextDirectories::new(folder.path().join("contexts"));
        let (first, _) = directories.take("project").unwrap();
        let (second, _) = directories.take("project").unwrap();
        let (other, _) = directories.take("other").unwrap();
        let path = first.path();
        assert!(path != second.path() && path != other.path() && second.path() != other.path());
        std::fs::write(path.join("file"), "x").unwrap();
        drop(first);
        let (again, _) = directories.take("project").unwrap();
        assert!(again.path() == path && path.join("file").exists());
        drop((again, second));
        directories.prune(Duration::from_secs(3600)).unwrap();
        assert!(path.exists());
        directories.prune(Duration::ZERO).unwrap();
        assert!(!path.exists() && other.path().exists());
    }

    #[test]
    fn what_has_no_name_goes_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let directories = ContextDirectories::new(folder.path().to_owned());
        let (lease, _) = directories.take("").unwrap();
        let path = lease.path();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(lease);
        assert!(!path.exists());
    }
}
