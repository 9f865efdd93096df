//! The engine's side: records out of a chain of files, from any point, and on while it grows.

mod file;
mod tail;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::config::LogFormat;
use crate::error::LogError;
use crate::frame::Stream;
use crate::frames::RecordBuffer;
use crate::identity::FileIdentity;
use crate::json::StoredRecord;
use crate::local;
use crate::timestamp::Timestamp;

use file::LogFile;

/// Files of a chain that are looked for beyond a missing one: during a rotation one name at a time is missing.
const MISSING_NAMES: u32 = 1;

/// Which records to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// No record before this time.
    pub since: Option<Timestamp>,
    /// No record after this time; the first later one ends the reading.
    pub until: Option<Timestamp>,
    /// How many of the last records to begin with.
    pub tail: Tail,
    /// Records of standard output.
    pub stdout: bool,
    /// Records of standard error.
    pub stderr: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { since: None, until: None, tail: Tail::All, stdout: true, stderr: true }
    }
}

/// How many of the records that are there to begin with.
///
/// As with dockerd, the records are counted before any other choice is made: `--tail 5` with `stdout` alone shows fewer
/// if some of the last five are of `stderr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// All of them.
    All,
    /// The last so many.
    Last(u64),
}

/// One record; it borrows from the reader.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where the container wrote it.
    pub stream: Stream,
    /// When the shim read it.
    pub time: Timestamp,
    /// The text, with its newline if the line ends here.
    pub bytes: &'a [u8],
    /// The attributes that the log options chose.
    pub attributes: &'a BTreeMap<String, String>,
}

/// What [`LogReader::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadOutcome<'a> {
    /// A record.
    Record(Record<'a>),
    /// Nothing more for now: to follow the log, wait for [`crate::LogWatch`] and ask again.
    Pending,
    /// A record later than `until`: nothing more will ever come.
    End,
}

/// Reads the log of one container.
#[derive(Debug)]
pub struct LogReader {
    dir: OwnedFd,
    name: String,
    options: ReadOptions,
    /// Files still to be read, oldest first; the first one is being read.
    files: VecDeque<LogFile>,
    format: LogFormat,
    records: RecordBuffer,
    current: CurrentRecord,
    ended: bool,
}

#[derive(Debug)]
struct CurrentRecord {
    stream: Stream,
    time: Timestamp,
    bytes: Vec<u8>,
    attributes: BTreeMap<String, String>,
}

/// What one step of the reader came to.
enum Step {
    Record,
    Skipped,
    Pending,
    End,
}

impl LogReader {
    /// Opens the log `name` in `dir`, with records of the form `format`, at the place that `options` choose. A log that
    /// does not exist yet is empty.
    ///
    /// # Errors
    /// [`LogError::Open`], [`LogError::Stat`] or [`LogError::Read`].
    pub fn open(
        dir: BorrowedFd<'_>,
        name: &str,
        format: LogFormat,
        options: ReadOptions,
    ) -> Result<Self, LogError> {
        let open_error = |source| LogError::Open { name: name.to_owned(), source };
        let files = open_chain(dir, name).map_err(open_error)?;
        let epoch = Timestamp::default();
        let mut reader = Self {
            dir: dir.try_clone_to_owned().map_err(open_error)?,
            name: name.to_owned(),
            options,
            files,
            format,
            records: RecordBuffer::new(format),
            current: CurrentRecord {
                stream: Stream::Stdout,
                time: epoch,
                bytes: Vec::new(),
                attributes: BTreeMap::new(),
            },
            ended: false,
        };
        if let Tail::Last(count) = reader.options.tail {
            reader.seek_to_last(count).map_err(|source| LogError::Read { name: name.to_owned(), source })?;
        }
        Ok(reader)
    }

