//! Files of a commit, in a directory that nobody else knows.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use dory_store::Store;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::object::{Entry, Kind, entries, header};
use super::pack::Pack;
use super::{GitAddress, GitError, GitServer, ObjectId};
use crate::cancel::Cancel;
use crate::web::Web;

/// Directories within one another.
const DEPTH_MAX: usize = 256;
/// Submodules within one another.
const SUBMODULES_MAX: usize = 8;

/// Brings files of repositories.
pub(crate) struct Checkout<'a> {
    pub(crate) store: &'a Arc<Store>,
    pub(crate) web: &'a Arc<dyn Web>,
    /// The header that a host wants to see, where there is one: `authorization` by the host's name.
    pub(crate) authorization: &'a dyn Fn(&str) -> Option<String>,
    /// Is told how much came, in bytes.
    pub(crate) progress: &'a dyn Fn(u64),
    pub(crate) cancel: &'a Cancel,
}

/// A repository within another one.
struct Submodule {
    /// From the root of the outer one.
    path: String,
    commit: ObjectId,
}

/// A tree being written.
struct Writing<'p> {
    pack: &'p Pack,
    submodules: Vec<Submodule>,
}

fn failed(path: &str) -> impl Fn(Errno) -> GitError {
    move |errno| GitError::Write { path: path.to_owned(), source: errno.into() }
}

impl<'a> Checkout<'a> {
    /// The server of a repository.
    pub(crate) fn server(&self, address: &GitAddress) -> Result<GitServer<'a>, GitError> {
        let host = address.repository.split("://").nth(1).unwrap_or_default();
        let host = host.split('/').next().unwrap_or_default();
        GitServer::connect(self.web, &address.repository, (self.authorization)(host), self.cancel)
    }

    /// Writes the files of `commit` into `directory`, which is empty.
    pub(crate) fn write(
        &self,
        server: &GitServer<'_>,
        address: &GitAddress,
        commit: &ObjectId,
        directory: BorrowedFd<'_>,
    ) -> Result<(), GitError> {
        self.write_nested(server, address, commit, directory, 0)
    }

    fn write_nested(
        &self,
        server: &GitServer<'_>,
        address: &GitAddress,
        commit: &ObjectId,
        directory: BorrowedFd<'_>,
        depth: usize,
    ) -> Result<(), GitError> {
        let scratch = self.store.build_scratch().map_err(|error| GitError::Write {
            path: "pack".to_owned(),
            source: std::io::Error::other(error),
        })?;
        let mut file = temporary(scratch.fd(), "pack")?;
        server.fetch(commit, &mut file, self.progress)?;
        let pack = Pack::read(file, temporary(scratch.fd(), "objects")?)?;
        let root = tree_of(&pack, commit)?;
        let tree = subtree(&pack, root, &address.directory)?;
        let mut writing = Writing { pack: &pack, submodules: Vec::new() };
        let prefix: Vec<&str> = components(&address.directory).collect();
        writing.tree(&tree, directory, &prefix.join("/"), 0)?;
        if writing.submodules.is_empty() {
            return Ok(());
        }
        if depth >= SUBMODULES_MAX {
            return Err(GitError::TooDeep(SUBMODULES_MAX));
        }
        let urls = submodule_urls(&pack, &root)?;
        for submodule in &writing.submodules {
            let url = urls.iter().find_map(|(path, url)| (*path == submodule.path).then_some(url));
            let url = url.ok_or_else(|| GitError::Submodule(submodule.path.clone()))?;
            let nested = address.submodule(url)?;
            let below = submodule.path.get(prefix.join("/").len()..).unwrap_or_default();
            let place = open_below(directory, below)?;
            let server = self.server(&nested)?;
            self.write_nested(&server, &nested, &submodule.commit, place.as_fd(), depth + 1)?;
        }
        Ok(())
    }
}

/// A file without a name.
fn temporary(directory: BorrowedFd<'_>, name: &str) -> Result<File, GitError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed(name))?;
    fs::unlinkat(directory, name, AtFlags::empty()).map_err(failed(name))?;
    Ok(file.into())
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".")
}

/// The tree of a commit, or of what a tag is of.
fn tree_of(pack: &Pack, commit: &ObjectId) -> Result<ObjectId, GitError> {
    let (kind, object) = pack.object(commit)?;
    let malformed = |reason| GitError::Object { id: *commit, reason };
    let id = |name| header(&object, name).and_then(|id| id.parse().ok());
    match kind {
        Kind::Commit => id("tree").ok_or(malformed("it has no tree")),
        Kind::Tag => {
            let target: ObjectId = id("object").ok_or(malformed("it is of no object"))?;
            let commit = pack.of_kind(&target, Kind::Commit)?;
            header(&commit, "tree").and_then(|id| id.parse().ok()).ok_or(malformed("it has no tree"))
        }
        _ => Err(malformed("it is no commit")),
    }
}

