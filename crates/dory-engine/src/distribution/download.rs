//! One blob from a registry into the store: bytes are hashed, decompressed and unpacked on a thread of its own while
//! they come.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use dory_registry::BlobStream;
use dory_store::{ExpectedLayer, LayerLease, Store};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::registry_error;
use super::transfer::{Phase, wanted};
use crate::image::store_error;
use crate::{EngineError, Result};

/// Pieces that wait to be unpacked: some hundred KiB each.
const QUEUE: usize = 8;
/// How often the unpacking that goes on after the last byte tells how far it is.
const TICK: Duration = Duration::from_millis(100);

/// Downloads and unpacks. `phases` tells everybody how far it is, `users` how many want it.
pub(super) async fn run(
    store: Arc<Store>,
    mut blob: BlobStream,
    slots: &Semaphore,
    phases: &watch::Sender<Phase>,
    mut users: watch::Receiver<usize>,
) -> Result<LayerLease> {
    let slot = loop {
        wanted(&mut users).await?;
        tokio::select! {
            slot = slots.acquire() => break slot,
            _ = users.wait_for(|users| *users == 0) => {}
        }
    };
    let _slot = slot.map_err(|error| EngineError::failed("cannot download", error))?;
    let descriptor = blob.descriptor().clone();
    let (pieces, source) = pieces();
    let consumed = Arc::clone(&source.consumed);
    let expected =
        ExpectedLayer { blob: Some((descriptor.digest, descriptor.size)), ..ExpectedLayer::default() };
    let unpacking =
        tokio::task::spawn_blocking(move || store.ingest_layer(source, &expected).map_err(store_error));
    match feed(&mut blob, &pieces, phases, &mut users).await {
        Ok(()) => {
            // The end of the channel is the end of the layer, where no error came before.
            drop(pieces);
            finish(unpacking, phases, &consumed).await
        }
        Err(Stop::Unpacked) => {
            drop(pieces);
            finish(unpacking, phases, &consumed).await
        }
        Err(Stop::Failed(error)) => {
            // The thread must not take the break for the layer's end.
            let _ = pieces.send(Err(io::ErrorKind::ConnectionAborted.into())).await;
            Err(error)
        }
    }
}

/// Why no more is downloaded.
enum Stop {
    /// The unpacking has ended: its result says why.
    Unpacked,
    /// The download cannot go on.
    Failed(EngineError),
}

async fn feed(
    blob: &mut BlobStream,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    phases: &watch::Sender<Phase>,
    users: &mut watch::Receiver<usize>,
) -> Result<(), Stop> {
    phases.send_replace(Phase::Downloading(0));
    loop {
        if *users.borrow_and_update() == 0 {
            // The connection goes: a registry would close it anyway, and a range brings the rest.
            blob.pause();
            wanted(users).await.map_err(Stop::Failed)?;
        }
        let next = tokio::select! {
            next = blob.next() => next,
            _ = users.wait_for(|users| *users == 0) => continue,
        };
        let Some(piece) = next.map_err(|error| Stop::Failed(registry_error(error)))? else { return Ok(()) };
        if pieces.send(Ok(piece)).await.is_err() {
            return Err(Stop::Unpacked);
        }
        phases.send_replace(Phase::Downloading(blob.position()));
    }
}

/// Waits for the rest to be unpacked.
async fn finish(
    mut unpacking: JoinHandle<Result<LayerLease>>,
    phases: &watch::Sender<Phase>,
    consumed: &AtomicU64,
) -> Result<LayerLease> {
    loop {
        phases.send_replace(Phase::Extracting(consumed.load(Ordering::Relaxed)));
        match tokio::time::timeout(TICK, &mut unpacking).await {
            Err(_) => {}
            Ok(Ok(result)) => return result,
            Ok(Err(error)) => return Err(EngineError::failed("the unpacking of a layer ended early", error)),
        }
    }
}

/// A queue of pieces, and the reader that has them one after the other. An error in it must precede an early end.
pub(super) fn pieces() -> (mpsc::Sender<io::Result<Bytes>>, PieceReader) {
    let (pieces, receiver) = mpsc::channel(QUEUE);
    (pieces, PieceReader { receiver, piece: Bytes::new(), consumed: Arc::default() })
}

/// What comes, for a thread that reads.
pub(super) struct PieceReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    consumed: Arc<AtomicU64>,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        self.consumed.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
