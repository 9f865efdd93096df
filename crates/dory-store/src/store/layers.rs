//! Layers on their way into the store, and out of it.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use dory_types::Digest;
use rustix::fs::{self, Mode};
use rustix::io::Errno;

use super::{State, Store};
use crate::directory;
use crate::error::StoreError;
use crate::layer::{self, ExtractError, LayerRecord, Unpacked};
use crate::record::{read_record, temporary_name};

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
        fs::mkdirat(&store.temporary, &name, Mode::from_raw_mode(0o711))?;
        let staging = Self { store, name };
        let directory = directory::open_child(&store.temporary, &staging.name)?;
        Ok((staging, directory))
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // Nothing is there where it got its place; what is left otherwise is found at the next start too.
        let _ = self.store.trash.discard(&self.store.temporary, self.name.as_bytes());
    }
}

/// A layer that was unpacked and has no name yet.
#[derive(Debug)]
pub(crate) struct NewLayer<'a> {
    staging: Staging<'a>,
    unpacked: Unpacked,
}

impl NewLayer<'_> {
    /// Digest and length of the archive as it came.
    pub(crate) fn blob(&self) -> (Digest, u64) {
        self.unpacked.blob
    }

    pub(crate) fn diff_id(&self) -> Digest {
        self.unpacked.diff_id
    }
}

/// A layer that cannot go away while this exists.
#[derive(Debug)]
pub(crate) enum LayerHold<'a> {
    New(NewLayer<'a>),
    Existing(ExistingLayer<'a>),
}

/// A layer of the store that is counted as used.
#[derive(Debug)]
pub(crate) struct ExistingLayer<'a> {
    /// `None` when it was given back.
    store: Option<&'a Store>,
    diff_id: Digest,
}

impl LayerHold<'_> {
    pub(crate) fn diff_id(&self) -> Digest {
        match self {
            Self::New(layer) => layer.diff_id(),
            Self::Existing(layer) => layer.diff_id,
        }
    }

    /// Gives the layer back where the store's lock is held already.
    pub(crate) fn release(self, state: &mut State) {
        if let Self::Existing(mut layer) = self
            && layer.store.take().is_some()
        {
            release(state, &layer.diff_id);
        }
    }
}

impl Drop for ExistingLayer<'_> {
    fn drop(&mut self) {
        if let Some(store) = self.store.take() {
            release(&mut store.lock(), &self.diff_id);
        }
    }
}

/// Counts one user of `diff_id` less.
fn release(state: &mut State, diff_id: &Digest) {
    if let Some(count) = state.holds.get_mut(diff_id) {
        *count -= 1;
        if *count == 0 {
            state.holds.remove(diff_id);
        }
    }
}

impl Store {
    /// Unpacks a layer's archive, compressed or not, beside the store.
    pub(crate) fn unpack_layer(&self, source: impl Read + Send) -> Result<NewLayer<'_>, ExtractError> {
        let (staging, directory) = Staging::new(self).map_err(ExtractError::Root)?;
        let unpacked = layer::unpack(source, &directory)?;
        Ok(NewLayer { staging, unpacked })
    }

    /// Holds the layer whose archive, as it came or uncompressed, has the digest `blob`, where there is one.
    pub(crate) fn hold_layer_of(&self, blob: &Digest) -> Option<LayerHold<'_>> {
        let mut state = self.lock();
        let diff_id = match state.layers.contains_key(blob) {
            true => *blob,
            false => *state.layers.iter().find(|(_, record)| record.blob.as_ref() == Some(blob))?.0,
        };
        *state.holds.entry(diff_id).or_default() += 1;
        Some(LayerHold::Existing(ExistingLayer { store: Some(self), diff_id }))
    }

    /// Where overlayfs finds a layer's files.
    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.data_root.join("layers").join(diff_id.hex()).join(layer::FILES)
    }

    /// Waits until the disk has all of the new layers' files: once for all of them.
    pub(super) fn sync_new(&self, holds: &[LayerHold<'_>]) -> Result<(), StoreError> {
        let new = holds.iter().find(|hold| matches!(hold, LayerHold::New(_)));
        let Some(new) = new else { return Ok(()) };
        fs::syncfs(&self.layers)
            .map_err(|errno| StoreError::StoreLayer { layer: new.diff_id(), source: errno.into() })
    }

    /// Gives a synced layer its name, unless the store has it already.
    pub(super) fn place_layer(&self, state: &mut State, hold: &LayerHold<'_>) -> Result<(), StoreError> {
        let LayerHold::New(new) = hold else { return Ok(()) };
        let diff_id = new.diff_id();
        if state.layers.contains_key(&diff_id) {
            return Ok(());
        }
        let error = |errno: Errno| StoreError::StoreLayer { layer: diff_id, source: errno.into() };
        // What has the name without being known is left of something broken.
        self.trash.discard(&self.layers, diff_id.hex().as_bytes()).map_err(error)?;
        fs::renameat(&self.temporary, &new.staging.name, &self.layers, diff_id.hex()).map_err(error)?;
        fs::fsync(&self.layers).map_err(error)?;
        state.layers.insert(diff_id, new.unpacked.record.clone());
        Ok(())
    }

    /// Takes a layer out of the store.
    pub(super) fn discard_layer(&self, state: &mut State, diff_id: &Digest) -> Result<(), StoreError> {
        self.trash
            .discard(&self.layers, diff_id.hex().as_bytes())
            .map_err(|errno| StoreError::StoreLayer { layer: *diff_id, source: errno.into() })?;
        state.layers.remove(diff_id);
        Ok(())
    }

    /// Finds the layers on the disk; what is none is discarded.
    pub(super) fn read_layers(&self) -> Result<HashMap<Digest, LayerRecord>, StoreError> {
        let error = |source: io::Error| StoreError::Directory { path: self.data_root.join("layers"), source };
        let mut layers = HashMap::new();
        for (name, _) in directory::names(&self.layers).map_err(|errno| error(errno.into()))? {
            match self.read_layer(&name) {
                Some((diff_id, record)) => {
                    layers.insert(diff_id, record);
                }
                None => self.trash.discard(&self.layers, &name).map_err(|errno| error(errno.into()))?,
            }
        }
        Ok(layers)
    }

    /// The layer with the directory `name`; `None` where it is not one, or not whole.
    fn read_layer(&self, name: &[u8]) -> Option<(Digest, LayerRecord)> {
        let diff_id = Digest::from_hex(std::str::from_utf8(name).ok()?).ok()?;
        let directory = directory::open_child(&self.layers, name).ok()?;
        let record = read_record(&directory, layer::RECORD).ok()??;
        Some((diff_id, record))
    }
}
