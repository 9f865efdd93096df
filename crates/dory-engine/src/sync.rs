//! Brings first versions of records to the disk, many at a time.
//!
//! An fsync takes 4 to 6 ms, and a container that lives for 20 ms needs none: a second after its creation it is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::container::Container;

/// How long a record may wait: what `docs/state.md` promises.
const PATIENCE: Duration = Duration::from_millis(900);

/// What the task is told.
#[derive(Debug)]
pub(crate) enum Request {
    /// Sync this container's record soon.
    Container(Arc<Container>),
    /// Sync everything now, and say so.
    Flush(oneshot::Sender<()>),
}

/// Runs until every sender is gone.
pub(crate) async fn run(mut requests: mpsc::UnboundedReceiver<Request>) {
    let mut waiting: Vec<Arc<Container>> = Vec::new();
    let mut flushes: Vec<oneshot::Sender<()>> = Vec::new();
    while let Some(first) = requests.recv().await {
        let mut next = Some(first);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Some(request) = next {
            match request {
                Request::Container(container) => waiting.push(container),
                Request::Flush(done) => {
                    flushes.push(done);
                    break;
                }
            }
            next = tokio::time::timeout_at(deadline, requests.recv()).await.ok().flatten();
        }
        let batch = std::mem::take(&mut waiting);
        let synced = tokio::task::spawn_blocking(move || {
            for container in batch.iter().filter(|container| !container.live().removed) {
                container.sync();
            }
        });
        if let Err(error) = synced.await {
            tracing::warn!(%error, "Syncing records ended early");
        }
        for done in flushes.drain(..) {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}
