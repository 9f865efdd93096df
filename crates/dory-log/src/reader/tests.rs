//! The reader against the writer, and against files that something else damaged.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::*;
use crate::config::{FileOptions, LogConfig, LogDriver};
use crate::frames::{BLOCK, LONGEST_LINE};
use crate::writer::LogWriter;

struct Log {
    directory: tempfile::TempDir,
    fd: OwnedFd,
    format: LogFormat,
    compress: bool,
}

impl Log {
    fn new() -> Self {
        Self::of(LogFormat::Json, false)
    }

    fn of(format: LogFormat, compress: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fd = fs::File::open(directory.path()).unwrap().into();
        Self { directory, fd, format, compress }
    }

    /// A log of each form, with and without compression.
    fn all() -> impl Iterator<Item = Self> {
        [LogFormat::Json, LogFormat::Local]
            .into_iter()
            .flat_map(|format| [false, true].map(|compress| Self::of(format, compress)))
    }

    fn compressed_files(&self) -> usize {
        let names = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().ends_with(".gz")).count()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn writer(&self, max_size: Option<u64>, max_file: u32) -> LogWriter {
        let options = FileOptions { max_size, max_file, compress: self.compress };
        let driver = match self.format {
            LogFormat::Json => LogDriver::JsonFile(options),
            LogFormat::Local => LogDriver::Local(options),
        };
        let config = LogConfig { driver, ..Default::default() };
        LogWriter::open(self.fd.as_fd(), "log", &config).unwrap()
    }

