//! `COPY`, and what of `ADD` is the same: files of one tree become a layer over another.
//!
//! The layer depends on the files, and on what lies on the way to their destination: directories that are there keep what
//! they are, links among them are followed. It does not depend on anything else below, and so neither does its key.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};

use dory_dockerfile::{IgnorePatterns, Inline};
use dory_store::{
    Attributes, FileError, IdMap, LayerArchive, LayerLease, Node, Store, Tree, UnpackOptions, View,
    is_archive,
};
use dory_types::{Digest, with_causes};
use rustix::fs::FileType;

use super::digests::FileDigests;
use super::key::Key;
use super::permissions::Permissions;
use super::select::{Selected, clean, select};
use super::walk::{Filters, Visit, walk};
use crate::error::StepError;

/// Bytes that are written to the layer's pipe at once.
const BUFFER: usize = 256 << 10;
/// Permissions of directories that are made on the way.
const MADE_MODE: u32 = 0o755;
/// Permissions of files whose content stands in the Dockerfile.
const INLINE_MODE: u32 = 0o644;

/// A tree that files are copied from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) view: View,
    /// What its ignore file keeps out.
    pub(crate) ignore: Option<IgnorePatterns>,
    pub(crate) identity: Identity,
}

/// By what the content of a source is known.
#[derive(Debug)]
pub(crate) enum Identity {
    /// Layers: their digests say all.
    Layers(Digest),
    /// Files of somebody's directory, which are root's in an image; read to know them.
    Files(Box<Mutex<FileDigests>>),
}

/// What is copied, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct CopyPath {
    pub(crate) source: Arc<Source>,
    /// A path or pattern in the source.
    pub(crate) path: String,
    /// Archives among the files are unpacked where they would lie (`ADD`).
    pub(crate) unpack: bool,
}

/// A copy to be made, its variables expanded.
#[derive(Debug)]
pub(crate) struct CopyFiles<'a> {
    /// What the layer lies on.
    pub(crate) below: &'a View,
    pub(crate) paths: &'a [CopyPath],
    pub(crate) inlines: &'a [Inline],
    /// Absolute; with a slash at its end where it is certainly a directory.
    pub(crate) destination: &'a str,
    /// Directories of the paths are kept.
    pub(crate) parents: bool,
    pub(crate) exclude: Option<IgnorePatterns>,
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) permissions: Option<Permissions>,
    /// Seconds since 1970 that what is made gets.
    pub(crate) now: i64,
    /// Nothing is later than this.
    pub(crate) latest: Option<i64>,
}

/// Something to copy, and where to.
#[derive(Debug)]
struct Item {
    source: Arc<Source>,
    what: Selected,
    /// Components from the root.
    target: Vec<Vec<u8>>,
    /// Directories that keep what the source's have (`--parents`): how many of the target's last components.
    kept: usize,
    is_directory: bool,
    /// It is an archive, and what is in it is copied.
    is_archive: bool,
}

/// A copy whose files are found.
#[derive(Debug)]
pub(crate) struct PreparedCopy<'a> {
    copy: CopyFiles<'a>,
    items: Vec<Item>,
    inlines: Vec<Vec<Vec<u8>>>,
}

fn failed(path: &str) -> impl Fn(FileError) -> StepError {
    move |error| StepError::Copy { path: path.to_owned(), message: with_causes(&error) }
}

impl<'a> CopyFiles<'a> {
    /// Files as they are, into the root of a layer.
    pub(crate) fn plain(below: &'a View, paths: &'a [CopyPath], now: i64) -> Self {
        Self {
            below,
            paths,
            inlines: &[],
            destination: "/",
            parents: false,
            exclude: None,
            owner: None,
            permissions: None,
            now,
            latest: None,
        }
    }

