//! What the fuzzers of `fuzz/` call: a layer's way in and out, without a store around it.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};

use crate::directory;
use crate::layer::{self, ExportError, UnpackLimits};

/// How much one input may unpack to: 4 MiB and a hundred entries keep each run short.
const LIMITS: UnpackLimits = UnpackLimits { archive_size: 4 << 20, entries: 100 };

/// Unpacks `archive` into the empty directory `staging`, and writes it again. What was accepted comes back byte for byte,
/// or is refused in words: an archive can replace a link by which it named its own files. `staging` is empty afterwards.
///
/// # Panics
/// Where something else comes back.
pub fn layer(archive: &[u8], staging: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = fs::open(staging, flags, Mode::empty()) else { return };
    if let Ok(unpacked) = layer::unpack(archive, &directory, LIMITS) {
        let mut written = Kept(Vec::new());
        let result =
            layer::write_archive(directory.as_fd(), &unpacked.diff_id, &unpacked.record, &mut written);
        match result {
            Ok(()) => assert_eq!(written.0.len() as u64, unpacked.record.archive_size),
            Err(ExportError::Changed { .. } | ExportError::File { .. }) => {}
            Err(error) => panic!("what was unpacked cannot be read: {error}"),
        }
    }
    empty(&directory);
}

fn empty(directory: &OwnedFd) {
    for (name, _) in directory::names(directory).unwrap_or_default() {
        let _ = directory::remove(directory.as_fd(), &name);
    }
}

/// Keeps what is written.
struct Kept(Vec<u8>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
