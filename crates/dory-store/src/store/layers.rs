//! Layers on their way into the store, and out of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use dory_types::Digest;
use rustix::fs::{self, Mode};
use rustix::io::Errno;

use super::{State, Store};
use crate::directory;
use crate::error::StoreError;
use crate::layer::{self, ExtractError, LayerRecord, UnpackLimits, Unpacked};
use crate::record::{read_record, temporary_name};

/// How long a layer stays that a broken-off pull has left for the next try.
const RETRY: Duration = Duration::from_secs(600);

/// How the name of a layer's directory ends while it is on its way out.
const GOING: &[u8] = b".going";

/// What a layer's directory is called while it is on its way out.
fn going(layer: &Digest) -> String {
    format!("{}.going", layer.hex())
}

/// What is known of a layer before it comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpectedLayer {
    /// The digest and the length, in bytes, of the archive as it comes, compressed or not.
    pub blob: Option<(Digest, u64)>,
    /// The digest of the uncompressed archive.
    pub diff_id: Option<Digest>,
    /// How much it may unpack to; `None` for what [`Store::limit_unpacking`] says.
    pub limits: Option<UnpackLimits>,
}

/// A layer of the store that cannot go away while this exists. Layers that nothing else uses go with their last lease.
#[derive(Debug)]
pub struct LayerLease {
    /// `None` when it was given back.
    store: Option<Arc<Store>>,
    diff_id: Digest,
    blob: (Digest, u64),
}

impl LayerLease {
    /// The digest of the uncompressed archive.
    pub fn diff_id(&self) -> Digest {
        self.diff_id
    }

    /// The digest and the length, in bytes, of the archive as it came.
    pub fn blob(&self) -> (Digest, u64) {
        self.blob
    }

    /// Gives the layer back, but lets it stay for ten minutes: whoever interrupted a pull is likely to try again.
    pub fn leave_for_retry(self) {
        if let Some(store) = &self.store {
            store.lock().left.insert(self.diff_id, Instant::now() + RETRY);
        }
    }

    /// Gives the layer back where the store's lock is held already.
    pub(crate) fn release(mut self, state: &mut State) {
        if self.store.take().is_some() {
            release(state, &self.diff_id);
        }
    }
}

impl Clone for LayerLease {
    fn clone(&self) -> Self {
        if let Some(store) = &self.store {
            *store.lock().leases.entry(self.diff_id).or_default() += 1;
        }
        Self { store: self.store.clone(), diff_id: self.diff_id, blob: self.blob }
    }
}

impl Drop for LayerLease {
    fn drop(&mut self) {
        if let Some(store) = self.store.take() {
            let mut state = store.lock();
            release(&mut state, &self.diff_id);
            store.collect_garbage(&mut state);
        }
    }
}

/// Counts one lease of `diff_id` less.
fn release(state: &mut State, diff_id: &Digest) {
    if let Some(count) = state.leases.get_mut(diff_id) {
        *count -= 1;
        if *count == 0 {
            state.leases.remove(diff_id);
        }
    }
}

/// A directory in `tmp/` that is discarded unless it gets another place.
#[derive(Debug)]
struct Staging<'a> {
    store: &'a Store,
    name: String,
}

impl<'a> Staging<'a> {
    /// The guard and the directory; an archive may have any number of layers, so no descriptor stays open for each.
    fn new(store: &'a Store) -> Result<(Self, OwnedFd), Errno> {
        let name = temporary_name();
        fs::mkdirat(store.staging(), &name, Mode::from_raw_mode(0o711))?;
        let staging = Self { store, name };
        let directory = directory::open_child(store.staging(), &staging.name)?;
        Ok((staging, directory))
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // Nothing is there where it got its place; what is left otherwise is found at the next start too.
        let _ = self.store.layer_trash().discard(self.store.staging(), self.name.as_bytes());
    }
}

impl Store {
    /// Takes a layer in as its bytes come: `source` is hashed, decompressed (gzip, zstd or not at all, as its first
    /// bytes say), hashed again and unpacked in one pass, and read to its end. The layer has its name afterwards, which
    /// it gets only where both digests are those `expected`. Any number of threads may do this at once.
    ///
    /// # Errors
    /// [`StoreError::Extract`], and [`StoreError::StoreLayer`] where the disk fails; nothing is left then.
    pub fn ingest_layer(
        self: &Arc<Self>,
        source: impl Read + Send,
        expected: &ExpectedLayer,
    ) -> Result<LayerLease, StoreError> {
        let name = || expected.blob.map(|(digest, _)| digest).or(expected.diff_id);
        self.ingest(source, expected).map_err(|source| StoreError::Extract {
            layer: name().map_or_else(|| "from a stream".to_owned(), |digest| digest.to_string()),
            source,
        })
    }

