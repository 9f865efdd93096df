//! What is being made right now: whoever needs the same waits for it, and a few at a time work.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use dory_types::Digest;

use crate::cancel::Cancel;
use crate::error::StepError;

/// How often a wait looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// The keys in work, by all builds of this process, and how many of them work.
#[derive(Debug)]
pub(crate) struct Flights {
    state: Mutex<State>,
    changed: Condvar,
    slots: usize,
}

#[derive(Debug, Default)]
struct State {
    keys: HashSet<Digest>,
    working: usize,
}

/// A key that is in this one's hands until it is dropped.
#[derive(Debug)]
pub(crate) struct Flight<'a> {
    flights: &'a Flights,
    key: Digest,
}

/// A place among those who work.
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Flights);

impl Flights {
    pub(crate) fn new(slots: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), slots }
    }

    /// Waits until nobody else makes `key`.
    pub(crate) fn begin(&self, key: Digest, cancel: &Cancel) -> Result<Flight<'_>, StepError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.keys.insert(key) {
            if cancel.is_cancelled() {
                return Err(StepError::Cancelled);
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(Flight { flights: self, key })
    }

    /// Waits for a place.
    pub(crate) fn slot(&self, cancel: &Cancel) -> Result<Slot<'_>, StepError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.working >= self.slots {
            if cancel.is_cancelled() {
                return Err(StepError::Cancelled);
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.working += 1;
        Ok(Slot(self))
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.flights.state.lock().unwrap_or_else(PoisonError::into_inner).keys.remove(&self.key);
        self.flights.changed.notify_all();
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).working -= 1;
        self.0.changed.notify_all();
    }
}
