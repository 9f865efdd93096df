//! `logs`: records read on a thread of their own, handed out as the API sends them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dory_log::{LogError, LogFormat, LogReader, LogWatch, ReadOptions, ReadOutcome, Record, Tail, header};
use dory_runtime::protocol::LOG_NAME;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;

use super::object::Container;
use super::request::LogOptions;
use super::streams::{ContainerLogs, LogStream};
use crate::engine::{Engine, blocking};
use crate::{EngineError, Result};

/// Bytes after which a chunk is handed out.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait for the client; a slow client makes the reader wait, never the container.
const CHUNKS: usize = 4;
/// How long a follower sleeps at most before it looks whether the container still runs.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl Engine {
    /// Reads a container's log.
    ///
    /// # Errors
    /// `Invalid` where neither stream is asked for, or the log driver keeps nothing.
    pub async fn container_logs(&self, reference: &str, options: LogOptions) -> Result<ContainerLogs> {
        let container = self.inner.registry.find(reference)?;
        if !(options.stdout || options.stderr) {
            return Err(EngineError::invalid("You must choose at least one stream"));
        }
        let record = container.record();
        let Some((format, _)) = record.log.driver.files() else {
            return Err(EngineError::invalid("configured logging driver does not support reading"));
        };
        let tty = record.config.tty;
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let follow = options.follow;
        // Before the client has its answer: whoever removes the container then takes nothing from it.
        let mut reading = blocking(move || Reading::open(container, format, options, sender)).await?;
        let read = move || {
            if let Err(error) = reading.run() {
                // A client that went away hears nothing of it.
                let _ = reading.sender.blocking_send(Err(error));
            }
        };
        if follow {
            // Hundreds of followers would take all of the runtime's threads for as long as their containers run.
            std::thread::Builder::new()
                .name("log-follower".to_owned())
                .spawn(read)
                .map_err(|error| EngineError::failed("cannot start a thread that follows the log", error))?;
        } else {
            self.inner.runtime().spawn_blocking(read);
        }
        Ok(ContainerLogs { tty, stream: LogStream { receiver } })
    }
}

struct Reading {
    container: Arc<Container>,
    options: LogOptions,
    tty: bool,
    sender: mpsc::Sender<Result<Bytes>>,
    chunk: BytesMut,
    watch: Option<LogWatch>,
    reader: LogReader,
}

impl Reading {
    fn open(
        container: Arc<Container>,
        format: LogFormat,
        options: LogOptions,
        sender: mpsc::Sender<Result<Bytes>>,
    ) -> Result<Self> {
        let directory = open_directory(&container)?;
        // Made before the first reading, so that no line falls between the two.
        let watch = if options.follow { LogWatch::new(directory.as_fd()).ok() } else { None };
        let reader = LogReader::open(directory.as_fd(), LOG_NAME, format, read_options(&options));
        let reader = reader.map_err(cannot_read)?;
        let tty = container.record().config.tty;
        Ok(Self { container, options, tty, sender, chunk: BytesMut::new(), watch, reader })
    }

    fn run(&mut self) -> Result<()> {
        let run = self.present_run();
        loop {
            // Looked at before the reading: what was written before the end is read after it.
            let ended = run.is_none() || self.present_run() != run || self.container.live().removed;
            loop {
                match self.reader.next().map_err(cannot_read)? {
                    ReadOutcome::Record(record) => append(&mut self.chunk, &record, &self.options, self.tty),
                    ReadOutcome::Pending => break,
                    ReadOutcome::End => {
                        self.flush();
                        return Ok(());
                    }
                }
                if self.chunk.len() >= CHUNK && !self.flush() {
                    return Ok(());
                }
            }
            if !self.flush() || !self.options.follow || ended || self.is_past_until() {
                return Ok(());
            }
            wait(self.watch.as_ref());
            if self.sender.is_closed() {
                return Ok(());
            }
        }
    }