    /// Finds the files.
    pub(crate) fn prepare(self) -> Result<PreparedCopy<'a>, StepError> {
        let error = failed(self.destination);
        let resolved = self.below.resolve(self.destination.as_bytes(), true).map_err(&error)?;
        let there = self.below.at(&resolved).map_err(&error)?;
        let mut selected = Vec::new();
        for wanted in self.paths {
            let source = &wanted.source;
            for one in select(&source.view, &wanted.path, source.ignore.as_ref())? {
                selected.push((wanted, one));
            }
        }
        let several = selected.len() + self.inlines.len() > 1;
        let into =
            self.destination.ends_with('/') || self.parents || there.as_ref().is_some_and(Node::is_directory);
        let exact = || -> Result<Vec<Vec<u8>>, StepError> {
            let components = clean(self.destination);
            let Some((last, above)) = components.split_last() else { return Ok(Vec::new()) };
            let mut target = self.below.resolve(above.join("/").as_bytes(), true).map_err(&error)?;
            target.push(last.as_bytes().to_vec());
            Ok(target)
        };
        if several && !into && self.paths.len() + self.inlines.len() > 1 {
            return Err(StepError::Invalid(
                "When using COPY with more than one source file, the destination must be a directory and end with a /"
                    .to_owned(),
            ));
        }
        let mut items = Vec::new();
        for (CopyPath { source, path: pattern, unpack }, what) in selected {
            let node = what.node(&source.view).map_err(failed(pattern))?;
            let is_directory = node.as_ref().is_some_and(Node::is_directory);
            let is_archive = *unpack && node.as_ref().map(holds_archive).transpose()?.unwrap_or_default();
            let kept = if self.parents { kept_parents(pattern, &what.written) } else { Vec::new() };
            let target = match (is_directory, into) {
                _ if self.parents => [resolved.clone(), kept.clone()].concat(),
                (true, _) => resolved.clone(),
                (false, _) if is_archive => resolved.clone(),
                (false, true) => {
                    let name = what.written.last().cloned().unwrap_or_default();
                    [resolved.clone(), vec![name]].concat()
                }
                (false, false) => exact()?,
            };
            if is_directory && !there.as_ref().is_none_or(Node::is_directory) && !self.parents {
                let message = format!("cannot copy to non-directory: {}", self.destination);
                return Err(StepError::Copy { path: pattern.clone(), message });
            }
            // A file is written through a link that is there, as dockerd does.
            let target = match is_directory || is_archive {
                true => target,
                false => self.below.resolve(&target.join(&b'/'), true).map_err(&error)?,
            };
            if !is_directory
                && !is_archive
                && self.below.at(&target).map_err(&error)?.is_some_and(|node| node.is_directory())
            {
                let message = format!(
                    "cannot overwrite the directory /{}",
                    String::from_utf8_lossy(&target.join(&b'/'))
                );
                return Err(StepError::Copy { path: pattern.clone(), message });
            }
            items.push(Item {
                source: Arc::clone(source),
                what,
                target,
                kept: kept.len(),
                is_directory,
                is_archive,
            });
        }
        let mut inlines = Vec::new();
        for inline in self.inlines {
            inlines.push(if into {
                [resolved.clone(), vec![inline.name.as_bytes().to_vec()]].concat()
            } else {
                exact()?
            });
        }
        Ok(PreparedCopy { copy: self, items, inlines })
    }
}

/// The path below the destination that `--parents` keeps: all of it, or what follows `/./`.
fn kept_parents(pattern: &str, written: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let dropped = match pattern.find("/./") {
        Some(pivot) => clean(&pattern[..pivot]).len(),
        None => 0,
    };
    written.get(dropped..).unwrap_or_default().to_vec()
}

