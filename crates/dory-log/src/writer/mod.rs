//! The shim's side: bytes in, records out.

mod compress;
mod files;
mod queue;
mod sink;

use std::os::fd::BorrowedFd;

use crate::config::{LogConfig, LogFormat};
use crate::error::LogError;
use crate::frame::Stream;
use crate::json::{LineText, MAX_LINE, RecordEncoder};
use crate::local;
use crate::timestamp::Timestamp;

pub use files::LogFiles;
pub use queue::RecordQueue;

/// Writes the log of one container.
///
/// Bytes without a newline are kept until the newline comes, [`MAX_LINE`] bytes are together, or the stream is
/// closed; until then a killed writer loses them, as dockerd does.
#[derive(Debug)]
pub struct LogWriter {
    target: Target,
    lines: [PendingLine; 3],
    encoder: Encoder,
}

/// Where records go.
#[derive(Debug)]
enum Target {
    Nothing,
    Files(Box<LogFiles>),
    Queue(RecordQueue),
}

/// The unfinished line of one stream.
#[derive(Debug, Default)]
struct PendingLine {
    bytes: Vec<u8>,
    /// When the line's first part was written, once a part was: all parts carry that time, as with dockerd.
    started: Option<Timestamp>,
}

impl LogWriter {
    /// Opens the log `name` in `dir`, creating it or appending to it; a torn last line is cut off.
    ///
    /// # Errors
    /// [`LogError::Open`], [`LogError::Stat`] or [`LogError::Repair`].
    pub fn open(dir: BorrowedFd<'_>, name: &str, config: &LogConfig) -> Result<Self, LogError> {
        let files = LogFiles::open(dir, name, config)?;
        Ok(Self::new(files.map_or(Target::Nothing, |files| Target::Files(Box::new(files))), config))
    }

    /// A writer that never waits: its records gather in a queue of `limit` bytes, from which somebody brings them to
    /// [`LogFiles`].
    pub fn queueing(config: &LogConfig, limit: u64) -> Self {
        Self::new(Target::Queue(RecordQueue::new(limit)), config)
    }

    fn new(target: Target, config: &LogConfig) -> Self {
        let encoder = match config.driver.files() {
            Some((LogFormat::Local, _)) => Encoder::Local,
            _ => Encoder::Json(RecordEncoder::new(&config.attributes)),
        };
        Self { target, lines: Default::default(), encoder }
    }

    /// The queue of [`Self::queueing`].
    pub fn queue(&mut self) -> Option<&mut RecordQueue> {
        match &mut self.target {
            Target::Queue(queue) => Some(queue),
            Target::Nothing | Target::Files(_) => None,
        }
    }

