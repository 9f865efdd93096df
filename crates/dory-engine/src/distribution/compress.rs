//! A layer as registries want it: its archive, compressed with gzip while it is written.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dory_store::{LayerLease, Store};
use dory_types::Digest;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

/// How much is sent at once, in bytes.
const PIECE: usize = 256 << 10;

/// Compresses the archive of `layer` into `pieces`. `taken` counts what has been compressed of it. Digest and length of
/// what was sent; the same for the same layer each time.
pub(super) fn compress(
    store: &Store,
    layer: &LayerLease,
    taken: &AtomicU64,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<(Digest, u64)> {
    let sink = Pieces { pieces, piece: Vec::with_capacity(PIECE), hasher: Sha256::new(), length: 0 };
    let mut encoder = Counting { inner: GzEncoder::new(sink, Compression::default()), taken };
    let result = store.export_layer(layer, &mut encoder).map_err(io::Error::other).and_then(|()| {
        let mut sink = encoder.inner.finish()?;
        sink.pass_on()?;
        Ok((Digest::from_bytes(sink.hasher.finalize().into()), sink.length))
    });
    if let Err(error) = &result {
        // What was sent must not pass for all of it.
        let _ = pieces.blocking_send(Err(io::Error::new(error.kind(), error.to_string())));
    }
    result
}

/// Counts what goes through.
struct Counting<'a, W> {
    inner: W,
    taken: &'a AtomicU64,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.taken.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes what it gets, and passes it on in pieces.
struct Pieces<'a> {
    pieces: &'a mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    hasher: Sha256,
    length: u64,
}

impl Pieces<'_> {
    fn pass_on(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.hasher.update(&piece);
        self.length += piece.len() as u64;
        // Whoever does not listen any more has failed, and says why.
        self.pieces.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.pass_on()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
