use std::cell::OnceCell;
use std::fs::File;
use std::os::fd::AsFd as _;

use dory_log::{
    FileOptions, LogConfig, LogDriver, LogFormat, LogReader, LogWriter, MAX_LINE, ReadOptions, ReadOutcome,
    Stream, Tail, Timestamp,
};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

const NAME: &str = "log";

/// A log chain of `json-file` with anything in its files, and a writer that goes on with it.
pub fn json_log(input: &[u8]) {
    log_chain(input, LogFormat::Json);
}

/// The same of `local`, whose records are found by their lengths.
pub fn local_log(input: &[u8]) {
    log_chain(input, LogFormat::Local);
}

/// The first byte holds options; what follows is the chain, oldest file first, cut where a 0xff byte stands (which no
/// JSON text has, and no head of a record). Reading ends, in whichever way one begins; and what is written behind any
/// damage is read in full.
fn log_chain(input: &[u8], format: LogFormat) {
    thread_local! {
        // One directory for a process's whole life: it is emptied before each use.
        static DIRECTORY: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
    }
    let Some((&options, chain)) = input.split_first() else { return };
    DIRECTORY.with(|directory| {
        let directory = directory.get_or_init(|| tempfile::tempdir().expect("a temporary directory"));
        let directory = File::open(directory.path()).expect("it can be opened");
        let files: Vec<&[u8]> = chain.split(|&byte| byte == 0xff).take(4).collect();
        for index in 0..4 {
            // With the bit the oldest is taken for a compressed one.
            let compressed = options & 8 != 0 && index > 0 && index + 1 == files.len();
            write_file(
                &directory,
                index,
                compressed,
                files.len().checked_sub(index + 1).map(|place| files[place]),
            );
        }
        let tail = if options & 1 == 0 { Tail::All } else { Tail::Last(u64::from(options >> 4)) };
        let options = ReadOptions {
            tail,
            stdout: options & 2 == 0,
            stderr: options & 4 == 0,
            ..ReadOptions::default()
        };
        let read = read_all(&directory, format, options);
        if let Tail::Last(count) = tail {
            assert!(read.len() as u64 <= count, "more than was asked for");
        }
        append_and_read(&directory, format);
    });
}

/// Writes file `index` of the chain, or removes it.
fn write_file(directory: &File, index: usize, compressed: bool, bytes: Option<&[u8]>) {
    let name = if index == 0 { NAME.to_owned() } else { format!("{NAME}.{index}") };
    let gzip = format!("{name}.gz");
    for old in [&name, &gzip] {
        let _ = unlinkat(directory, old, AtFlags::empty());
    }
    let name = if compressed { gzip } else { name };
    if let Some(bytes) = bytes {
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let file = openat(directory, &name, flags, Mode::from_raw_mode(0o600)).expect("a file can be made");
        std::io::Write::write_all(&mut File::from(file), bytes).expect("it can be written");
    }
}

/// Every record until nothing more is there.
fn read_all(directory: &File, format: LogFormat, options: ReadOptions) -> Vec<Vec<u8>> {
    let mut reader =
        LogReader::open(directory.as_fd(), NAME, format, options).expect("the log can be opened");
    let mut records = Vec::new();
    while let ReadOutcome::Record(record) = reader.next().expect("the log can be read") {
        records.push(record.bytes.to_vec());
    }
    records
}

/// The writer repairs the end of the log; then its own record is the last, and whole.
fn append_and_read(directory: &File, format: LogFormat) {
    let driver = match format {
        LogFormat::Json => LogDriver::JsonFile(FileOptions::default()),
        LogFormat::Local => LogDriver::Local(FileOptions::default()),
    };
    let config = LogConfig { driver, ..LogConfig::default() };
    let mut writer = LogWriter::open(directory.as_fd(), NAME, &config).expect("the log can be continued");
    let text = vec![b'x'; MAX_LINE / 2];
    let line = [text.as_slice(), b"\n"].concat();
    writer.write(Stream::Stdout, &line, Timestamp::default()).expect("a record can be written");
    let last = ReadOptions { tail: Tail::Last(1), ..ReadOptions::default() };
    assert_eq!(read_all(directory, format, last), [line]);
}