impl PreparedCopy<'_> {
    /// The key: what is copied, how it is changed, and what lies on the way.
    pub(crate) fn key(&self) -> Result<Digest, StepError> {
        let copy = &self.copy;
        let mut key = Key::new("copy/2");
        key.text(&format!("{:?} {:?} {:?}", copy.owner, copy.permissions, copy.latest));
        let mut seen = HashSet::new();
        let targets = self.items.iter().map(|item| &item.target).chain(&self.inlines);
        for target in targets {
            // The root is never written: whatever it is counts for nothing.
            for end in 1..=target.len() {
                let above = &target[..end];
                if !seen.insert(above.to_vec()) {
                    continue;
                }
                if let Some(node) = copy.below.at(above).map_err(failed(copy.destination))?
                    && node.is_directory()
                {
                    let stat = node.stat();
                    key.part(&above.join(&b'/')).number(i64::from(stat.st_mode));
                    key.number(i64::from(stat.st_uid)).number(i64::from(stat.st_gid)).number(stat.st_mtime);
                }
            }
        }
        for (inline, target) in copy.inlines.iter().zip(&self.inlines) {
            key.part(&target.join(&b'/')).text(&inline.content);
        }
        for item in &self.items {
            key.part(&item.target.join(&b'/')).number(item.kept as i64).number(i64::from(item.is_archive));
            self.item_key(item, &mut key)?;
        }
        Ok(key.digest())
    }

    fn item_key(&self, item: &Item, key: &mut Key) -> Result<(), StepError> {
        let path = item.what.path();
        match &item.source.identity {
            Identity::Layers(layers) => {
                key.content(layers).text(&path).text(&format!("{:?}", self.copy.exclude));
                Ok(())
            }
            Identity::Files(digests) => {
                let mut digests = digests.lock().unwrap_or_else(PoisonError::into_inner);
                self.walk(item, |visit| add_file(key, &visit, &mut digests))
            }
        }
    }

    fn walk(
        &self,
        item: &Item,
        visit: impl FnMut(Visit<'_>) -> Result<(), FileError>,
    ) -> Result<(), StepError> {
        let source = &item.source;
        let path = item.what.path();
        let node = item.what.node(&source.view).map_err(failed(&path))?;
        let Some(node) = node else { return Ok(()) };
        let filters = Filters { ignore: source.ignore.as_ref(), exclude: self.copy.exclude.as_ref() };
        walk(&node, &path, filters, visit).map_err(failed(&path))
    }

    /// Makes the layer.
    pub(crate) fn layer(&self, store: &Arc<Store>) -> Result<LayerLease, StepError> {
        let layer = store.ingest_written(|sink| {
            let mut sink = BufWriter::with_capacity(BUFFER, sink);
            self.write(store, &mut sink).map_err(io::Error::other)?;
            sink.flush()
        })?;
        Ok(layer)
    }

    fn write(&self, store: &Arc<Store>, sink: &mut impl Write) -> Result<(), StepError> {
        let mut archive = LayerArchive::new(sink);
        let mut made = HashSet::new();
        for (inline, target) in self.copy.inlines.iter().zip(&self.inlines) {
            self.way(&mut archive, target, 0, &mut made)?;
            let mode =
                self.copy.permissions.as_ref().map_or(INLINE_MODE, |change| change.of(INLINE_MODE, false));
            let owner = self.copy.owner.unwrap_or_default();
            archive
                .file(&target.join(&b'/'), inline.content.as_bytes(), mode, owner, self.copy.now)
                .map_err(failed(&inline.name))?;
        }
        for item in &self.items {
            self.way(&mut archive, &item.target, item.kept, &mut made)?;
            if item.is_archive {
                self.directory(&mut archive, &item.target, &mut made)?;
                self.unpacked(store, item, &mut archive)?;
                continue;
            }
            if item.is_directory && item.kept == 0 {
                self.directory(&mut archive, &item.target, &mut made)?;
            }
            let target = item.target.join(&b'/');
            // As with BuildKit, names of one file are one file only where one path of the line leads to them.
            archive.forget_links();
            self.walk(item, |visit| {
                // The contents of a directory are copied, not the directory.
                if visit.path.is_empty() && item.is_directory && item.kept == 0 {
                    return Ok(());
                }
                let name = match (target.is_empty(), visit.path.is_empty()) {
                    (true, _) => visit.path.to_vec(),
                    (false, true) => target.clone(),
                    (false, false) => [target.as_slice(), visit.path].join(&b'/'),
                };
                archive.node(&name, visit.node, self.attributes(item, visit.node))
            })?;
        }
        archive.finish().map_err(failed(self.copy.destination))
    }

    /// Writes what is in an archive: it is unpacked beside, where nothing in it reaches anything else.
    fn unpacked<W: Write>(
        &self,
        store: &Arc<Store>,
        item: &Item,
        archive: &mut LayerArchive<'_, W>,
    ) -> Result<(), StepError> {
        let path = item.what.path();
        let error = failed(&path);
        let Some(node) = item.what.node(&item.source.view).map_err(&error)? else { return Ok(()) };
        let scratch = store.build_scratch()?;
        let clone = || {
            let copied = scratch.fd().try_clone_to_owned();
            copied.map_err(|error| StepError::Copy { path: path.clone(), message: error.to_string() })
        };
        let file = node.open().map_err(&error)?;
        Tree::new(clone()?, IdMap::default()).unpack("/", file, UnpackOptions::default()).map_err(&error)?;
        let view = View::of_directory(clone()?).map_err(&error)?;
        let Some(top) = view.root().map_err(&error)? else { return Ok(()) };
        let target = item.target.join(&b'/');
        walk(&top, "", Filters::default(), |visit| {
            let name = match (target.is_empty(), visit.path.is_empty()) {
                (_, true) => return Ok(()),
                (true, false) => visit.path.to_vec(),
                (false, false) => [target.as_slice(), visit.path].join(&b'/'),
            };
            // `--chown` is about the directory that it is unpacked into: what is in an archive has owners.
            let attributes = Attributes {
                owner: None,
                modified: self.copy.latest.map(|latest| visit.node.stat().st_mtime.min(latest)),
                mode: None,
            };
            archive.node(&name, visit.node, attributes)
        })
        .map_err(error)
    }

    fn attributes(&self, item: &Item, node: &Node) -> Attributes {
        let stat = node.stat();
        let foreign = matches!(item.source.identity, Identity::Files(_));
        let is_link = node.kind() == FileType::Symlink;
        Attributes {
            owner: self.copy.owner.or(foreign.then_some((0, 0))),
            mode: match &self.copy.permissions {
                Some(change) if !is_link => Some(change.of(stat.st_mode, node.is_directory())),
                _ => None,
            },
            modified: self.copy.latest.map(|latest| stat.st_mtime.min(latest)),
        }
    }

    /// Writes the directories above `target`: those that are there as they are, the last `kept` of them like the source's
    /// would be, the others new.
    fn way<W: Write>(
        &self,
        archive: &mut LayerArchive<'_, W>,
        target: &[Vec<u8>],
        _kept: usize,
        made: &mut HashSet<Vec<u8>>,
    ) -> Result<(), StepError> {
        for end in 1..target.len() {
            self.directory(archive, &target[..end], made)?;
        }
        Ok(())
    }

    fn directory<W: Write>(
        &self,
        archive: &mut LayerArchive<'_, W>,
        path: &[Vec<u8>],
        made: &mut HashSet<Vec<u8>>,
    ) -> Result<(), StepError> {
        let name = path.join(&b'/');
        if path.is_empty() || !made.insert(name.clone()) {
            return Ok(());
        }
        let error = failed(self.copy.destination);
        match self.copy.below.at(path).map_err(&error)?.filter(Node::is_directory) {
            Some(node) => archive.node(&name, &node, Attributes::default()).map_err(error),
            None => {
                let owner = self.copy.owner.unwrap_or_default();
                archive.directory(&name, MADE_MODE, owner, self.copy.now).map_err(error)
            }
        }
    }
}

