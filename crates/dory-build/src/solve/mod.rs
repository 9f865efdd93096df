//! The solver: stages on threads of their own, each line in its stage's order, results by key.
//!
//! ```text
//!  stage ─▶ its base (another stage: waits) ─▶ line ─▶ key ─▶ cached? ─▶ layer
//!                                                     │         no: somebody makes it right now? waits
//!                                                     │             else: makes it, with one of a few slots
//! ```
//!
//! A stage that fails lets the others finish what they have begun, and the first failure in the file's order is told.

mod add;
mod caches;
mod checks;
pub(crate) mod flights;
mod history;
mod mounts;
mod run;
mod sources;
mod stage;
mod telling;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use dory_registry::Platform;
use dory_store::{ImageConfig, LayerLease};

use crate::builder::Builder;
use crate::cancel::Cancel;
use crate::error::{BuildError, StepError};
use crate::graph::{Plan, Scope};
use crate::request::Request;
pub(crate) use checks::Checks;
pub(crate) use sources::Sources;
pub(crate) use telling::Teller;

/// What a stage came to.
#[derive(Debug, Clone)]
pub(crate) struct StageResult {
    pub(crate) config: ImageConfig,
    /// The lowest first.
    pub(crate) layers: Vec<LayerLease>,
    /// Everything in it was there before.
    pub(crate) cached: bool,
    /// The keys of the cached results that it is made of, the lowest layer first; `None` for the base's.
    pub(crate) keys: Vec<Option<dory_types::Digest>>,
    /// Its arguments, which stages upon it see too.
    pub(crate) args: Scope,
}

/// One platform's solution.
#[derive(Debug)]
pub(crate) struct Solver<'a> {
    pub(crate) builder: &'a Builder,
    pub(crate) request: &'a Request,
    pub(crate) plan: &'a Plan,
    pub(crate) platform: Platform,
    pub(crate) sources: &'a Sources<'a>,
    pub(crate) teller: &'a Teller,
    pub(crate) cancel: &'a Cancel,
    done: Mutex<BTreeMap<usize, Result<Arc<StageResult>, BuildError>>>,
    changed: Condvar,
}

impl<'a> Solver<'a> {
    pub(crate) fn new(
        builder: &'a Builder,
        request: &'a Request,
        plan: &'a Plan,
        platform: Platform,
        sources: &'a Sources<'a>,
        teller: &'a Teller,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            builder,
            request,
            plan,
            platform,
            sources,
            teller,
            cancel,
            done: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Solves the target, and everything that it needs.
    pub(crate) fn solve(&self) -> Result<Arc<StageResult>, BuildError> {
        let needed: Vec<usize> = self.plan.needed.iter().copied().collect();
        std::thread::scope(|scope| {
            for &index in &needed {
                scope.spawn(move || {
                    let result = stage::solve(self, index).map(Arc::new);
                    self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, result);
                    self.changed.notify_all();
                });
            }
        });
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        // A stage that waited for one that failed has the same error.
        for result in done.values() {
            if let Err(error) = result {
                return Err(error.clone());
            }
        }
        match done.get(&self.plan.target) {
            Some(Ok(result)) => Ok(Arc::clone(result)),
            _ => Err(BuildError::Cancelled),
        }
    }

    /// Waits for a stage. The error is the stage's own.
    pub(crate) fn stage(&self, index: usize) -> Result<Arc<StageResult>, BuildError> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = done.get(&index) {
                return result.clone();
            }
            done = self.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Fails where nobody wants the result any more.
    pub(crate) fn check_cancelled(&self) -> Result<(), StepError> {
        if self.cancel.is_cancelled() { Err(StepError::Cancelled) } else { Ok(()) }
    }
}