    /// Logs `bytes` that `stream` produced at `time`; one write per call, unless the file is rotated meanwhile.
    ///
    /// # Errors
    /// [`LogError::Write`] if records were lost (the disk is full), [`LogError::Rotate`] if the file could not be
    /// rotated and grows instead. Either way the file holds whole records only, and the next call starts afresh.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], time: Timestamp) -> Result<(), LogError> {
        if matches!(self.target, Target::Nothing) {
            return Ok(());
        }
        let mut outcome = Ok(());
        let mut rest = bytes;
        while let Some(newline) = rest.iter().position(|&byte| byte == b'\n') {
            let line = &rest[..newline];
            rest = &rest[newline + 1..];
            outcome = outcome.and(self.append(stream, line, true, time));
        }
        if !rest.is_empty() {
            outcome = outcome.and(self.append(stream, rest, false, time));
        }
        outcome.and(self.flush())
    }

    /// Logs what `stream` left unfinished; for the end of the stream.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn close(&mut self, stream: Stream, time: Timestamp) -> Result<(), LogError> {
        let line = &mut self.lines[stream as usize];
        let (bytes, started) = (std::mem::take(&mut line.bytes), line.started.take());
        if bytes.is_empty() || matches!(self.target, Target::Nothing) {
            return Ok(());
        }
        self.record(stream, &bytes, false, started.unwrap_or(time)).and(self.flush())
    }

    /// True where a rotated file waits to be compressed: [`Self::work`] is to be called when there is nothing else to do.
    /// Writing does some of it too, so that a container that never pauses needs no other time for it.
    pub fn has_work(&self) -> bool {
        matches!(&self.target, Target::Files(files) if files.has_work())
    }

    /// Does a piece of what [`Self::has_work`] speaks of, within a few milliseconds.
    pub fn work(&mut self) {
        if let Target::Files(files) = &mut self.target {
            files.work();
        }
    }

    /// Adds a piece of a line, and its end if `complete`.
    fn append(
        &mut self,
        stream: Stream,
        piece: &[u8],
        complete: bool,
        time: Timestamp,
    ) -> Result<(), LogError> {
        let mut line = std::mem::take(&mut self.lines[stream as usize]);
        let outcome = self.append_to(&mut line, stream, piece, complete, time);
        self.lines[stream as usize] = line;
        outcome
    }

    fn append_to(
        &mut self,
        line: &mut PendingLine,
        stream: Stream,
        mut piece: &[u8],
        complete: bool,
        time: Timestamp,
    ) -> Result<(), LogError> {
        let mut outcome = Ok(());
        while line.bytes.len() + piece.len() >= MAX_LINE {
            let (head, rest) = piece.split_at(MAX_LINE - line.bytes.len());
            piece = rest;
            let started = *line.started.get_or_insert(time);
            let part = if line.bytes.is_empty() {
                head
            } else {
                line.bytes.extend_from_slice(head);
                &line.bytes
            };
            outcome = outcome.and(self.record(stream, part, false, started));
            line.bytes.clear();
        }
        if !complete {
            line.bytes.extend_from_slice(piece);
            return outcome;
        }
        let started = line.started.take().unwrap_or(time);
        if line.bytes.is_empty() {
            return outcome.and(self.record(stream, piece, true, started));
        }
        line.bytes.extend_from_slice(piece);
        outcome = outcome.and(self.record(stream, &line.bytes, true, started));
        line.bytes.clear();
        outcome
    }

    /// Hands one record on.
    fn record(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        complete: bool,
        time: Timestamp,
    ) -> Result<(), LogError> {
        let text = LineText { bytes, complete };
        let encoder = &mut self.encoder;
        let encode = |record: &mut Vec<u8>| match encoder {
            Encoder::Json(encoder) => encoder.append(record, stream, text, time),
            Encoder::Local => local::append(record, stream, text, time),
        };
        match &mut self.target {
            Target::Nothing => Ok(()),
            Target::Files(files) => files.add(encode),
            Target::Queue(queue) => {
                queue.add(bytes.len(), encode);
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        match &mut self.target {
            Target::Files(files) => files.flush(),
            Target::Nothing | Target::Queue(_) => Ok(()),
        }
    }
}

/// The form of records.
#[derive(Debug)]
enum Encoder {
    Json(RecordEncoder),
    Local,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FileOptions, LogDriver};
    use std::fs;
    use std::os::fd::{AsFd, OwnedFd};

    struct Log {
        directory: tempfile::TempDir,
        fd: OwnedFd,
    }

    impl Log {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let fd = fs::File::open(directory.path()).unwrap().into();
            Self { directory, fd }
        }

        fn open(&self, config: &LogConfig) -> LogWriter {
            LogWriter::open(self.fd.as_fd(), "log", config).unwrap()
        }

        /// The texts of the records in one file.
        fn texts(&self, name: &str) -> Vec<String> {
            let content = fs::read_to_string(self.directory.path().join(name)).unwrap();
            assert!(content.is_empty() || content.ends_with('\n'));
            content
                .lines()
                .map(|line| crate::json::StoredRecord::parse(line.as_bytes()).unwrap().0.log.into_owned())
                .collect()
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds, 0).unwrap()
    }

    fn rotating(max_size: u64, max_file: u32) -> LogConfig {
        let driver = LogDriver::JsonFile(FileOptions { max_size: Some(max_size), max_file, compress: false });
        LogConfig { driver, ..Default::default() }
    }

    #[test]
    fn keeps_partial_lines_per_stream_until_they_end() {
        let log = Log::new();
        let mut writer = log.open(&LogConfig::default());
        writer.write(Stream::Stdout, b"a\nb", at(1)).unwrap();
        writer.write(Stream::Stderr, b"e", at(2)).unwrap();
        writer.write(Stream::Stdout, b"c\n\nrest", at(3)).unwrap();
        assert_eq!(log.texts("log"), ["a\n", "bc\n", "\n"]);
        writer.close(Stream::Stdout, at(4)).unwrap();
        writer.close(Stream::Stderr, at(4)).unwrap();
        writer.close(Stream::Stderr, at(4)).unwrap();
        assert_eq!(log.texts("log"), ["a\n", "bc\n", "\n", "rest", "e"]);
    }

    #[test]
    fn splits_long_lines_wherever_reads_fall() {
        for (length, expected) in [
            (MAX_LINE - 1, vec![MAX_LINE]),
            (MAX_LINE, vec![MAX_LINE, 1]),
            (MAX_LINE + 1, vec![MAX_LINE, 2]),
            (3 * MAX_LINE + 5, vec![MAX_LINE, MAX_LINE, MAX_LINE, 6]),
        ] {
            let mut line = vec![b'x'; length];
            line.push(b'\n');
            for piece in [1000, MAX_LINE, 1 << 20] {
                let log = Log::new();
                let mut writer = log.open(&LogConfig::default());
                for (index, part) in line.chunks(piece).enumerate() {
                    writer.write(Stream::Stdout, part, at(index as i64)).unwrap();
                }
                let lengths: Vec<_> = log.texts("log").iter().map(String::len).collect();
                assert_eq!(lengths, expected, "{length} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn parts_of_a_line_carry_its_first_time() {
        let log = Log::new();
        let mut writer = log.open(&LogConfig::default());
        writer.write(Stream::Stdout, &[b'x'; MAX_LINE], at(1)).unwrap();
        writer.write(Stream::Stdout, b"end\nnext\n", at(2)).unwrap();
        let content = fs::read_to_string(log.directory.path().join("log")).unwrap();
        let times: Vec<_> = content.lines().map(|line| &line[line.len() - 4..line.len() - 2]).collect();
        assert_eq!(times, ["1Z", "1Z", "2Z"]);
    }

    #[test]
    fn cuts_a_torn_line_and_appends() {
        for (before, after) in [
            ("", vec!["new\n"]),
            ("{\"log\":\"torn", vec!["new\n"]),
            (r#"{"log":"old\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}"#, vec!["new\n"]),
            (
                concat!(
                    r#"{"log":"old\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}"#,
                    "\n{\"log\":\"to"
                ),
                vec!["old\n", "new\n"],
            ),
        ] {
            let log = Log::new();
            fs::write(log.directory.path().join("log"), before).unwrap();
            log.open(&LogConfig::default()).write(Stream::Stdout, b"new\n", at(1)).unwrap();
            assert_eq!(log.texts("log"), after, "{before}");
        }
    }

    #[test]
    fn cuts_a_torn_line_longer_than_a_block() {
        let log = Log::new();
        let path = log.directory.path().join("log");
        let mut writer = log.open(&LogConfig::default());
        writer.write(Stream::Stdout, b"whole\n", at(1)).unwrap();
        let mut content = fs::read(&path).unwrap();
        content.extend([b'y'; 10_000]);
        fs::write(&path, content).unwrap();
        log.open(&LogConfig::default());
        assert_eq!(log.texts("log"), ["whole\n"]);
    }

    #[test]
    fn rotates_and_drops_the_oldest() {
        let log = Log::new();
        let mut writer = log.open(&rotating(60, 3));
        for line in ["1\n", "2\n", "3\n", "4\n5\n"] {
            writer.write(Stream::Stdout, line.as_bytes(), at(1)).unwrap();
        }
        assert_eq!(
            (log.texts("log"), log.texts("log.1"), log.texts("log.2")),
            (vec!["5\n".into()], vec!["4\n".into()], vec!["3\n".into()])
        );
        assert_eq!(fs::read_dir(log.directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_single_file_starts_afresh() {
        let log = Log::new();
        let mut writer = log.open(&rotating(60, 1));
        writer.write(Stream::Stdout, b"1\n2\n", at(1)).unwrap();
        assert_eq!(log.texts("log"), ["2\n"]);
        assert_eq!(fs::read_dir(log.directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn without_a_driver_nothing_is_written() {
        let log = Log::new();
        let mut writer = log.open(&LogConfig { driver: LogDriver::None, ..Default::default() });
        writer.write(Stream::Stdout, b"x\ny", at(1)).unwrap();
        writer.close(Stream::Stdout, at(1)).unwrap();
        assert_eq!(fs::read_dir(log.directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_full_disk_leaves_whole_records_only() {
        let log = Log::new();
        let mut writer = log.open(&LogConfig::default());
        // `/dev/full` answers ENOSPC to every write.
        let Target::Files(files) = &mut writer.target else { panic!("no files") };
        files.write_to(fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into());
        let error = writer.write(Stream::Stdout, b"lost\n", at(1)).unwrap_err();
        assert_eq!(error.to_string(), "cannot append to the log file `log`");
        let error = writer.write(Stream::Stdout, b"lost again\n", at(1)).unwrap_err();
        assert_eq!(error.to_string(), "cannot append to the log file `log`");
    }

    #[test]
    fn a_queue_drops_whole_records_that_find_no_room() {
        let config = LogConfig { buffer: Some(8), ..LogConfig::default() };
        let mut writer = LogWriter::queueing(&config, 8);
        // The first one is kept however long it is; the second has no room, the rest of the line comes with its end.
        writer.write(Stream::Stdout, b"ten bytes!\nlost\nta", at(1)).unwrap();
        let log = Log::new();
        let mut files = LogFiles::open(log.fd.as_fd(), "log", &config).unwrap().unwrap();
        let mut wire = Vec::new();
        let mut drain = |writer: &mut LogWriter, at_most: usize| {
            let queue = writer.queue().unwrap();
            queue
                .send(|bytes| {
                    let length = bytes.len().min(at_most - wire.len().min(at_most));
                    wire.extend_from_slice(&bytes[..length]);
                    Ok(length)
                })
                .unwrap();
            queue.is_empty()
        };
        assert!(!drain(&mut writer, 10));
        writer.write(Stream::Stdout, b"il\n", at(2)).unwrap();
        assert!(drain(&mut writer, usize::MAX), "what was sent has made no room before it was sent whole");
        writer.write(Stream::Stdout, b"a\nb\nc\n", at(3)).unwrap();
        assert!(drain(&mut writer, usize::MAX));
        let mut framed = Vec::new();
        for piece in wire.chunks(7) {
            framed.extend_from_slice(piece);
            files.append_framed(&mut framed).unwrap();
        }
        assert_eq!(log.texts("log"), ["ten bytes!\n", "a\n", "b\n", "c\n"]);
        assert!(framed.is_empty());
    }
}
