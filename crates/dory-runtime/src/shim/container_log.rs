//! The container's log, written here or by a recorder beside the shim.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use dory_log::{LogConfig, LogError, LogWriter, RecordQueue, Stream, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};

use crate::protocol::{self, Event, LOG_NAME};
use crate::recorder;

/// How long the end of a container waits for the rest of its log; as long as dockerd.
const END_TIME: Duration = Duration::from_secs(10);
/// A recorder that was killed is replaced at most so often.
const REPLACE_TIME: Duration = Duration::from_secs(1);

/// Where the container's output is kept.
#[derive(Debug)]
pub struct ContainerLog {
    writer: LogWriter,
    /// `mode=non-blocking`.
    recorder: Option<Recorder>,
}

/// The process beside the shim, and what it is started with.
#[derive(Debug)]
struct Recorder {
    config: LogConfig,
    directory: OwnedFd,
    running: Option<(UnixStream, Child)>,
    started: Instant,
}

impl ContainerLog {
    /// Opens the log in `directory`.
    ///
    /// # Errors
    /// A log that cannot be opened, and a recorder that cannot be started.
    pub fn open(directory: BorrowedFd<'_>, config: &LogConfig) -> io::Result<Self> {
        // For a recorder, too: a container whose log cannot be written does not start.
        let writer = LogWriter::open(directory, LOG_NAME, config).map_err(io::Error::other)?;
        let Some(limit) = config.buffer else { return Ok(Self { writer, recorder: None }) };
        let mut recorder = Recorder {
            config: config.clone(),
            directory: directory.try_clone_to_owned()?,
            running: None,
            started: Instant::now(),
        };
        recorder.start()?;
        Ok(Self { writer: LogWriter::queueing(config, limit), recorder: Some(recorder) })
    }

    /// As [`LogWriter::write`]; a recorder's failures come later, as events.
    ///
    /// # Errors
    /// As [`LogWriter::write`], and [`LogError::RecorderGone`] while there is no recorder.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], time: Timestamp) -> Result<(), LogError> {
        let outcome = self.writer.write(stream, bytes, time);
        outcome.and(self.send())
    }

    /// As [`LogWriter::close`].
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn close(&mut self, stream: Stream, time: Timestamp) -> Result<(), LogError> {
        let outcome = self.writer.close(stream, time);
        outcome.and(self.send())
    }

    /// As [`LogWriter::has_work`].
    pub fn has_work(&self) -> bool {
        self.writer.has_work()
    }

    /// As [`LogWriter::work`].
    pub fn work(&mut self) {
        self.writer.work();
    }

    /// The recorder's socket, and whether something waits to be sent there. It is readable when the recorder tells
    /// something or has gone: see [`Self::hear`].
    pub fn socket(&mut self) -> Option<(BorrowedFd<'_>, bool)> {
        let waits = self.writer.queue().is_some_and(|queue| !queue.is_empty());
        let (socket, _) = self.recorder.as_ref()?.running.as_ref()?;
        Some((socket.as_fd(), waits))
    }

    /// Sends what waits, as far as the recorder takes it; starts another one where it is gone.
    ///
    /// # Errors
    /// [`LogError::RecorderGone`]; what waits is kept.
    pub fn send(&mut self) -> Result<(), LogError> {
        let (Some(recorder), Some(queue)) = (&mut self.recorder, self.writer.queue()) else { return Ok(()) };
        if recorder.running.is_none() {
            if recorder.started.elapsed() < REPLACE_TIME {
                return Err(LogError::RecorderGone);
            }
            queue.begin_anew();
            recorder.start().map_err(|_| LogError::RecorderGone)?;
        }
        let Some((socket, _)) = &recorder.running else { return Err(LogError::RecorderGone) };
        // Where it fails the recorder has gone, which is heard of soon.
        send_queued(queue, socket).map_err(|_| LogError::RecorderGone)
    }

    /// What the recorder has to tell; an error where it has gone. To be called when its socket is readable and
    /// [`Self::socket`] is not watched any more, should it fail.
    ///
    /// # Errors
    /// [`LogError::RecorderGone`].
    pub fn hear(&mut self) -> Result<Event, LogError> {
        let Some(recorder) = &mut self.recorder else { return Err(LogError::RecorderGone) };
        let Some((socket, _)) = &recorder.running else { return Err(LogError::RecorderGone) };
        protocol::receive(socket).map(|(event, _)| event).map_err(|_| LogError::RecorderGone)
    }

    /// Lets go of a recorder that has gone.
    pub fn forget_recorder(&mut self) {
        if let Some((socket, mut child)) = self.recorder.as_mut().and_then(|recorder| recorder.running.take())
        {
            drop(socket);
            let _never_fails = child.wait();
        }
    }

    /// Waits for the recorder to write the rest; tells `heard` what it says meanwhile.
    ///
    /// # Errors
    /// [`LogError::RecorderLate`] and [`LogError::RecorderGone`]: the log lacks its end.
    pub fn finish(&mut self, heard: &mut dyn FnMut(Event)) -> Result<(), LogError> {
        let (Some(recorder), Some(queue)) = (&mut self.recorder, self.writer.queue()) else { return Ok(()) };
        let Some((socket, mut child)) = recorder.running.take() else { return Err(LogError::RecorderGone) };
        let deadline = Instant::now() + END_TIME;
        let mut told_end = false;
        loop {
            if queue.is_empty() && !told_end {
                told_end = true;
                // Fails where the recorder has gone, which the next lines find.
                let _gone = shutdown(&socket, Shutdown::Write);
            }
            let flags = if queue.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut descriptors = [PollFd::new(&socket, flags)];
            match poll(&mut descriptors, Some(&timeout)) {
                // The container is not held up any longer; the recorder ends by itself when it can.
                Ok(0) => return Err(LogError::RecorderLate),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Err(LogError::RecorderGone),
            }
            let ready = descriptors[0].revents();
            if ready.contains(PollFlags::OUT) {
                let _gone = send_queued(queue, &socket);
            }
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                match protocol::receive(&socket) {
                    Ok((event, _)) => heard(event),
                    Err(_) => break,
                }
            }
        }
        let _never_fails = child.wait();
        if queue.is_empty() { Ok(()) } else { Err(LogError::RecorderGone) }
    }
}

impl Recorder {
    fn start(&mut self) -> io::Result<()> {
        self.started = Instant::now();
        self.running = Some(recorder::spawn(&self.config, self.directory.as_fd())?);
        Ok(())
    }
}

/// Sends for as long as the socket takes something.
fn send_queued(queue: &mut RecordQueue, socket: &UnixStream) -> io::Result<()> {
    queue.send(|bytes| {
        loop {
            match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    })
}
