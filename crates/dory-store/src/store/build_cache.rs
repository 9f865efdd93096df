//! What builds have made, by the content that it was made from.
//!
//! ```text
//! build/cache.log      one line per record: checksum, a blank, JSON; written by one write(2) each, at the end
//! build/mounts/<id>/   cache mounts: directories that live on between builds
//! build/files/<id>     what is known of the files of a context
//! ```
//!
//! A record says which layer came of a key; while it is there the layer stays. Records are written without waiting for the
//! disk: a layer is certainly on it only after a sync, which a line of its own notes. After a power cut the records of the
//! earlier boot that no such line follows are not believed. A torn line at the end is nobody's. When most lines are
//! obsolete, the file is written anew and takes the old one's name.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dory_types::{Digest, Timestamp};
use rustix::fs::{self, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{LayerLease, Store};
use crate::directory;
use crate::error::StoreError;
use crate::record::temporary_name;

const DIRECTORY: &str = "build";
const LOG: &str = "cache.log";
/// Lines more than twice the records, and this many, are worth a new file.
const SLACK: usize = 256;

/// What a build step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// The layer; `None` where the step changed nothing.
    pub layer: Option<Digest>,
    /// What people see of it: the instruction.
    pub description: String,
    /// BuildKit's kind: `regular`, `source.local`, `exec.cachemount`, ….
    pub kind: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was used last.
    pub used: Timestamp,
    /// How often it was used since.
    pub uses: u64,
}

/// A line of the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    /// A key has a record.
    Put { key: Digest, boot: String, record: BuildRecord },
    /// A record was used.
    Used { key: Digest, at: Timestamp },
    /// A key has none any more.
    Gone { key: Digest },
    /// The disk has all layers of the lines before.
    Synced,
}

/// The records in memory, and the file.
#[derive(Debug, Default)]
pub(crate) struct BuildCache {
    records: HashMap<Digest, BuildRecord>,
    lines: usize,
    boot: String,
    /// Records whose layers the disk may not have.
    unsynced: bool,
    log: Option<File>,
}

impl BuildCache {
    /// Layers that records name.
    pub(crate) fn layers(&self) -> impl Iterator<Item = Digest> + '_ {
        self.records.values().filter_map(|record| record.layer)
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        log.write_all(&encode(line)?)?;
        self.lines += 1;
        Ok(())
    }

    fn replay(&mut self, bytes: &[u8]) {
        let mut doubtful = HashSet::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.lines += 1;
            match decode(line) {
                Some(Line::Put { key, boot, record }) => {
                    if boot != self.boot {
                        doubtful.insert(key);
                    } else {
                        doubtful.remove(&key);
                    }
                    self.records.insert(key, record);
                }
                Some(Line::Used { key, at }) => {
                    if let Some(record) = self.records.get_mut(&key) {
                        (record.used, record.uses) = (at, record.uses + 1);
                    }
                }
                Some(Line::Gone { key }) => {
                    self.records.remove(&key);
                }
                Some(Line::Synced) => doubtful.clear(),
                None => {}
            }
        }
        self.records.retain(|key, _| !doubtful.contains(key));
    }
}

fn encode(line: &Line) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(line)?;
    let mut bytes = format!("{} ", &Digest::of(&json).hex()[..16]).into_bytes();
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
    Ok(bytes)
}

fn decode(line: &[u8]) -> Option<Line> {
    let line = line.strip_suffix(b"\n")?;
    let (checksum, json) = (line.get(..16)?, line.get(17..)?);
    (Digest::of(json).hex().as_bytes()[..16] == *checksum).then_some(())?;
    serde_json::from_slice(json).ok()
}

impl Store {
    /// The directory that builds keep their own things in.
    ///
    /// # Errors
    /// [`StoreError::Directory`].
    pub fn build_directory(&self) -> Result<OwnedFd, StoreError> {
        directory::make_and_open(&self.root, DIRECTORY, 0o700).map_err(|errno| self.build_error(errno.into()))
    }

