//! Compressing a rotated file, a piece at a time: the shim has one thread, and its container must not wait for it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use rustix::fs::renameat;

use crate::identity::FileIdentity;
use crate::rotate::{chain_name, compressed_name, open_append, open_read, remove};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// The first rotated file of a chain on its way to its compressed form. Dropped before its end it leaves nothing.
#[derive(Debug)]
pub(super) struct Compressing {
    dir: OwnedFd,
    name: String,
    source: File,
    identity: FileIdentity,
    /// `None` once it is done.
    encoder: Option<GzEncoder<File>>,
}

impl Compressing {
    /// Begins with the first rotated file of the chain `name`; `None` where there is none, or it is compressed already.
    pub(super) fn begin(dir: BorrowedFd<'_>, name: &str) -> io::Result<Option<Self>> {
        let (plain, compressed) = (chain_name(name, 1), compressed_name(name, 1));
        remove(dir, &unfinished_name(name))?;
        let Some(source) = open_read(dir, &plain)? else { return Ok(None) };
        if open_read(dir, &compressed)?.is_some() {
            // The writer was killed between the two last steps of an earlier run.
            remove(dir, &plain)?;
            return Ok(None);
        }
        // Followers know the file by what it was (see the reader).
        let identity = FileIdentity::of(source.as_fd())?;
        let target = File::from(open_append(dir, &unfinished_name(name))?);
        let encoder = GzBuilder::new().comment(identity.to_string()).write(target, Compression::fast());
        Ok(Some(Self {
            dir: dir.try_clone_to_owned()?,
            name: name.to_owned(),
            source: source.into(),
            identity,
            encoder: Some(encoder),
        }))
    }

    /// What the file is known by.
    pub(super) fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Compresses about `budget` bytes; true at the end, when the compressed file has replaced the other.
    pub(super) fn step(&mut self, budget: usize) -> io::Result<bool> {
        let Some(encoder) = &mut self.encoder else { return Ok(true) };
        let mut piece = vec![0; PIECE.min(budget.max(1))];
        let mut left = budget;
        while left > 0 {
            let count = self.source.read(&mut piece)?;
            if count == 0 {
                return self.finish().map(|()| true);
            }
            encoder.write_all(&piece[..count])?;
            left = left.saturating_sub(count);
        }
        Ok(false)
    }

    /// The compressed file gets its name before the other loses its: a reader finds at least one of them.
    fn finish(&mut self) -> io::Result<()> {
        if let Some(encoder) = self.encoder.take() {
            encoder.finish()?;
            let dir = self.dir.as_fd();
            renameat(dir, unfinished_name(&self.name), dir, compressed_name(&self.name, 1))?;
            remove(dir, &chain_name(&self.name, 1))?;
        }
        Ok(())
    }
}

impl Drop for Compressing {
    fn drop(&mut self) {
        if self.encoder.is_some() {
            // The next writer of this chain looks for it too.
            let _ = remove(self.dir.as_fd(), &unfinished_name(&self.name));
        }
    }
}

fn unfinished_name(name: &str) -> String {
    format!("{name}.gz.new")
}
