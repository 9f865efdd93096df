//! The engine's side: records out of a chain of files, from any point, and on while it grows.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{fstat, statat};
use rustix::io::pread;

use crate::error::LogError;
use crate::frame::Stream;
use crate::json::StoredRecord;
use crate::rotate::{chain_name, open_read};
use crate::timestamp::Timestamp;

/// Bytes per read.
const BLOCK: usize = 64 * 1024;
/// A line longer than this is damage (a record has 100 KiB at most, unless its attributes are huge): it is skipped.
const LONGEST_LINE: usize = 8 * 1024 * 1024;
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
    lines: LineBuffer,
    current: CurrentRecord,
    ended: bool,
}

/// One open file of the chain, and how far it has been read.
#[derive(Debug)]
struct LogFile {
    file: OwnedFd,
    inode: u64,
    offset: u64,
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
    /// Opens the log `name` in `dir` at the place that `options` choose. A log that does not exist yet is empty.
    ///
    /// # Errors
    /// [`LogError::Open`], [`LogError::Stat`] or [`LogError::Read`].
    pub fn open(dir: BorrowedFd<'_>, name: &str, options: ReadOptions) -> Result<Self, LogError> {
        let open_error = |source| LogError::Open { name: name.to_owned(), source };
        let files = open_chain(dir, name).map_err(open_error)?;
        let epoch = Timestamp::default();
        let mut reader = Self {
            dir: dir.try_clone_to_owned().map_err(open_error)?,
            name: name.to_owned(),
            options,
            files,
            lines: LineBuffer::default(),
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
        if let Some(line) = self.lines.next_line() {
            // A line that is no record was torn by a full disk or a power cut.
            let Some((record, time)) = StoredRecord::parse(line) else { return Ok(Step::Skipped) };
            if self.options.since.is_some_and(|since| time < since) {
                return Ok(Step::Skipped);
            }
            if self.options.until.is_some_and(|until| time > until) {
                self.ended = true;
                return Ok(Step::End);
            }
            let wanted = match record.stream {
                Stream::Stdin | Stream::Stdout => self.options.stdout,
                Stream::Stderr => self.options.stderr,
            };
            if !wanted {
                return Ok(Step::Skipped);
            }
            self.current.stream = record.stream;
            self.current.time = time;
            self.current.bytes.clear();
            self.current.bytes.extend_from_slice(record.log.as_bytes());
            self.current.attributes = record.attrs.unwrap_or_default();
            return Ok(Step::Record);
        }
        self.fill()
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
        self.lines.clear();
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
        let Some(log) = self.files.front_mut() else { return Ok(0) };
        let error = |source: io::Error| LogError::Read { name: self.name.clone(), source };
        let length = self.lines.read(log.file.as_fd(), log.offset).map_err(error)?;
        log.offset += length as u64;
        if length == 0 {
            // dockerd truncates a log without rotation files, and so do people who clear one by hand.
            let size = fstat(&log.file).map_err(|source| error(source.into()))?.st_size as u64;
            if size < log.offset {
                log.offset = 0;
                self.lines.clear();
            }
        }
        Ok(length)
    }

    /// The file that the writer went on with after the current one; `None` while it is still the last one.
    fn successor(&self) -> Result<Option<LogFile>, LogError> {
        let Some(current) = self.files.back() else { return Ok(None) };
        loop {
            let Some(index) = self.find(current.inode)? else {
                return self.oldest_if_deleted(current);
            };
            if index == 0 {
                return Ok(None);
            }
            let Some(candidate) = self.open_index(index - 1)? else { return Ok(None) };
            // If the chain moved in between, the candidate is not the direct successor.
            if self.find(current.inode)? == Some(index) && candidate.inode != current.inode {
                return Ok(Some(candidate));
            }
        }
    }

    /// Where in the chain the file `inode` is now. Files move upwards only, so one pass upwards cannot miss it.
    fn find(&self, inode: u64) -> Result<Option<u32>, LogError> {
        let mut missing = 0;
        let mut index = 0;
        while missing <= MISSING_NAMES {
            match statat(&self.dir, chain_name(&self.name, index), rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) if found.st_ino == inode => return Ok(Some(index)),
                Ok(_) => missing = 0,
                Err(rustix::io::Errno::NOENT) => missing += 1,
                Err(source) => return Err(LogError::Stat { name: self.name.clone(), source: source.into() }),
            }
            index += 1;
        }
        Ok(None)
    }

