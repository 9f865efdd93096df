//! Downloads that several clients share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use dory_registry::BlobStream;
use dory_store::{LayerLease, Store};
use dory_types::Digest;
use tokio::sync::{Semaphore, watch};

use super::{SharedError, download};
use crate::Result;

/// How long a download waits for somebody to want it again.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How far a layer is.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Others come first.
    Waiting,
    /// Bytes come and are unpacked: so many of them have come.
    Downloading(u64),
    /// All bytes have come; so many of them have been unpacked.
    Extracting(u64),
    /// The layer is in the store.
    Done(LayerLease),
    /// It is not, and will not be.
    Failed(SharedError),
}

/// A layer's way from a registry into the store.
#[derive(Debug)]
pub(crate) struct Transfer {
    phase: watch::Receiver<Phase>,
    /// How many clients want it.
    users: watch::Sender<usize>,
    /// Some image has the layer: it needs no keeping for another try.
    used: Arc<AtomicBool>,
}

/// All transfers under way, by the blob's digest.
#[derive(Debug)]
pub(crate) struct Transfers {
    running: Mutex<HashMap<Digest, Weak<Transfer>>>,
    slots: Arc<Semaphore>,
}

impl Transfers {
    /// At most `concurrent` downloads at the same time.
    pub(crate) fn new(concurrent: usize) -> Self {
        Self { running: Mutex::default(), slots: Arc::new(Semaphore::new(concurrent.max(1))) }
    }

    /// Takes part in the transfer of the blob that `blob` would fetch, which begins where there is none.
    pub(crate) fn join(&self, store: &Arc<Store>, blob: BlobStream) -> Participation {
        let digest = blob.descriptor().digest;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let known = running.get(&digest).and_then(Weak::upgrade);
        if let Some(transfer) = known.filter(|transfer| !transfer.has_failed()) {
            return Participation::new(transfer);
        }
        running.retain(|_, transfer| transfer.strong_count() > 0);
        let transfer = self.begin(Arc::clone(store), blob);
        running.insert(digest, Arc::downgrade(&transfer));
        Participation::new(transfer)
    }

    fn begin(&self, store: Arc<Store>, blob: BlobStream) -> Arc<Transfer> {
        let (phases, phase) = watch::channel(Phase::Waiting);
        let (users, wanted) = watch::channel(0);
        let used = Arc::new(AtomicBool::new(false));
        let transfer = Arc::new(Transfer { phase, users, used: Arc::clone(&used) });
        let slots = Arc::clone(&self.slots);
        let kept = Arc::clone(&transfer);
        tokio::spawn(async move {
            let result = download::run(store, blob, &slots, &phases, wanted.clone()).await;
            match result {
                Ok(lease) => phases.send_replace(Phase::Done(lease)),
                Err(error) => phases.send_replace(Phase::Failed(error.into())),
            };
            // Whoever comes a little later finds the layer here, and after that in the store.
            drop(kept);
            drop(wanted);
        });
        transfer
    }
}

impl Transfer {
    fn has_failed(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Failed(_))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Phase::Done(lease) = &*self.phase.borrow()
            && !self.used.load(Ordering::Relaxed)
        {
            lease.clone().leave_for_retry();
        }
    }
}

/// One client's part in a transfer; the transfer pauses when the last one is dropped.
#[derive(Debug)]
pub(crate) struct Participation {
    transfer: Arc<Transfer>,
}

impl Participation {
    fn new(transfer: Arc<Transfer>) -> Self {
        transfer.users.send_modify(|users| *users += 1);
        Self { transfer }
    }

    /// How far it is, now and later.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.transfer.phase.clone()
    }

    /// An image has the layer now.
    pub(crate) fn mark_used(&self) {
        self.transfer.used.store(true, Ordering::Relaxed);
    }
}

impl Drop for Participation {
    fn drop(&mut self) {
        self.transfer.users.send_modify(|users| *users -= 1);
    }
}

/// Waits until somebody wants the transfer.
///
/// # Errors
/// Where nobody does for [`PAUSE_MAX`].
pub(super) async fn wanted(users: &mut watch::Receiver<usize>) -> Result<()> {
    match tokio::time::timeout(PAUSE_MAX, users.wait_for(|users| *users > 0)).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(crate::EngineError::internal("the download was cancelled")),
    }
}
