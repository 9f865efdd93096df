//! The files of a result: as an archive, in a directory.

use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dory_store::{IdMap, LayerLease, LayeredFiles, Ownership, Store, Tree, UnpackOptions};
use dory_types::with_causes;
use rustix::fs::{self, Mode, OFlags};

use crate::outcome::PlatformResult;

/// Bytes that are written at once.
const BUFFER: usize = 256 << 10;

/// Writes the files of `layers`, the lowest first, as an archive, merged as a container would see them.
pub(crate) fn tar(store: &Arc<Store>, layers: &[LayerLease], sink: impl Write) -> Result<(), String> {
    let mut sink = BufWriter::with_capacity(BUFFER, sink);
    let directories = store.layer_directories(layers);
    if let Some((top, lower)) = directories.split_first() {
        let files = LayeredFiles::open(top, lower, IdMap::default()).map_err(|error| with_causes(&error))?;
        files.export(&mut sink).map_err(|error| with_causes(&error))?;
    } else {
        // Two blocks of zeros are an archive without anything.
        sink.write_all(&[0; 1024]).map_err(|error| error.to_string())?;
    }
    sink.flush().map_err(|error| error.to_string())
}

/// Writes the files of `layers` into a directory. Owners are kept where this process may give files away.
pub(crate) fn unpack(store: &Arc<Store>, layers: &[LayerLease], root: OwnedFd) -> Result<(), String> {
    let (reader, mut writer) = io::pipe().map_err(|error| error.to_string())?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || tar(store, layers, &mut writer));
        let owner = match rustix::process::geteuid().is_root() {
            true => Ownership::Archive,
            false => Ownership::Unpacker,
        };
        let options = UnpackOptions { owner, ..UnpackOptions::default() };
        let unpacked = Tree::new(root, IdMap::default()).unpack("/", reader, options);
        let written = writing.join().unwrap_or_else(|_| Err("the archive's writer panicked".to_owned()));
        // An unpacker that gave up breaks the pipe: its word is the better one.
        unpacked.map_err(|error| with_causes(&error)).and(written)
    })
}

/// Writes the files of `result` into `directory`, which is made where it is missing.
pub(super) fn local(store: &Arc<Store>, result: &PlatformResult, directory: &Path) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(directory, flags, Mode::empty()).map_err(|errno| errno.to_string())?;
    unpack(store, &result.layers, root)
}

/// Where a platform's files go: below a directory of its name where there are several.
pub(super) fn place(directory: &Path, result: &PlatformResult, several: bool) -> PathBuf {
    if several { directory.join(result.platform.to_string().replace('/', "_")) } else { directory.to_owned() }
}