    /// Takes in the layer whose archive `write` writes: the differences of a container, or what a build step made.
    /// It runs on a thread of its own, and what it writes is unpacked at the same time.
    ///
    /// # Errors
    /// As [`Store::ingest_layer`]; the failure of `write` is the source of its [`ExtractError::Read`].
    pub fn ingest_written<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        self: &Arc<Self>,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E> + Send,
    ) -> Result<LayerLease, StoreError> {
        let pipe = |error| StoreError::Extract { layer: "new".to_owned(), source: ExtractError::Read(error) };
        let (reader, mut writer) = io::pipe().map_err(pipe)?;
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || write(&mut writer).map_err(io::Error::other));
            self.ingest_layer(Written { reader, writing: Some(writing) }, &ExpectedLayer::default())
        })
    }

    /// As [`Store::ingest_layer`], for callers that know the layer by another name.
    pub(crate) fn ingest(
        self: &Arc<Self>,
        source: impl Read + Send,
        expected: &ExpectedLayer,
    ) -> Result<LayerLease, ExtractError> {
        let (staging, directory) = Staging::new(self).map_err(ExtractError::Root)?;
        let announced = expected.blob.map_or(u64::MAX, |(_, size)| size);
        let limits = expected.limits.unwrap_or_else(|| self.limits.get().copied().unwrap_or_default());
        let unpacked = layer::unpack(Announced { source, left: announced }, &directory, limits)?;
        check(expected, &unpacked)?;
        self.place(&staging, unpacked)
    }

    /// Says how much any layer may unpack to. The first word counts.
    pub fn limit_unpacking(&self, limits: UnpackLimits) {
        // Whoever comes second has nothing to say: layers may be on their way already.
        let _ = self.limits.set(limits);
    }

    /// Gives a verified layer its name, unless the store has it already. It need not be on the disk yet: only the index
    /// makes a layer count, and it is written after a sync.
    fn place(
        self: &Arc<Self>,
        staging: &Staging<'_>,
        unpacked: Unpacked,
    ) -> Result<LayerLease, ExtractError> {
        let Unpacked { diff_id, blob, record } = unpacked;
        let mut guard = self.lock();
        let state = &mut *guard;
        self.ensure_current(state).map_err(ExtractError::Shared)?;
        if let Entry::Vacant(entry) = state.layers.entry(diff_id) {
            self.images.announce().map_err(ExtractError::Shared)?;
            let name = diff_id.hex();
            // What has the name without being known is left of something broken.
            self.layer_trash().discard(&self.layers, name.as_bytes()).map_err(ExtractError::Root)?;
            fs::renameat(self.staging(), &staging.name, &self.layers, &name).map_err(ExtractError::Root)?;
            entry.insert(record);
            state.unsynced.insert(diff_id);
        }
        *state.leases.entry(diff_id).or_default() += 1;
        if let Err(error) = self.claim(state) {
            release(state, &diff_id);
            return Err(ExtractError::Shared(error));
        }
        Ok(LayerLease { store: Some(Arc::clone(self)), diff_id, blob })
    }

    /// A lease of the layer whose archive, as it came or uncompressed, has the digest `digest`; `None` where the store
    /// has none. Nothing has to be downloaded then.
    pub fn lease_layer(self: &Arc<Self>, digest: &Digest) -> Option<LayerLease> {
        let mut state = self.lock();
        self.adopt(&mut state);
        let diff_id = match state.layers.contains_key(digest) {
            true => *digest,
            false => *state.layers.iter().find(|(_, record)| record.blob.as_ref() == Some(digest))?.0,
        };
        *state.leases.entry(diff_id).or_default() += 1;
        let claimed = self.claim(&state).is_ok();
        if self.home(&diff_id).is_some() {
            self.renew_leases(&state);
        }
        if !claimed || self.are_there(&[diff_id]).is_err() {
            release(&mut state, &diff_id);
            return None;
        }
        let size = state.layers.get(&diff_id).map_or(0, |record| record.archive_size);
        Some(LayerLease { store: Some(Arc::clone(self)), diff_id, blob: (diff_id, size) })
    }

    /// What is known about a layer.
    pub fn layer(&self, diff_id: &Digest) -> Option<LayerRecord> {
        self.lock().layers.get(diff_id).cloned()
    }

    /// Writes the uncompressed archive of a layer to `sink`, byte for byte as it was unpacked. Its length is
    /// [`LayerRecord::archive_size`].
    ///
    /// # Errors
    /// [`StoreError::ExportLayer`]; part of it has been written then.
    pub fn export_layer(&self, layer: &LayerLease, sink: &mut dyn Write) -> Result<(), StoreError> {
        self.export(&layer.diff_id, sink)
    }

    /// As [`Store::export_layer`], where something else keeps the layer.
    pub(crate) fn export(&self, diff_id: &Digest, sink: &mut dyn Write) -> Result<(), StoreError> {
        let error = |source| StoreError::ExportLayer { layer: *diff_id, source };
        let opened = directory::open_child(self.layers_with(diff_id).0, diff_id.hex());
        let directory = opened.map_err(|errno| error(layer::ExportError::Layer(errno.into())))?;
        let record = self.layer(diff_id).unwrap_or_default();
        layer::write_archive(std::os::fd::AsFd::as_fd(&directory), diff_id, &record, sink).map_err(error)
    }

    /// Where overlayfs finds a layer's files.
    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.layers_with(diff_id).1.join(diff_id.hex()).join(layer::FILES)
    }

    /// Waits until the disk has all of the layers: once for all of them, and not at all where it has them already.
    pub(super) fn sync_layers(&self, layers: &[Digest]) -> Result<(), StoreError> {
        let unsynced: Vec<Digest> = self.lock().unsynced.iter().copied().collect();
        let Some(layer) = layers.iter().find(|layer| unsynced.contains(layer)) else { return Ok(()) };
        fs::syncfs(&self.layers)
            .map_err(|errno| StoreError::StoreLayer { layer: *layer, source: errno.into() })?;
        let mut state = self.lock();
        unsynced.iter().for_each(|layer| {
            state.unsynced.remove(layer);
        });
        Ok(())
    }

    /// Takes layers out of the store, except those that a child began to use meanwhile: see `children`.
    pub(super) fn discard_layers(&self, state: &mut State, layers: &[Digest]) -> Result<(), StoreError> {
        let error = |layer: &Digest| {
            let layer = *layer;
            move |errno: Errno| StoreError::StoreLayer { layer, source: errno.into() }
        };
        self.images.announce().map_err(|error| self.images.error(error))?;
        for layer in layers {
            fs::renameat(&self.layers, layer.hex(), &self.layers, going(layer)).map_err(error(layer))?;
        }
        let leased = self.leased_to_children()?;
        for layer in layers {
            if leased.contains(layer) {
                fs::renameat(&self.layers, going(layer), &self.layers, layer.hex()).map_err(error(layer))?;
                continue;
            }
            self.layer_trash().discard(&self.layers, going(layer).as_bytes()).map_err(error(layer))?;
            state.layers.remove(layer);
            state.unsynced.remove(layer);
            state.left.remove(layer);
        }
        Ok(())
    }

    /// Gives layers their names back that an engine was about to discard when it died: a child may use them.
    pub(super) fn bring_back(&self) -> Result<(), Errno> {
        for (name, _) in directory::names(&self.layers)? {
            if let Some(layer) = name.strip_suffix(GOING) {
                fs::renameat(&self.layers, name.as_slice(), &self.layers, layer)?;
            }
        }
        Ok(())
    }

    /// Finds the layers on the disk; what is none is discarded.
    pub(super) fn read_layers(&self) -> Result<HashMap<Digest, LayerRecord>, StoreError> {
        let error =
            |source: io::Error| StoreError::Directory { path: self.images.path.join("layers"), source };
        let mut layers = HashMap::new();
        for (name, _) in directory::names(&self.layers).map_err(|errno| error(errno.into()))? {
            match self.read_layer(&name) {
                Some((diff_id, record)) => {
                    layers.insert(diff_id, record);
                }
                None => {
                    self.layer_trash().discard(&self.layers, &name).map_err(|errno| error(errno.into()))?
                }
            }
        }
        Ok(layers)
    }

    /// The layer with the directory `name`; `None` where it is not one, or not whole.
    pub(super) fn read_layer(&self, name: &[u8]) -> Option<(Digest, LayerRecord)> {
        let diff_id = Digest::from_hex(std::str::from_utf8(name).ok()?).ok()?;
        let directory = directory::open_child(&self.layers, name).ok()?;
        let record = read_record(&directory, layer::RECORD).ok()??;
        Some((diff_id, record))
    }
}