    fn build_error(&self, source: io::Error) -> StoreError {
        StoreError::Directory { path: self.data_root.join(DIRECTORY), source }
    }

    /// Reads the records; those whose layers are not there are none.
    pub(super) fn read_build_cache(
        &self,
        layers: &HashMap<Digest, crate::layer::LayerRecord>,
    ) -> Result<BuildCache, StoreError> {
        let error = |source: io::Error| self.build_error(source);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut cache = BuildCache { boot: boot.trim().to_owned(), ..BuildCache::default() };
        let directory = self.build_directory()?;
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        let opened = fs::openat(&directory, LOG, flags, Mode::from_raw_mode(0o600));
        let mut log = File::from(opened.map_err(|errno| error(errno.into()))?);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut log, &mut bytes).map_err(error)?;
        cache.replay(&bytes);
        if bytes.last().is_some_and(|byte| *byte != b'\n') {
            // The next line must not become part of a torn one.
            log.write_all(b"\n").map_err(error)?;
        }
        cache.records.retain(|_, record| record.layer.is_none_or(|layer| layers.contains_key(&layer)));
        cache.log = Some(log);
        if cache.lines > 2 * cache.records.len() + SLACK {
            self.rewrite(&mut cache, &directory).map_err(error)?;
        }
        Ok(cache)
    }

    fn rewrite(&self, cache: &mut BuildCache, directory: &OwnedFd) -> io::Result<()> {
        let name = temporary_name();
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(directory, &name, flags, Mode::from_raw_mode(0o600))?);
        let mut bytes = Vec::new();
        for (key, record) in &cache.records {
            let line = Line::Put { key: *key, boot: cache.boot.clone(), record: record.clone() };
            bytes.extend(encode(&line)?);
        }
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::renameat(directory, &name, directory, LOG)?;
        (cache.lines, cache.log, cache.unsynced) = (cache.records.len(), Some(file), true);
        Ok(())
    }

    /// What was made of `key`, and a lease of its layer. A layer that is there counts as used now.
    pub fn build_record(self: &Arc<Self>, key: &Digest) -> Option<(BuildRecord, Option<LayerLease>)> {
        let mut state = self.lock();
        let now = Timestamp::now();
        let record = state.build_cache.records.get_mut(key)?;
        (record.used, record.uses) = (now, record.uses + 1);
        let record = record.clone();
        // A use that is forgotten only makes the record look older.
        let _ = state.build_cache.append(&Line::Used { key: *key, at: now });
        drop(state);
        match record.layer {
            None => Some((record, None)),
            Some(layer) => self.lease_layer(&layer).map(|lease| (record, Some(lease))),
        }
    }

    /// Remembers what was made of `key`. The layer stays from here on.
    ///
    /// # Errors
    /// [`StoreError::Directory`] where the file cannot be written: the record is none then.
    pub fn put_build_record(&self, key: Digest, record: BuildRecord) -> Result<(), StoreError> {
        let mut state = self.lock();
        let boot = state.build_cache.boot.clone();
        let line = Line::Put { key, boot, record: record.clone() };
        state.build_cache.append(&line).map_err(|source| self.build_error(source))?;
        state.build_cache.unsynced = true;
        state.build_cache.records.insert(key, record);
        Ok(())
    }

    /// All records, with their keys.
    pub fn build_records(&self) -> Vec<(Digest, BuildRecord)> {
        self.lock().build_cache.records.iter().map(|(key, record)| (*key, record.clone())).collect()
    }

    /// Forgets records; layers that nothing else uses go.
    ///
    /// # Errors
    /// [`StoreError::Directory`] where the file cannot be written.
    pub fn forget_build_records(&self, keys: &[Digest]) -> Result<(), StoreError> {
        let mut state = self.lock();
        for key in keys {
            if state.build_cache.records.remove(key).is_some() {
                state
                    .build_cache
                    .append(&Line::Gone { key: *key })
                    .map_err(|source| self.build_error(source))?;
            }
        }
        self.collect_garbage(&mut state);
        Ok(())
    }

    /// Notes that the disk has what the records name; called at the end of a build.
    ///
    /// # Errors
    /// [`StoreError::StoreLayer`] and [`StoreError::Directory`].
    pub fn sync_build_records(&self) -> Result<(), StoreError> {
        let layers: Vec<Digest> = {
            let state = self.lock();
            if !state.build_cache.unsynced {
                return Ok(());
            }
            state.build_cache.layers().collect()
        };
        self.sync_layers(&layers)?;
        let mut state = self.lock();
        state.build_cache.unsynced = false;
        state.build_cache.append(&Line::Synced).map_err(|source| self.build_error(source))
    }

    /// Makes what a build command writes to: directories over `layers`, the lowest first, owned by `owner`, which stay until
    /// [`Store::remove_snapshot`].
    ///
    /// # Errors
    /// As [`Store::create_snapshot`].
    pub fn create_build_snapshot(
        &self,
        container: &dory_types::ContainerId,
        layers: &[LayerLease],
        owner: crate::snapshot::Owner,
    ) -> Result<crate::snapshot::Snapshot, StoreError> {
        let layers = layers.iter().map(LayerLease::diff_id).collect();
        self.create_snapshot_over(container, layers, owner)
    }

    /// The directories of layers, the topmost first, as overlayfs wants them. Leases keep them.
    pub fn layer_directories(&self, layers: &[LayerLease]) -> Vec<std::path::PathBuf> {
        let layers: Vec<Digest> = layers.iter().map(LayerLease::diff_id).collect();
        self.lower_directories(&layers)
    }

    /// A directory for something temporary, gone at the next start at the latest.
    ///
    /// # Errors
    /// [`StoreError::Directory`].
    pub fn build_scratch(self: &Arc<Self>) -> Result<Scratch, StoreError> {
        let name = temporary_name();
        let directory = fs::mkdirat(self.temporary(), &name, Mode::from_raw_mode(0o700))
            .and_then(|()| directory::open_child(self.temporary(), &name))
            .map_err(|errno| self.build_error(errno.into()))?;
        Ok(Scratch { store: Arc::clone(self), name, directory })
    }
}

