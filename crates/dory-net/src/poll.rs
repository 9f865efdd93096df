//! Waiting for many sockets, without ever spinning.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Waits until one of `sockets` is ready, a signal comes, or it is `deadline`.
pub(crate) fn wait(sockets: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
    let timeout = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
    });
    match poll(sockets, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A pause for listeners that could not accept. One that cannot for want of descriptors stays ready all the same, and a
/// loop that asked it again at once would do nothing else.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    until: Option<Instant>,
}

impl Pause {
    /// How long it takes.
    const LENGTH: Duration = Duration::from_millis(100);

    /// Begins where `error` says more than that nobody is there.
    pub(crate) fn consider(&mut self, error: &io::Error, now: Instant) {
        if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
            self.until = Some(now + Self::LENGTH);
        }
    }

    /// What to wait for at a listener. Ends the pause when its time has come.
    pub(crate) fn interest(&mut self) -> PollFlags {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            self.until = None;
        }
        if self.until.is_some() { PollFlags::empty() } else { PollFlags::IN }
    }

    /// When it ends.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_for_real_errors_and_ends() {
        let mut pause = Pause::default();
        pause.consider(&io::ErrorKind::WouldBlock.into(), Instant::now());
        assert_eq!(pause.interest(), PollFlags::IN);
        pause.consider(&io::ErrorKind::OutOfMemory.into(), Instant::now());
        assert_eq!(pause.interest(), PollFlags::empty());
        pause.until = Some(Instant::now());
        assert_eq!((pause.interest(), pause.deadline()), (PollFlags::IN, None));
    }
}
