//! A container in memory.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dory_runtime::ShimClient;
use dory_store::{Durability, RecordError, read_record, write_record};
use dory_types::{ContainerId, ExecId};
use rustix::fs::{Mode, OFlags};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::task::AbortHandle;

use super::record::{RECORD_NAME, Record};
use super::request::{WaitCondition, WaitOutcome};
use crate::{EngineError, Result};

/// A container. Lock order: `lifecycle`, `writer`, `live`, `record`; the last two are held for moments only, never
/// across I/O.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    /// In the data-root.
    pub(crate) directory: PathBuf,
    /// In the exec-root.
    pub(crate) runtime_directory: PathBuf,
    /// Excludes lifecycle operations of this container from one another. The exit of its process does not take it:
    /// a stop waits for that exit while it holds the lock.
    pub(crate) lifecycle: AsyncMutex<()>,
    /// Held from a signal to its `kill` event, and for `die`: however soon a process ends of a signal, what killed it
    /// is told first. Taken last, and never while something waits for the end.
    pub(crate) telling: AsyncMutex<()>,
    record: Mutex<Arc<Record>>,
    /// Orders the versions on the disk.
    writer: Mutex<()>,
    live: Mutex<Live>,
}

/// What only a living engine knows.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// The shim's socket takes attachments.
    pub(crate) attachable: bool,
    /// Clients that came before the start.
    pub(crate) pending: Vec<PendingAttachment>,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) execs: Vec<ExecId>,
    /// The next start by the restart policy.
    pub(crate) restart: Option<AbortHandle>,
    /// The task that checks its health.
    pub(crate) health: Option<AbortHandle>,
    /// How long the next restart waits.
    pub(crate) backoff: std::time::Duration,
    /// Its directory is gone, or is about to go: nothing is written there any more.
    pub(crate) removed: bool,
}

/// A client that waits for the streams.
#[derive(Debug)]
pub(crate) struct PendingAttachment {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) sender: oneshot::Sender<UnixStream>,
}

/// A client that waits for the end.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) condition: WaitCondition,
    pub(crate) sender: oneshot::Sender<WaitOutcome>,
}

impl Container {
    pub(crate) fn new(record: Record, directory: PathBuf, runtime_directory: PathBuf) -> Self {
        Self {
            id: record.id.clone(),
            directory,
            runtime_directory,
            lifecycle: AsyncMutex::new(()),
            telling: AsyncMutex::new(()),
            record: Mutex::new(Arc::new(record)),
            writer: Mutex::new(()),
            live: Mutex::default(),
        }
    }

    /// Reads the record in `directory`; `None` where there is none.
    pub(crate) fn read(directory: PathBuf, runtime_directory: PathBuf) -> Result<Option<Self>, RecordError> {
        let read = |source: rustix::io::Errno| RecordError::Read {
            name: RECORD_NAME.to_owned(),
            source: source.into(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&directory, flags, Mode::empty()).map_err(read)?;
        let record: Option<Record> = read_record(&opened, RECORD_NAME)?;
        if let Err(error) = dory_store::remove_temporaries(&opened) {
            tracing::warn!(directory = %directory.display(), %error, "Cannot remove what a killed engine left");
        }
        Ok(record.map(|record| Self::new(record, directory, runtime_directory)))
    }

    /// The present version of the record.
    pub(crate) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the record in memory.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut record))
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the present version to the disk; blocks. It survives this process's death, not a power cut.
    pub(crate) fn save(&self) -> Result<()> {
        let _order = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.live().removed {
            return Ok(());
        }
        let failed = |error| EngineError::failed("cannot write the container's record", error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.directory, flags, Mode::empty()).map_err(|errno| {
            failed(RecordError::Write { name: RECORD_NAME.to_owned(), source: errno.into() })
        })?;
        write_record(directory, RECORD_NAME, &*self.record(), Durability::Unsynced).map_err(failed)
    }

    /// Waits until the disk has the record and its directory; blocks. Gone meanwhile is no error.
    pub(crate) fn sync(&self) {
        for path in [self.directory.join(RECORD_NAME), self.directory.clone()] {
            if let Ok(file) = std::fs::File::open(path)
                && let Err(error) = file.sync_all()
            {
                tracing::warn!(container.id = %self.id, %error, "Cannot sync a container's record");
            }
        }
    }

    pub(crate) fn shim(&self) -> ShimClient {
        ShimClient::new(&self.runtime_directory)
    }

    /// Registers a wait; `None` where the condition holds already.
    pub(crate) fn wait(&self, condition: WaitCondition) -> oneshot::Receiver<WaitOutcome> {
        let (sender, receiver) = oneshot::channel();
        let mut live = self.live();
        let record = self.record();
        let holds = match condition {
            WaitCondition::NotRunning => !record.runs() || live.removed,
            WaitCondition::NextExit => live.removed,
            WaitCondition::Removed => live.removed,
        };
        if holds {
            // The receiver is at hand: it cannot be gone.
            let _ = sender.send(outcome(&record));
        } else {
            live.waiters.push(Waiter { condition, sender });
        }
        receiver
    }

    /// Tells everybody who waits for the end of a run; to be called after the state says so.
    pub(crate) fn notify_exit(&self) {
        let outcome = outcome(&self.record());
        self.notify(&outcome, |condition| condition != WaitCondition::Removed);
    }

    /// Tells everybody, because there will be no other end.
    pub(crate) fn notify_removed(&self) {
        // An error here would be the removal's: why a start failed was said to whoever started it.
        let outcome = WaitOutcome { error: String::new(), ..outcome(&self.record()) };
        self.notify(&outcome, |_| true);
    }

    fn notify(&self, outcome: &WaitOutcome, concerned: impl Fn(WaitCondition) -> bool) {
        let mut live = self.live();
        let waiters = std::mem::take(&mut live.waiters);
        let (told, kept) = waiters.into_iter().partition(|waiter| concerned(waiter.condition));
        live.waiters = kept;
        drop(live);
        let told: Vec<Waiter> = told;
        for waiter in told {
            // A client that went away needs no answer.
            let _ = waiter.sender.send(outcome.clone());
        }
    }

    /// Forgets the next start by the restart policy; true where there was one.
    pub(crate) fn cancel_restart(&self) -> bool {
        let restart = self.live().restart.take();
        restart.inspect(AbortHandle::abort).is_some()
    }
}

fn outcome(record: &Record) -> WaitOutcome {
    WaitOutcome { exit_code: record.state.exit_code, error: record.state.error.clone() }
}