/// A directory that goes with this.
#[derive(Debug)]
pub struct Scratch {
    store: Arc<Store>,
    name: String,
    directory: OwnedFd,
}

impl Scratch {
    /// The directory.
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its path.
    pub fn path(&self) -> std::path::PathBuf {
        self.store.data_root.join("tmp").join(&self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is found at the next start.
        let _ = self.store.trash.discard(self.store.temporary(), self.name.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: u8, boot: &str) -> Line {
        let record = BuildRecord {
            layer: None,
            description: "RUN true".to_owned(),
            kind: "regular".to_owned(),
            created: Timestamp::now(),
            used: Timestamp::now(),
            uses: 0,
        };
        Line::Put { key: Digest::of(&[key]), boot: boot.to_owned(), record }
    }

    #[test]
    fn believes_what_the_disk_certainly_has() {
        let torn = &encode(&put(5, "now")).unwrap()[..40];
        let cases: [(&str, Vec<Line>, &[u8]); 4] = [
            ("this boot's", vec![put(1, "now"), put(2, "now")], &[1, 2]),
            ("an earlier boot's, synced", vec![put(1, "then"), Line::Synced, put(2, "then")], &[1]),
            ("gone", vec![put(1, "now"), Line::Gone { key: Digest::of(&[1]) }], &[]),
            ("made again", vec![put(1, "then"), put(1, "now")], &[1]),
        ];
        for (name, lines, expected) in cases {
            let mut cache = BuildCache { boot: "now".to_owned(), ..BuildCache::default() };
            let mut bytes: Vec<u8> = lines.iter().flat_map(|line| encode(line).unwrap()).collect();
            bytes.extend_from_slice(torn);
            cache.replay(&bytes);
            let expected: HashSet<_> = expected.iter().map(|key| Digest::of(&[*key])).collect();
            assert_eq!(cache.records.keys().copied().collect::<HashSet<_>>(), expected, "{name}");
        }
    }
}
