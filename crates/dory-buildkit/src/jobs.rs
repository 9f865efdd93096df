//! Builds under way and those that are over, by the references that clients chose for them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{BuildHistoryRecord, Exporter};
use dory_build::Cancel;
use dory_types::Timestamp;
use tokio::sync::{Notify, broadcast};

use crate::gateway::Bridge;
use crate::grpc::{Code, Status};
use crate::status::{StatusLog, to_timestamp};

/// How long a call waits for the build that it is about: clients begin all of them at the same time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Builds that are over and still told about, with their output.
const REMEMBERED: usize = 50;
/// Changes that a slow reader of the history may be behind.
const CHANGES: usize = 256;

/// One build.
#[derive(Debug)]
pub struct Job {
    reference: String,
    /// What it told.
    pub log: Arc<StatusLog>,
    /// Ends it.
    pub cancel: Cancel,
    /// Its client's half, where the client drives it.
    pub bridge: Bridge,
    record: Mutex<BuildHistoryRecord>,
}

impl Job {
    /// What the history says of it.
    pub fn record(&self) -> BuildHistoryRecord {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let counts = self.log.counts();
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        record.num_total_steps = number(counts.total);
        record.num_completed_steps = number(counts.completed);
        record.num_cached_steps = number(counts.cached);
        record.num_warnings = number(counts.warnings);
        record
    }

    fn update(&self, change: impl FnOnce(&mut BuildHistoryRecord)) {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        record.generation += 1;
    }

    /// Whether it is over.
    fn is_over(&self) -> bool {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).completed_at.is_some()
    }
}

/// A change of the history.
#[derive(Debug, Clone)]
pub enum Change {
    /// The build began, or is over.
    Is(Arc<Job>),
    /// It was forgotten.
    Gone(String),
}

/// All builds that are known; clones share them.
#[derive(Debug, Clone)]
pub struct Jobs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    opened: Notify,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug, Default)]
struct Known {
    jobs: HashMap<String, Arc<Job>>,
    /// Those that are over, the oldest first.
    over: VecDeque<String>,
}

impl Default for Jobs {
    fn default() -> Self {
        let changes = broadcast::Sender::new(CHANGES);
        Self(Arc::new(Shared { known: Mutex::default(), opened: Notify::new(), changes }))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: Change) {
        // Nobody may be listening.
        let _ = self.changes.send(change);
    }
}

impl Jobs {
    /// Begins a build under the client's reference for it.
    ///
    /// # Errors
    /// [`Code::AlreadyExists`] where a build has it already.
    pub fn begin(&self, reference: &str, record: BuildHistoryRecord) -> Result<Running, Status> {
        let job = Arc::new(Job {
            reference: reference.to_owned(),
            log: Arc::default(),
            cancel: Cancel::new(),
            bridge: Bridge::default(),
            record: Mutex::new(record),
        });
        job.update(|record| {
            reference.clone_into(&mut record.r#ref);
            record.created_at = Some(to_timestamp(Timestamp::now()));
        });
        let mut known = self.0.lock();
        if known.jobs.contains_key(reference) {
            return Err(Status::new(Code::AlreadyExists, format!("a build `{reference}` exists already")));
        }
        known.jobs.insert(reference.to_owned(), job.clone());
        drop(known);
        self.0.opened.notify_waiters();
        self.0.tell(Change::Is(job.clone()));
        Ok(Running { shared: self.0.clone(), job })
    }

    /// The build `reference`, where there is one already.
    pub fn find(&self, reference: &str) -> Option<Arc<Job>> {
        self.0.lock().jobs.get(reference).cloned()
    }

    /// The build `reference`, which may be about to begin.
    ///
    /// # Errors
    /// [`Code::NotFound`] where it does not begin in time.
    pub async fn get(&self, reference: &str) -> Result<Arc<Job>, Status> {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let opened = self.0.opened.notified();
                tokio::pin!(opened);
                opened.as_mut().enable();
                if let Some(job) = self.0.lock().jobs.get(reference) {
                    return job.clone();
                }
                opened.await;
            }
        });
        found.await.map_err(|_| Status::new(Code::NotFound, format!("no such build: {reference}")))
    }

    /// All of them, the oldest first, and what changes from now on.
    pub fn history(&self) -> (Vec<Arc<Job>>, broadcast::Receiver<Change>) {
        let known = self.0.lock();
        let changes = self.0.changes.subscribe();
        let mut jobs: Vec<_> = known.jobs.values().cloned().collect();
        drop(known);
        jobs.sort_by_key(|job| job.record().created_at.map(|time| (time.seconds, time.nanos)));
        (jobs, changes)
    }

    /// Forgets a build that is over.
    ///
    /// # Errors
    /// [`Code::NotFound`] where there is none, [`Code::FailedPrecondition`] where it is under way.
    pub fn forget(&self, reference: &str) -> Result<(), Status> {
        let mut known = self.0.lock();
        match known.jobs.get(reference).map(|job| job.is_over()) {
            None => return Err(Status::new(Code::NotFound, format!("no such build: {reference}"))),
            Some(false) => {
                let text = format!("the build `{reference}` is under way");
                return Err(Status::new(Code::FailedPrecondition, text));
            }
            Some(true) => {}
        }
        known.jobs.remove(reference);
        known.over.retain(|other| other != reference);
        drop(known);
        self.0.tell(Change::Gone(reference.to_owned()));
        Ok(())
    }

    /// Keeps a build that is over from being forgotten by itself, or does so no longer.
    ///
    /// # Errors
    /// [`Code::NotFound`] where there is none.
    pub fn pin(&self, reference: &str, pinned: bool) -> Result<(), Status> {
        let Some(job) = self.0.lock().jobs.get(reference).cloned() else {
            return Err(Status::new(Code::NotFound, format!("no such build: {reference}")));
        };
        job.update(|record| record.pinned = pinned);
        self.0.tell(Change::Is(job));
        Ok(())
    }
}

