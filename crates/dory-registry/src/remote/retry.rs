//! How long to wait before the next try.

use std::time::Duration;

use crate::error::RegistryError;

/// The first wait, and the longest.
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(10);
/// A registry that wants to be left alone for longer than this is left alone for good: people get to read why.
const WAIT_REQUESTED_MAX: Duration = Duration::from_secs(30);

/// Waits that double, each with some chance in it, so that a crowd does not come back as one.
#[derive(Debug)]
pub(crate) struct Backoff {
    wait: Duration,
    failures: u32,
    attempts_max: u32,
}

impl Backoff {
    /// Gives up after `attempts_max` failures in a row.
    pub(crate) fn new(attempts_max: u32) -> Self {
        Self { wait: WAIT_FIRST, failures: 0, attempts_max: attempts_max.max(1) }
    }

    /// Failures so far.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Something went well: the next failure is the first one again.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.attempts_max);
    }

    /// Waits after a failure; false where there is no further try.
    pub(crate) async fn wait(&mut self, requested: Option<Duration>) -> bool {
        self.failures += 1;
        if self.failures >= self.attempts_max || requested.is_some_and(|wait| wait > WAIT_REQUESTED_MAX) {
            return false;
        }
        tokio::time::sleep(requested.unwrap_or_default().max(jittered(self.wait))).await;
        self.wait = (self.wait * 2).min(WAIT_MAX);
        true
    }
}

/// Somewhere between half of `wait` and all of it.
fn jittered(wait: Duration) -> Duration {
    let mut bytes = [0; 2];
    // Without entropy everybody waits as long, which is only less kind.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    wait.mul_f64(0.5 + f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX) / 2.0)
}

/// Does `work` again while it fails in a way that passes, at most `attempts_max` times.
pub(crate) async fn retrying<T, F: Future<Output = Result<T, RegistryError>>>(
    attempts_max: u32,
    mut work: impl FnMut() -> F,
) -> Result<T, RegistryError> {
    let mut backoff = Backoff::new(attempts_max);
    loop {
        match work().await {
            Err(error) if error.is_temporary() => {
                tracing::debug!(%error, "Registry request failed");
                if !backoff.wait(error.retry_after()).await {
                    return Err(error);
                }
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gives_up_in_the_end() {
        let mut backoff = Backoff::new(3);
        let begin = tokio::time::Instant::now();
        assert!(backoff.wait(None).await && backoff.wait(None).await);
        let waited = begin.elapsed();
        assert!(waited >= Duration::from_millis(750) && waited <= Duration::from_millis(1501), "{waited:?}");
        assert!(!backoff.wait(None).await);
        backoff.reset();
        assert!(backoff.wait(Some(Duration::from_secs(20))).await);
        assert!(begin.elapsed() >= Duration::from_secs(20));
        assert!(!backoff.wait(Some(Duration::from_secs(3600))).await);
    }
}