fn subtree(pack: &Pack, root: ObjectId, directory: &str) -> Result<ObjectId, GitError> {
    let missing = || GitError::Directory(directory.to_owned());
    let mut tree = root;
    for name in components(directory) {
        let content = pack.of_kind(&tree, Kind::Tree)?;
        let entries = entries(&content).map_err(|reason| GitError::Object { id: tree, reason })?;
        let entry = entries.iter().find(|entry| entry.name == name.as_bytes()).ok_or_else(missing)?;
        if entry.mode != 0o40000 {
            return Err(missing());
        }
        tree = entry.id;
    }
    Ok(tree)
}

impl Writing<'_> {
    fn tree(
        &mut self,
        id: &ObjectId,
        directory: BorrowedFd<'_>,
        path: &str,
        depth: usize,
    ) -> Result<(), GitError> {
        if depth >= DEPTH_MAX {
            return Err(GitError::Object { id: *id, reason: "its directories are too deep" });
        }
        let content = self.pack.of_kind(id, Kind::Tree)?;
        for entry in entries(&content).map_err(|reason| GitError::Object { id: *id, reason })? {
            let name = String::from_utf8_lossy(entry.name);
            let path = if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") };
            self.entry(&entry, directory, &path, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: &Entry<'_>,
        directory: BorrowedFd<'_>,
        path: &str,
        depth: usize,
    ) -> Result<(), GitError> {
        let error = failed(path);
        match entry.mode {
            0o40000 => {
                let made = make(directory, entry.name).map_err(&error)?;
                self.tree(&entry.id, made.as_fd(), path, depth + 1)
            }
            0o120_000 => {
                let target = self.pack.of_kind(&entry.id, Kind::Blob)?;
                fs::symlinkat(target.as_slice(), directory, entry.name).map_err(error)
            }
            0o160_000 => {
                make(directory, entry.name).map_err(&error)?;
                self.submodules.push(Submodule { path: path.to_owned(), commit: entry.id });
                Ok(())
            }
            mode if mode & 0o170_000 == 0o100_000 => {
                // Git knows one bit of all permissions.
                let mode = Mode::from_raw_mode(if mode & 0o100 != 0 { 0o755 } else { 0o644 });
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(fs::openat(directory, entry.name, flags, mode).map_err(&error)?);
                self.pack.copy(&entry.id, &mut file)?;
                fs::fchmod(&file, mode).map_err(error)
            }
            _ => Err(GitError::Object { id: entry.id, reason: "a tree has an entry of no known kind" }),
        }
    }
}

fn make(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_raw_mode(0o755);
    fs::mkdirat(directory, name, mode)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = fs::openat(directory, name, flags, Mode::empty())?;
    fs::fchmod(&made, mode)?;
    Ok(made)
}

/// A directory that was made before; nothing on the way is a link.
fn open_below(directory: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, GitError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let error = failed(path);
    let mut here = fs::openat(directory, ".", flags, Mode::empty()).map_err(&error)?;
    for name in components(path) {
        here = fs::openat(&here, name, flags, Mode::empty()).map_err(&error)?;
    }
    Ok(here)
}

/// Paths and addresses of `.gitmodules`.
fn submodule_urls(pack: &Pack, root: &ObjectId) -> Result<Vec<(String, String)>, GitError> {
    let content = pack.of_kind(root, Kind::Tree)?;
    let entries = entries(&content).map_err(|reason| GitError::Object { id: *root, reason })?;
    let Some(entry) = entries.iter().find(|entry| entry.name == b".gitmodules") else {
        return Ok(Vec::new());
    };
    let text = pack.of_kind(&entry.id, Kind::Blob)?;
    Ok(modules(&String::from_utf8_lossy(&text)))
}

/// Reads `.gitmodules` (gitmodules(5)): sections with `path` and `url`.
fn modules(text: &str) -> Vec<(String, String)> {
    let mut modules: Vec<(String, String)> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            modules.push(Default::default());
        } else if let (Some((name, value)), Some(module)) = (line.split_once('='), modules.last_mut()) {
            let value = value.trim().trim_matches('"').to_owned();
            match name.trim() {
                "path" => module.0 = value,
                "url" => module.1 = value,
                _ => {}
            }
        }
    }
    modules.retain(|(path, url)| !path.is_empty() && !url.is_empty());
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_modules() {
        let text = "[submodule \"a\"]\n\tpath = libs/a\n\turl = ../a.git\n# note\n[submodule \"b\"]\n\turl = \"https://h/b\"\n\tpath = b\n[submodule \"c\"]\n\tpath = c\n";
        let expected = [("libs/a", "../a.git"), ("b", "https://h/b")];
        assert_eq!(modules(text), expected.map(|(path, url)| (path.to_owned(), url.to_owned())));
    }
}