/// A build under way. It is over when this is dropped, whatever the reason, and cancelled where nobody said how it ended.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    job: Arc<Job>,
}

impl Running {
    /// The build.
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// Says how it ended.
    pub fn end(self, result: &Result<HashMap<String, String>, Status>) {
        self.job.update(|record| match result {
            Ok(response) => record.exporter_response.clone_from(response),
            Err(status) => record.error = Some(status.to_message()),
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever still works for it stops: at a regular end nobody does.
        self.job.cancel.cancel();
        self.job.log.end();
        self.job.update(|record| record.completed_at = Some(to_timestamp(Timestamp::now())));
        let mut known = self.shared.lock();
        known.over.push_back(self.job.reference.clone());
        let mut gone = Vec::new();
        while known.over.len() > REMEMBERED {
            let is_pinned =
                |reference: &String| known.jobs.get(reference).is_some_and(|job| job.record().pinned);
            let Some(oldest) = known.over.iter().position(|reference| !is_pinned(reference)) else { break };
            if let Some(reference) = known.over.remove(oldest) {
                known.jobs.remove(&reference);
                gone.push(reference);
            }
        }
        drop(known);
        self.shared.tell(Change::Is(self.job.clone()));
        for reference in gone {
            self.shared.tell(Change::Gone(reference));
        }
    }
}

/// What the history says of a build from its beginning.
pub fn record(
    frontend: &str,
    attributes: &HashMap<String, String>,
    exporters: &[Exporter],
) -> BuildHistoryRecord {
    BuildHistoryRecord {
        frontend: frontend.to_owned(),
        frontend_attrs: attributes.clone(),
        exporters: exporters.to_vec(),
        ..BuildHistoryRecord::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn builds_are_found_while_and_after_they_run() {
        let jobs = Jobs::default();
        let waiting = tokio::spawn({
            let jobs = jobs.clone();
            async move { jobs.get("a").await }
        });
        tokio::task::yield_now().await;
        let running = jobs.begin("a", BuildHistoryRecord::default()).unwrap();
        assert_eq!(jobs.begin("a", BuildHistoryRecord::default()).unwrap_err().code(), Code::AlreadyExists);
        let job = waiting.await.unwrap().unwrap();
        assert_eq!(jobs.forget("a").unwrap_err().code(), Code::FailedPrecondition);
        running.end(&Err(Status::unknown("broken")));
        assert!(job.cancel.is_cancelled() && job.is_over());
        assert_eq!(jobs.get("a").await.unwrap().record().error.unwrap().message, "broken");
        jobs.forget("a").unwrap();
        assert!(jobs.history().0.is_empty());
    }

    #[tokio::test]
    async fn old_builds_are_forgotten_unless_they_are_pinned() {
        let jobs = Jobs::default();
        for number in 0..REMEMBERED + 2 {
            drop(jobs.begin(&number.to_string(), BuildHistoryRecord::default()).unwrap());
            if number == 0 {
                jobs.pin("0", true).unwrap();
            }
        }
        let known: Vec<_> = jobs.history().0.iter().map(|job| job.reference.clone()).collect();
        assert_eq!(known.len(), REMEMBERED);
        assert!(known.contains(&"0".to_owned()) && !known.contains(&"1".to_owned()));
    }
}
