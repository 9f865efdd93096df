//! `ADD`: files of the context, of addresses and of repositories, each a tree that is copied from.
//!
//! What comes from elsewhere is a layer of its own in the cache, by what it is (a file's digest, a commit), so that it is
//! brought once. A server is asked each time whether it still has the same, unless the line says what it must be.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use dory_dockerfile::{Add, Sources};
use dory_store::{LayerLease, Scratch, View};
use dory_types::{Digest, with_causes};
use rustix::fs::{self, Mode, OFlags};

use super::history;
use super::run::How;
use super::stage::{Made, Stage, StageError};
use crate::error::StepError;
use crate::git::{Checkout, GitAddress, GitError, ObjectId};
use crate::operations::copy::{CopyFiles, CopyPath, Identity, Source};
use crate::operations::digests::FileDigests;
use crate::operations::key::Key;
use crate::remote::{Fetched, FileAddress, Validators, authorization, is_address};

/// Where what servers said of files is remembered, below the store's directory for builds.
const ADDRESSES: &str = "addresses";
/// No such record is longer, in bytes.
const RECORD_MAX: u64 = 64 << 10;

impl Stage<'_, '_> {
    /// `ADD`.
    pub(super) fn add(&mut self, add: &Add, text: &str) -> Result<(), StageError> {
        let sources = self.expanded(&add.sources)?;
        let vertex = self.vertex(text, Vec::new());
        let described = history::add(add, &sources);
        let made = self.add_files(add, &sources, vertex, &described);
        self.finish(vertex, made, described)
    }

    fn add_files(
        &self,
        add: &Add,
        sources: &Sources,
        vertex: Digest,
        described: &str,
    ) -> Result<Made, StageError> {
        let checksum = add.checksum.as_deref().map(|checksum| self.expand(checksum)).transpose()?;
        let checksum = checksum.filter(|checksum| !checksum.is_empty());
        if checksum.is_some() {
            let refused = match sources.paths.as_slice() {
                [path] if is_address(path) => None,
                [_] => Some("checksum requires HTTP(S) or Git sources"),
                _ => Some("checksum can't be specified for multiple sources"),
            };
            if let Some(message) = refused {
                return Err(StepError::Invalid(message.to_owned()).into());
            }
        }
        let mut paths = Vec::new();
        for path in &sources.paths {
            let checksum = checksum.as_deref();
            paths.push(match GitAddress::parse(path) {
                Some(address) => {
                    let source = self.repository(path, address, add, checksum, vertex)?;
                    CopyPath { source, path: "/".to_owned(), unpack: false }
                }
                None if is_address(path) => {
                    let source = self.file(path, checksum, vertex)?;
                    // There is one file; its name may have anything in it.
                    CopyPath { source, path: "*".to_owned(), unpack: add.unpack.unwrap_or(false) }
                }
                None => {
                    let unpack = add.unpack.unwrap_or(true);
                    self.copy_path(None, path, unpack)?
                }
            });
        }
        self.copy_files(sources, &paths, How { parents: false }, described)
    }

    /// A file from a web server, as a tree with that file alone.
    fn file(&self, address: &str, checksum: Option<&str>, vertex: Digest) -> Result<Arc<Source>, StageError> {
        let failed = |message: String| StepError::Fetch { address: address.to_owned(), message };
        let checksum: Option<Digest> = match checksum.map(str::parse).transpose() {
            Ok(checksum) => checksum,
            Err(_) => return Err(failed("the checksum is no digest: write sha256:HEX".to_owned()).into()),
        };
        let remembered = self.addresses()?;
        let record = Digest::of(address.as_bytes()).hex();
        let known = read_record(&remembered, &record).filter(|known| self.has_file(address, known));
        let mut brought = None;
        let validators = match known {
            // Whoever has it, it is what it must be.
            Some(known) if checksum.is_some() && known.digest == checksum => known,
            known => match self.fetch(address, known.as_ref(), vertex)? {
                (Fetched::Unchanged, _) => known.unwrap_or_default(),
                (Fetched::File(validators), scratch) => {
                    brought = Some(scratch);
                    validators
                }
            },
        };
        if let (Some(expected), Some(found)) = (checksum, validators.digest)
            && expected != found
        {
            return Err(failed(format!("digest mismatch {found}: {expected}")).into());
        }
        if let Err(error) = write_record(&remembered, &record, &validators) {
            // The next build downloads it again, and that is all.
            tracing::warn!(%error, "Cannot remember what a server said of a file");
        }
        let made = self.solve_key(file_key(address, &validators), address, "regular", || {
            let scratch = match brought {
                Some(scratch) => scratch,
                None => match self.fetch(address, None, vertex)? {
                    (Fetched::File(again), scratch) if again.digest == validators.digest => scratch,
                    _ => return Err(failed("it changes from one moment to the next".to_owned()).into()),
                },
            };
            self.layer_of(&scratch).map(Some)
        })?;
        self.made_source(made)
    }

    /// Whether the cache has what a record is about.
    fn has_file(&self, address: &str, known: &Validators) -> bool {
        let store = &self.solver.builder.store;
        self.uses_cache() && store.build_record(&file_key(address, known)).is_some()
    }