/// Reads what a thread writes; its failure is a failure here and no end.
struct Written<'scope> {
    reader: io::PipeReader,
    /// `None` when it was asked how it ended.
    writing: Option<ScopedJoinHandle<'scope, io::Result<()>>>,
}

impl Read for Written<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        if length == 0
            && let Some(writing) = self.writing.take()
        {
            writing.join().unwrap_or_else(|_| Err(io::Error::other("the archive's writer panicked")))?;
        }
        Ok(length)
    }
}

/// Compares what came with what should have come. The blob's digest counts first: the rest follows from it.
fn check(expected: &ExpectedLayer, unpacked: &Unpacked) -> Result<(), ExtractError> {
    let (found, size) = unpacked.blob;
    if let Some((digest, length)) = expected.blob
        && (digest, length) != (found, size)
    {
        return Err(ExtractError::BlobDigest { expected: digest, found, size });
    }
    match expected.diff_id {
        Some(expected) if expected != unpacked.diff_id => {
            Err(ExtractError::DiffId { expected, found: unpacked.diff_id })
        }
        _ => Ok(()),
    }
}

/// Reads no more than was announced: a source without an end is found out at that point.
struct Announced<R> {
    source: R,
    left: u64,
}

impl<R: Read> Read for Announced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the layer has more bytes than were announced")
        })?;
        Ok(length)
    }
}
