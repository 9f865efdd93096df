//! Word of changes in a log's directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify;
use rustix::io::Errno;

use crate::error::LogError;

/// A descriptor that becomes readable when something in a log's directory was written, created or renamed.
///
/// It may also become readable for nothing: it says "look again", not "there is a line". It must be made *before* the
/// reader reports [`crate::ReadOutcome::Pending`], or a line in between goes unnoticed.
#[derive(Debug)]
pub struct LogWatch {
    inotify: OwnedFd,
}

impl LogWatch {
    /// Watches `dir`. The descriptor does not block, and closes on exec.
    ///
    /// # Errors
    /// [`LogError::Watch`]; inotify instances are counted per user (128 by default), so a caller should fall back to
    /// looking again every 100 ms or so.
    pub fn new(dir: BorrowedFd<'_>) -> Result<Self, LogError> {
        use std::os::fd::AsRawFd;
        let watch_error = |source: Errno| LogError::Watch { source: source.into() };
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(watch_error)?;
        // inotify takes only paths; this one names the descriptor, whatever has become of the directory's own path.
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        let events =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, path, events).map_err(watch_error)?;
        Ok(Self { inotify })
    }

    /// Empties the descriptor; to be called when it is readable, before the log is read again.
    ///
    /// # Errors
    /// [`LogError::Watch`].
    pub fn clear(&self) -> Result<(), LogError> {
        let mut events = [0_u8; 4096];
        loop {
            match rustix::io::read(&self.inotify, &mut events) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(source) => return Err(LogError::Watch { source: source.into() }),
            }
        }
    }
}

impl AsFd for LogWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl std::os::fd::AsRawFd for LogWatch {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.inotify.as_raw_fd()
    }
}