/// Whether a file is an archive that `ADD` unpacks: tar, by itself or compressed.
fn holds_archive(node: &Node) -> Result<bool, StepError> {
    if node.kind() != FileType::RegularFile {
        return Ok(false);
    }
    Ok(is_archive(node.open().map_err(failed("an archive"))?))
}

/// Adds what counts of a file: everything but its times, and its owner, who is lost.
fn add_file(key: &mut Key, visit: &Visit<'_>, digests: &mut FileDigests) -> Result<(), FileError> {
    let stat = visit.node.stat();
    key.part(visit.path).number(i64::from(stat.st_mode));
    match visit.node.kind() {
        FileType::RegularFile => {
            let digest = digests.of(visit.node).map_err(FileError::Write)?;
            key.part(&digest);
        }
        FileType::Symlink => {
            key.part(&visit.node.link_target()?);
        }
        FileType::CharacterDevice | FileType::BlockDevice => {
            key.number(stat.st_rdev.cast_signed());
        }
        _ => {}
    }
    Ok(())
}

/// A layer with one new directory, and those above it.
pub(crate) fn directory_layer(
    store: &Arc<Store>,
    below: &View,
    directory: &str,
    owner: Option<(u32, u32)>,
    now: i64,
) -> Result<LayerLease, StepError> {
    let copy = CopyFiles { destination: directory, owner, ..CopyFiles::plain(below, &[], now) };
    let target = below.resolve(directory.as_bytes(), true).map_err(failed(directory))?;
    let prepared = PreparedCopy { copy, items: Vec::new(), inlines: Vec::new() };
    let layer = store.ingest_written(|mut sink| {
        let mut archive = LayerArchive::new(&mut sink);
        let mut made = HashSet::new();
        let write = |archive: &mut LayerArchive<'_, _>| {
            for end in 1..=target.len() {
                prepared.directory(archive, &target[..end], &mut made)?;
            }
            Ok::<_, StepError>(())
        };
        let mut write = write;
        write(&mut archive).map_err(io::Error::other)?;
        archive.finish().map_err(io::Error::other)
    })?;
    Ok(layer)
}