    /// When the present run began: with it ends what is followed, whether or not another run comes, as with dockerd.
    fn present_run(&self) -> Option<dory_types::Timestamp> {
        let record = self.container.record();
        record.runs().then_some(record.state.started_at)
    }

    fn is_past_until(&self) -> bool {
        self.options.until.is_some_and(|until| until < dory_types::Timestamp::now())
    }

    /// Hands the chunk out; false where nobody listens any more.
    fn flush(&mut self) -> bool {
        self.chunk.is_empty() || self.sender.blocking_send(Ok(self.chunk.split().freeze())).is_ok()
    }
}

fn cannot_read(error: LogError) -> EngineError {
    EngineError::failed("cannot read the container's log", error)
}

fn open_directory(container: &Container) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&container.directory, flags, Mode::empty())
        .map_err(|error| EngineError::failed("cannot open the container's directory", error))
}

fn read_options(options: &LogOptions) -> ReadOptions {
    let time = |time: dory_types::Timestamp| {
        dory_log::Timestamp::from_unix(time.unix_seconds(), time.subsecond_nanoseconds())
    };
    ReadOptions {
        since: options.since.and_then(time),
        until: options.until.and_then(time),
        tail: options.tail.map_or(Tail::All, Tail::Last),
        stdout: options.stdout,
        stderr: options.stderr,
    }
}

/// Sleeps until the log may have grown; also where there is no watch to be had.
fn wait(watch: Option<&LogWatch>) {
    let Some(watch) = watch else {
        std::thread::sleep(Duration::from_millis(100));
        return;
    };
    let mut descriptors = [PollFd::new(watch, PollFlags::IN)];
    // Interrupted or not, the log is looked at again.
    let _ = poll(&mut descriptors, Some(&LOOK));
    if let Err(error) = watch.clear() {
        tracing::debug!(%error, "Cannot clear a log's watch");
    }
}

/// Appends one record in the form of `GET /containers/{id}/logs`.
fn append(chunk: &mut BytesMut, record: &Record<'_>, options: &LogOptions, tty: bool) {
    let start = chunk.len();
    if !tty {
        chunk.extend_from_slice(&header(record.stream, 0));
    }
    let body = chunk.len();
    let mut prefix = Vec::new();
    if options.timestamps {
        record.time.append_rfc3339_fixed(&mut prefix);
        prefix.push(b' ');
    }
    if options.details {
        let details: Vec<String> = record
            .attributes
            .iter()
            .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
            .collect();
        prefix.extend_from_slice(details.join(",").as_bytes());
        prefix.push(b' ');
    }
    chunk.extend_from_slice(&prefix);
    chunk.extend_from_slice(record.bytes);
    if !tty {
        let length = u32::try_from(chunk.len() - body).unwrap_or(u32::MAX);
        let header = header(record.stream, length);
        chunk[start..start + header.len()].copy_from_slice(&header);
    }
}

/// Go's `url.QueryEscape`, which dockerd applies to details.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            b' ' => escaped.push('+'),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dory_log::Stream;

    use super::*;

    #[test]
    fn frames_records() {
        let attributes = BTreeMap::from([("a b".to_owned(), "c/d".to_owned())]);
        let record = Record {
            stream: Stream::Stderr,
            time: dory_log::Timestamp::from_unix(0, 5).unwrap(),
            bytes: b"hi\n",
            attributes: &attributes,
        };
        let options = LogOptions { timestamps: true, details: true, ..LogOptions::default() };
        let text = b"1970-01-01T00:00:00.000000005Z a+b=c%2Fd hi\n";
        let mut chunk = BytesMut::new();
        append(&mut chunk, &record, &options, true);
        assert_eq!(&chunk[..], text);
        chunk.clear();
        append(&mut chunk, &record, &options, false);
        assert_eq!(&chunk[..8], [2, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()]);
        assert_eq!(&chunk[8..], text);
    }
}