    fn fetch(
        &self,
        address: &str,
        known: Option<&Validators>,
        vertex: Digest,
    ) -> Result<(Fetched, Scratch), StageError> {
        let solver = self.solver;
        let scratch = solver.builder.store.build_scratch()?;
        let place = FileAddress { address };
        let progress = |current, total| solver.teller.status(vertex, "downloading", current, total, false);
        let web = solver.builder.web.as_ref();
        let fetched = place.fetch(web, known, scratch.fd(), &place.name(), &progress, solver.cancel);
        solver.check_cancelled()?;
        let fetched = fetched.map_err(|message| StepError::Fetch { address: address.to_owned(), message })?;
        Ok((fetched, scratch))
    }

    /// Files of a repository.
    fn repository(
        &self,
        text: &str,
        address: Result<GitAddress, GitError>,
        add: &Add,
        checksum: Option<&str>,
        vertex: Digest,
    ) -> Result<Arc<Source>, StageError> {
        let failed = |error: GitError| match error {
            GitError::Cancelled => StepError::Cancelled,
            error => StepError::Fetch { address: text.to_owned(), message: with_causes(&error) },
        };
        if add.keep_git_dir == Some(true) {
            let message = "ADD --keep-git-dir is not supported: no repository is made of what is fetched";
            return Err(StepError::Unsupported(message.to_owned()).into());
        }
        let solver = self.solver;
        let address = address.map_err(failed)?;
        let checkout = Checkout {
            store: &solver.builder.store,
            web: &solver.builder.web,
            authorization: &|host| authorization(solver.request.secrets.as_ref(), host),
            progress: &|length| solver.teller.status(vertex, "receiving objects", length, 0, false),
            cancel: solver.cancel,
        };
        let server = checkout.server(&address).map_err(failed)?;
        let commit = server.resolve(&address.reference).map_err(failed)?;
        check_commit(&commit, checksum).map_err(failed)?;
        let mut key = Key::new("git/1");
        key.text(&address.repository).text(&commit.to_string()).text(&address.directory);
        let made = self.solve_key(key.digest(), text, "source.git.checkout", || {
            let scratch = solver.builder.store.build_scratch()?;
            checkout.write(&server, &address, &commit, scratch.fd()).map_err(failed)?;
            self.layer_of(&scratch).map(Some)
        })?;
        self.made_source(made)
    }

    /// All files of a directory, as root's.
    fn layer_of(&self, scratch: &Scratch) -> Result<LayerLease, StageError> {
        let failed = |message: String| StepError::Copy { path: "/".to_owned(), message };
        let root = scratch.fd().try_clone_to_owned().map_err(|error| failed(error.to_string()))?;
        let view = View::of_directory(root).map_err(|error| failed(with_causes(&error)))?;
        let identity = Identity::Files(Box::new(Mutex::new(FileDigests::default())));
        let source = Arc::new(Source { view, ignore: None, identity });
        let below = self.nothing()?;
        let paths = [CopyPath { source, path: "/".to_owned(), unpack: false }];
        let copy = CopyFiles::plain(&below, &paths, self.now());
        Ok(copy.prepare()?.layer(&self.solver.builder.store)?)
    }

    fn made_source(&self, made: Made) -> Result<Arc<Source>, StageError> {
        let layers: Vec<LayerLease> = made.layer.into_iter().collect();
        Ok(Arc::new(super::sources::layered(self.solver.builder, &layers)?))
    }

    fn addresses(&self) -> Result<OwnedFd, StepError> {
        let failed = |errno: rustix::io::Errno| StepError::Copy {
            path: format!("build/{ADDRESSES}"),
            message: errno.to_string(),
        };
        let build = self.solver.builder.store.build_directory()?;
        dory_store::make_and_open(&build, ADDRESSES, 0o700).map_err(failed)
    }
}

/// Key of a file: what it is, what it is called, and when it was changed, which the image shows.
fn file_key(address: &str, validators: &Validators) -> Digest {
    let mut key = Key::new("file/1");
    key.text(&FileAddress { address }.name()).number(validators.modified());
    if let Some(digest) = &validators.digest {
        key.content(digest);
    }
    key.digest()
}

/// A commit may be named by the beginning of its id.
fn check_commit(commit: &ObjectId, expected: Option<&str>) -> Result<(), GitError> {
    let found = commit.to_string();
    match expected {
        Some(expected) if expected.len() < 7 || !found.starts_with(&expected.to_ascii_lowercase()) => {
            Err(GitError::Checksum { expected: expected.to_owned(), found })
        }
        _ => Ok(()),
    }
}

/// What is remembered of an address; nothing where that is damaged.
fn read_record(directory: &OwnedFd, name: &str) -> Option<Validators> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(fs::openat(directory, name, flags, Mode::empty()).ok()?);
    let mut bytes = Vec::new();
    file.take(RECORD_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn write_record(directory: &OwnedFd, name: &str, validators: &Validators) -> std::io::Result<()> {
    let directory: BorrowedFd<'_> = directory.as_fd();
    let temporary = format!("{}{name}.{}", dory_store::TEMPORARY_PREFIX, std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let mut file = File::from(fs::openat(directory, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(&serde_json::to_vec(validators)?)?;
    fs::renameat(directory, &temporary, directory, name)?;
    Ok(())
}
