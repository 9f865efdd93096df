//! Whether the log takes what the container prints.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use dory_log::LogError;
use dory_types::with_causes;

use crate::protocol::{self, Event};

/// A full disk must not stop the container: what the log cannot keep is lost to it, not to the clients. But it is not
/// lost without a word: the engine hears when that begins and when it is over.
#[derive(Debug, Default)]
pub struct LogState {
    /// Writes that failed since the last one that succeeded.
    failures: u64,
}

impl LogState {
    /// Notes how a write ended, and tells `monitors` where that is news.
    pub fn note(&mut self, outcome: Result<(), LogError>, monitors: &mut BTreeMap<u64, UnixStream>) {
        let event = match outcome {
            Ok(()) if self.failures == 0 => return,
            Ok(()) => Event::LogRecovered { failures: std::mem::take(&mut self.failures) },
            Err(error) => {
                self.failures += 1;
                if self.failures > 1 {
                    return;
                }
                Event::LogFailed { message: with_causes(&error) }
            }
        };
        monitors.retain(|_, monitor| protocol::send(monitor, &event, &[]).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn tells_of_a_loss_once_and_of_its_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut monitors = BTreeMap::from([(1, ours)]);
        let mut state = LogState::default();
        let full = || LogError::Write { name: "log".into(), source: io::ErrorKind::StorageFull.into() };
        for outcome in [Ok(()), Err(full()), Err(full()), Ok(()), Ok(())] {
            state.note(outcome, &mut monitors);
        }
        drop(monitors);
        let told: Vec<Event> =
            std::iter::from_fn(|| protocol::receive(&theirs).ok()).map(|(event, _)| event).collect();
        let message = "cannot append to the log file `log`: no storage space".to_owned();
        assert_eq!(told, [Event::LogFailed { message }, Event::LogRecovered { failures: 2 }]);
    }
}