    /// The oldest file there is, if the chain has dropped `current`; otherwise a rotation is under way.
    fn oldest_if_deleted(&self, current: &LogFile) -> Result<Option<LogFile>, LogError> {
        let links = fstat(&current.file)
            .map_err(|source| LogError::Stat { name: self.name.clone(), source: source.into() })?
            .st_nlink;
        if links > 0 {
            return Ok(None);
        }
        let chain = open_chain(self.dir.as_fd(), &self.name)
            .map_err(|source| LogError::Open { name: self.name.clone(), source })?;
        Ok(chain.into_iter().next())
    }

    fn open_index(&self, index: u32) -> Result<Option<LogFile>, LogError> {
        open_log(self.dir.as_fd(), &self.name, index)
            .map_err(|source| LogError::Open { name: self.name.clone(), source })
    }

    /// Drops all but the last `count` records, reading backwards.
    fn seek_to_last(&mut self, count: u64) -> io::Result<()> {
        let mut missing = count;
        for index in (0..self.files.len()).rev() {
            let log = &mut self.files[index];
            let (offset, found) = start_of_last_lines(log.file.as_fd(), missing)?;
            log.offset = offset;
            missing -= found;
            if missing == 0 {
                self.files.drain(..index);
                return Ok(());
            }
        }
        Ok(())
    }
}

fn open_log(dir: BorrowedFd<'_>, name: &str, index: u32) -> io::Result<Option<LogFile>> {
    let Some(file) = open_read(dir, name, index)? else { return Ok(None) };
    let inode = fstat(&file)?.st_ino;
    Ok(Some(LogFile { file, inode, offset: 0 }))
}

/// Opens all files of the chain, oldest first. A rotation meanwhile shows a file twice at most, never hides one.
fn open_chain(dir: BorrowedFd<'_>, name: &str) -> io::Result<VecDeque<LogFile>> {
    let mut files: VecDeque<LogFile> = VecDeque::new();
    let mut missing = 0;
    let mut index = 0;
    while missing <= MISSING_NAMES {
        match open_log(dir, name, index)? {
            Some(log) if files.iter().any(|known| known.inode == log.inode) => {}
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

/// The offset at which the last `count` lines of `file` begin, and how many there are.
///
/// An unfinished last line does not count, and lies behind the offset, so that it is read once it is finished.
fn start_of_last_lines(file: BorrowedFd<'_>, count: u64) -> io::Result<(u64, u64)> {
    let mut block = vec![0_u8; BLOCK];
    let mut end = fstat(file)?.st_size as u64;
    // Newlines met: the last one ends the last line, and the one before the first wanted line is where it begins.
    let mut newlines = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let length = pread(file, &mut block[..(end - start) as usize], start)?;
        for index in (0..length).rev() {
            if block[index] == b'\n' {
                if newlines == count {
                    return Ok((start + index as u64 + 1, count));
                }
                newlines += 1;
            }
        }
        end = start;
    }
    Ok((0, newlines))
}

/// Bytes that were read and not yet handed out as lines.
#[derive(Debug, Default)]
struct LineBuffer {
    bytes: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// How far the next line's end has been looked for.
    searched: usize,
    /// How far `bytes` is filled.
    end: usize,
    /// Within a line that is too long.
    skipping: bool,
}

impl LineBuffer {
    fn clear(&mut self) {
        (self.start, self.searched, self.end, self.skipping) = (0, 0, 0, false);
    }

    /// The next whole line, without its newline.
    fn next_line(&mut self) -> Option<&[u8]> {
        loop {
            let Some(length) = self.bytes[self.searched..self.end].iter().position(|&byte| byte == b'\n')
            else {
                self.searched = self.end;
                return None;
            };
            let (start, end) = (self.start, self.searched + length);
            self.start = end + 1;
            self.searched = end + 1;
            if !std::mem::take(&mut self.skipping) {
                return Some(&self.bytes[start..end]);
            }
        }
    }

    /// Reads from `file` at `offset` behind what is there; returns how much.
    fn read(&mut self, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.searched -= self.start;
        self.start = 0;
        if self.end > LONGEST_LINE {
            (self.end, self.searched, self.skipping) = (0, 0, true);
        }
        if self.bytes.len() < self.end + BLOCK {
            self.bytes.resize(self.end + BLOCK, 0);
        }
        let length = loop {
            match pread(file, &mut self.bytes[self.end..], offset) {
                Ok(length) => break length,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.end += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