    fn reader(&self, options: ReadOptions) -> LogReader {
        LogReader::open(self.fd.as_fd(), "log", self.format, options).unwrap()
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix(seconds, 0).unwrap()
}

/// All records that are there now, joined.
fn drain(reader: &mut LogReader) -> String {
    let mut text = Vec::new();
    while let ReadOutcome::Record(record) = reader.next().unwrap() {
        text.extend_from_slice(record.bytes);
    }
    String::from_utf8(text).unwrap()
}

fn last(count: u64) -> ReadOptions {
    ReadOptions { tail: Tail::Last(count), ..Default::default() }
}

#[test]
fn reads_back_what_was_written() {
    let log = Log::new();
    let binary: Vec<u8> = (0..=255_u8).chain(*b"\n").collect();
    let mut writer = log.writer(None, 1);
    writer.write(Stream::Stdout, &binary, at(1)).unwrap();
    writer.write(Stream::Stderr, &[b'x'; 50_000], at(2)).unwrap();
    writer.close(Stream::Stderr, at(3)).unwrap();
    let text = drain(&mut log.reader(ReadOptions::default()));
    let lossy: String = String::from_utf8_lossy(&binary[..128]).into_owned() + &"\u{fffd}".repeat(128) + "\n";
    assert_eq!(text, lossy + &"x".repeat(50_000));
}

#[test]
fn chooses_by_stream_and_time() {
    let log = Log::new();
    let mut writer = log.writer(None, 1);
    for (stream, line, time) in [
        (Stream::Stdout, "1\n", 1),
        (Stream::Stderr, "2\n", 2),
        (Stream::Stdout, "3\n", 3),
        (Stream::Stdout, "4\n", 4),
    ] {
        writer.write(stream, line.as_bytes(), at(time)).unwrap();
    }
    let read = |options| drain(&mut log.reader(options));
    assert_eq!(read(ReadOptions { stderr: false, ..Default::default() }), "1\n3\n4\n");
    assert_eq!(read(ReadOptions { since: Some(at(2)), until: Some(at(3)), ..Default::default() }), "2\n3\n");
    assert_eq!(read(ReadOptions { tail: Tail::Last(3), stdout: false, ..Default::default() }), "2\n");
    let mut reader = log.reader(ReadOptions { until: Some(at(3)), ..Default::default() });
    drain(&mut reader);
    writer.write(Stream::Stdout, b"5\n", at(2)).unwrap();
    assert_eq!(reader.next().unwrap(), ReadOutcome::End, "what is over stays over");
}

#[test]
fn tails_any_number_of_lines_over_rotated_files() {
    for log in Log::all() {
        let mut writer = log.writer(Some(2_000), 100);
        for number in 0..500 {
            writer.write(Stream::Stdout, format!("{number}\n").as_bytes(), at(number)).unwrap();
        }
        assert!(fs::read_dir(log.directory.path()).unwrap().count() > 5);
        assert_eq!(log.compressed_files() > 3, log.compress);
        for count in [0, 1, 2, 43, 44, 45, 250, 499, 500, 501, u64::MAX] {
            let first = 500_u64.saturating_sub(count);
            let expected: String = (first..500).map(|number| format!("{number}\n")).collect();
            assert_eq!(drain(&mut log.reader(last(count))), expected, "tail {count} of {:?}", log.format);
        }
    }
}

#[test]
fn an_unfinished_line_is_read_when_it_is_finished() {
    let log = Log::new();
    log.writer(None, 1).write(Stream::Stdout, b"first\n", at(1)).unwrap();
    let line = fs::read(log.path("log")).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(log.path("log")).unwrap();
    let (head, rest) = line.split_at(10);
    file.write_all(head).unwrap();
    let mut all = log.reader(ReadOptions::default());
    let mut none = log.reader(last(0));
    assert_eq!((drain(&mut all).as_str(), drain(&mut none).as_str()), ("first\n", ""));
    file.write_all(rest).unwrap();
    assert_eq!((drain(&mut all).as_str(), drain(&mut none).as_str()), ("first\n", "first\n"));
}

#[test]
fn damaged_lines_are_skipped() {
    let log = Log::new();
    log.writer(None, 1).write(Stream::Stdout, b"a\n", at(1)).unwrap();
    let line = fs::read(log.path("log")).unwrap();
    let mut damaged = line.clone();
    damaged.extend(b"{\"log\":\"torn{\"log\"\n\n");
    damaged.extend(vec![0; LONGEST_LINE + 3 * BLOCK]);
    damaged.extend(b"\n");
    damaged.extend(&line);
    fs::write(log.path("log"), damaged).unwrap();
    assert_eq!(drain(&mut log.reader(ReadOptions::default())), "a\na\n");
}

#[test]
fn a_log_that_does_not_exist_yet_is_followed() {
    let log = Log::new();
    let mut reader = log.reader(ReadOptions::default());
    assert_eq!(reader.next().unwrap(), ReadOutcome::Pending);
    log.writer(None, 1).write(Stream::Stdout, b"a\n", at(1)).unwrap();
    assert_eq!(drain(&mut reader), "a\n");
}

#[test]
fn a_truncated_log_is_read_from_its_start() {
    let log = Log::new();
    let mut writer = log.writer(None, 1);
    writer.write(Stream::Stdout, b"long line\n", at(1)).unwrap();
    let mut reader = log.reader(ReadOptions::default());
    drain(&mut reader);
    fs::File::options().write(true).open(log.path("log")).unwrap().set_len(0).unwrap();
    assert_eq!(reader.next().unwrap(), ReadOutcome::Pending);
    writer.write(Stream::Stdout, b"new\n", at(2)).unwrap();
    assert_eq!(drain(&mut reader), "new\n");
}

#[test]
fn follows_through_several_rotations_at_once() {
    for log in Log::all() {
        let mut writer = log.writer(Some(1), 50);
        let mut reader = log.reader(ReadOptions::default());
        let mut expected = 0;
        for burst in [1, 2, 5, 0, 30] {
            let mut lines = String::new();
            for _ in 0..burst {
                expected += 1;
                lines.push_str(&format!("{expected}\n"));
                writer.write(Stream::Stdout, format!("{expected}\n").as_bytes(), at(1)).unwrap();
            }
            assert_eq!(drain(&mut reader), lines, "{:?}, compressed: {}", log.format, log.compress);
        }
    }
}

#[test]
fn local_records_keep_every_byte() {
    let log = Log::of(LogFormat::Local, false);
    let binary: Vec<u8> = (0..=255_u8).chain(*b"\n").collect();
    let mut writer = log.writer(None, 1);
    writer.write(Stream::Stdout, &binary, at(1)).unwrap();
    writer.write(Stream::Stderr, &[b'x'; 50_000], at(2)).unwrap();
    writer.close(Stream::Stderr, at(3)).unwrap();
    let mut reader = log.reader(ReadOptions::default());
    let mut bytes = Vec::new();
    let mut times = Vec::new();
    while let ReadOutcome::Record(record) = reader.next().unwrap() {
        bytes.extend_from_slice(record.bytes);
        times.push((record.stream, record.time));
    }
    assert!(bytes == [binary, vec![b'x'; 50_000]].concat());
    assert_eq!(times[..2], [(Stream::Stdout, at(1)), (Stream::Stdout, at(1))]);
    assert_eq!(times.last(), Some(&(Stream::Stderr, at(2))));
}

#[test]
fn a_torn_local_record_is_cut_off_and_damage_is_passed_over() {
    let log = Log::of(LogFormat::Local, false);
    for line in ["first\n", "second\n", "third\n"] {
        log.writer(None, 1).write(Stream::Stdout, line.as_bytes(), at(1)).unwrap();
    }
    let whole = fs::read(log.path("log")).unwrap();
    for cut in 1..10 {
        fs::write(log.path("log"), &whole[..whole.len() - cut]).unwrap();
        assert_eq!(drain(&mut log.reader(last(1))), "second\n", "{cut}");
        log.writer(None, 1).write(Stream::Stdout, b"new\n", at(1)).unwrap();
        assert_eq!(drain(&mut log.reader(ReadOptions::default())), "first\nsecond\nnew\n", "{cut}");
    }
    let mut damaged = whole.clone();
    damaged[30..35].fill(0);
    fs::write(log.path("log"), damaged).unwrap();
    for (options, expected) in [(ReadOptions::default(), "first\nthird\n"), (last(2), "first\nthird\n")] {
        assert_eq!(drain(&mut log.reader(options)), expected);
    }
}

#[test]
fn what_a_killed_writer_left_of_compressing_is_taken_up() {
    let log = Log::of(LogFormat::Json, true);
    let mut writer = log.writer(Some(1), 3);
    let long = format!("{}\n", "2".repeat(10_000));
    for line in ["1\n", long.as_str(), "3\n"] {
        writer.write(Stream::Stdout, line.as_bytes(), at(1)).unwrap();
    }
    drop(writer);
    assert_eq!(log.compressed_files(), 1, "the last rotated file is still plain");
    fs::write(log.path("log.gz.new"), "torn").unwrap();
    let mut writer = log.writer(Some(1), 3);
    while writer.has_work() {
        writer.work();
    }
    assert_eq!((log.compressed_files(), fs::read_dir(log.directory.path()).unwrap().count()), (2, 3));
    assert_eq!(drain(&mut log.reader(ReadOptions::default())), format!("1\n{long}3\n"));
    fs::write(log.path("log.2.gz"), "damage").unwrap();
    assert_eq!(drain(&mut log.reader(ReadOptions::default())), format!("{long}3\n"));
}

#[test]
fn a_file_that_was_dropped_is_read_to_its_end() {
    let log = Log::new();
    let mut writer = log.writer(Some(1), 1);
    writer.write(Stream::Stdout, b"1\n", at(1)).unwrap();
    let mut reader = log.reader(ReadOptions::default());
    for line in ["2\n", "3\n"] {
        writer.write(Stream::Stdout, line.as_bytes(), at(1)).unwrap();
    }
    assert_eq!(drain(&mut reader), "1\n3\n", "`2` was dropped before anyone could read it");
}

/// A writer at full speed against followers: every follower sees every line once, in order.
#[test]
fn concurrent_followers_lose_and_repeat_nothing() {
    Log::all().for_each(|log| follow_concurrently(&log));
}

fn follow_concurrently(log: &Log) {
    const LINES: u32 = 20_000;
    // As many files as needed: a follower that lags behind must not lose what rotation drops.
    let mut writer = log.writer(Some(5_000), 1_000);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let watch = crate::watch::LogWatch::new(log.fd.as_fd()).unwrap();
                let mut reader = log.reader(ReadOptions::default());
                let mut expected = 0;
                while expected < LINES {
                    match reader.next().unwrap() {
                        ReadOutcome::Record(record) => {
                            assert_eq!(record.bytes, format!("line {expected}\n").as_bytes());
                            expected += 1;
                        }
                        ReadOutcome::Pending => {
                            let mut ready =
                                [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
                            let limit = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
                            assert_eq!(
                                rustix::event::poll(&mut ready, Some(&limit)).unwrap(),
                                1,
                                "no word of a change"
                            );
                            watch.clear().unwrap();
                        }
                        ReadOutcome::End => panic!("no end was asked for"),
                    }
                }
            });
        }
        for number in 0..LINES {
            writer.write(Stream::Stdout, format!("line {number}\n").as_bytes(), Timestamp::now()).unwrap();
        }
    });
}