    /// The next record that the options choose.
    ///
    /// # Errors
    /// [`LogError::Read`], [`LogError::Open`] or [`LogError::Stat`]; asking again goes on where it stopped.
    // Not an iterator: a record borrows from the reader, and `Pending` is not the end.
    #[expect(clippy::should_implement_trait, reason = "a lending reader cannot be an iterator")]
    pub fn next(&mut self) -> Result<ReadOutcome<'_>, LogError> {
        loop {
            match self.step()? {
                Step::Skipped => {}
                Step::Pending => return Ok(ReadOutcome::Pending),
                Step::End => return Ok(ReadOutcome::End),
                Step::Record => {
                    let CurrentRecord { stream, time, bytes, attributes } = &self.current;
                    return Ok(ReadOutcome::Record(Record {
                        stream: *stream,
                        time: *time,
                        bytes,
                        attributes,
                    }));
                }
            }
        }
    }

    /// Takes one line, or makes one available.
    fn step(&mut self) -> Result<Step, LogError> {
        if self.ended {
            return Ok(Step::End);
        }
        let Some(bytes) = self.records.next() else { return self.fill() };
        if let Some(file) = self.files.front_mut()
            && file.surplus > 0
        {
            file.surplus -= 1;
            return Ok(Step::Skipped);
        }
        // A line that is no record was torn by a full disk or a power cut.
        if !self.current.take(bytes, self.format) {
            return Ok(Step::Skipped);
        }
        let CurrentRecord { stream, time, .. } = self.current;
        if self.options.since.is_some_and(|since| time < since) {
            return Ok(Step::Skipped);
        }
        if self.options.until.is_some_and(|until| time > until) {
            self.ended = true;
            return Ok(Step::End);
        }
        let wanted = match stream {
            Stream::Stdin | Stream::Stdout => self.options.stdout,
            Stream::Stderr => self.options.stderr,
        };
        Ok(if wanted { Step::Record } else { Step::Skipped })
    }

    /// Reads on, in this file or the next.
    fn fill(&mut self) -> Result<Step, LogError> {
        if self.files.is_empty() {
            return self.open_first();
        }
        if self.read_block()? > 0 {
            return Ok(Step::Skipped);
        }
        if self.files.len() == 1 {
            let Some(successor) = self.successor()? else { return Ok(Step::Pending) };
            self.files.push_back(successor);
            // The writer may have written between our last read and the rotation.
            return Ok(Step::Skipped);
        }
        self.files.pop_front();
        self.records.clear();
        Ok(Step::Skipped)
    }

    /// Opens the log's file once there is one.
    fn open_first(&mut self) -> Result<Step, LogError> {
        self.files = open_chain(self.dir.as_fd(), &self.name)
            .map_err(|source| LogError::Open { name: self.name.clone(), source })?;
        Ok(if self.files.is_empty() { Step::Pending } else { Step::Skipped })
    }

    /// Reads a block of the current file; 0 at its end.
    fn read_block(&mut self) -> Result<usize, LogError> {
        let Some(file) = self.files.front_mut() else { return Ok(0) };
        file.read(&mut self.records).map_err(|source| LogError::Read { name: self.name.clone(), source })
    }

    /// The file that the writer went on with after the current one; `None` while it is still the last one.
    fn successor(&self) -> Result<Option<LogFile>, LogError> {
        let Some(current) = self.files.back() else { return Ok(None) };
        loop {
            let Some(index) = self.find(current.identity)? else {
                return self.oldest_if_deleted(current);
            };
            if index == 0 {
                return Ok(None);
            }
            let Some(candidate) = self.open_index(index - 1)? else { return Ok(None) };
            // If the chain moved in between, the candidate is not the direct successor.
            if self.find(current.identity)? == Some(index) && candidate.identity != current.identity {
                return Ok(Some(candidate));
            }
        }
    }

    /// Where in the chain the file `identity` is now, in either form. Files move upwards only, so one pass upwards
    /// cannot miss it.
    fn find(&self, identity: FileIdentity) -> Result<Option<u32>, LogError> {
        let mut missing = 0;
        let mut index = 0;
        while missing <= MISSING_NAMES {
            match self.open_index(index)? {
                Some(found) if found.identity == identity => return Ok(Some(index)),
                Some(_) => missing = 0,
                None => missing += 1,
            }
            index += 1;
        }
        Ok(None)
    }

    /// The oldest file there is, if the chain has dropped `current`; otherwise a rotation is under way.
    fn oldest_if_deleted(&self, current: &LogFile) -> Result<Option<LogFile>, LogError> {
        let deleted =
            current.is_deleted().map_err(|source| LogError::Stat { name: self.name.clone(), source })?;
        if !deleted {
            return Ok(None);
        }
        let chain = open_chain(self.dir.as_fd(), &self.name)
            .map_err(|source| LogError::Open { name: self.name.clone(), source })?;
        Ok(chain.into_iter().next())
    }

    fn open_index(&self, index: u32) -> Result<Option<LogFile>, LogError> {
        LogFile::open(self.dir.as_fd(), &self.name, index)
            .map_err(|source| LogError::Open { name: self.name.clone(), source })
    }

    /// Drops all but the last `count` records, reading backwards.
    fn seek_to_last(&mut self, count: u64) -> io::Result<()> {
        let mut missing = count;
        for index in (0..self.files.len()).rev() {
            let found = self.files[index].seek_to_last(missing, self.format)?;
            missing -= found;
            if missing == 0 {
                self.files.drain(..index);
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Opens all files of the chain, oldest first. A rotation meanwhile shows a file twice at most, never hides one.
fn open_chain(dir: BorrowedFd<'_>, name: &str) -> io::Result<VecDeque<LogFile>> {
    let mut files: VecDeque<LogFile> = VecDeque::new();
    let mut missing = 0;
    let mut index = 0;
    while missing <= MISSING_NAMES {
        match LogFile::open(dir, name, index)? {
            Some(log) if files.iter().any(|known| known.identity == log.identity) => {}
            Some(log) => {
                files.push_front(log);
                missing = 0;
            }
            None => missing += 1,
        }
        index += 1;
    }
    Ok(files)
}

impl CurrentRecord {
    /// Takes in the record that `bytes` are; false where they are none.
    fn take(&mut self, bytes: &[u8], format: LogFormat) -> bool {
        self.bytes.clear();
        match format {
            LogFormat::Json => {
                let Some((record, time)) = StoredRecord::parse(bytes) else { return false };
                (self.stream, self.time) = (record.stream, time);
                self.bytes.extend_from_slice(record.log.as_bytes());
                self.attributes = record.attrs.unwrap_or_default();
            }
            LogFormat::Local => {
                let Some((stream, time, text)) = local::parse(bytes) else { return false };
                (self.stream, self.time) = (stream, time);
                self.bytes.extend_from_slice(text.bytes);
                self.bytes.extend(text.complete.then_some(b'\n'));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
