//! Bytes of a log file, taken apart into records as they are read.

use std::io;

use crate::config::LogFormat;
use crate::local::{self, Found};

/// Bytes per read.
pub(crate) const BLOCK: usize = 64 * 1024;
/// A line longer than this is damage (a record has 100 KiB at most, unless its attributes are huge): it is skipped.
pub(crate) const LONGEST_LINE: usize = 8 * 1024 * 1024;

/// Bytes that were read and not yet handed out as records.
#[derive(Debug)]
pub(crate) struct RecordBuffer {
    format: LogFormat,
    bytes: Vec<u8>,
    /// Where the next record begins.
    start: usize,
    /// How far the next record's end has been looked for.
    searched: usize,
    /// How far `bytes` is filled.
    end: usize,
    /// Within a line that is too long.
    skipping: bool,
}

impl RecordBuffer {
    pub(crate) fn new(format: LogFormat) -> Self {
        Self { format, bytes: Vec::new(), start: 0, searched: 0, end: 0, skipping: false }
    }

    /// Forgets what was read, before another file.
    pub(crate) fn clear(&mut self) {
        (self.start, self.searched, self.end, self.skipping) = (0, 0, 0, false);
    }

    /// How many bytes at the end belong to no whole record yet.
    pub(crate) fn unfinished(&self) -> usize {
        self.end - self.start
    }

    /// The next whole record: a line without its newline, or a record of the `local` form.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let (start, end) = match self.format {
            LogFormat::Json => self.next_line()?,
            LogFormat::Local => self.next_record()?,
        };
        Some(&self.bytes[start..end])
    }

    fn next_line(&mut self) -> Option<(usize, usize)> {
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
                return Some((start, end));
            }
        }
    }

    fn next_record(&mut self) -> Option<(usize, usize)> {
        loop {
            let start = self.start;
            match local::find(&self.bytes[start..self.end]) {
                Found::Record(length) => {
                    self.start += length;
                    self.searched = self.start;
                    return Some((start, start + length));
                }
                Found::Damage(length) => self.start += length,
                Found::Unfinished => return None,
            }
        }
    }

    /// Has `read` put bytes behind what is there; returns how many.
    pub(crate) fn fill(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.searched = self.searched.saturating_sub(self.start);
        self.start = 0;
        if self.end > LONGEST_LINE {
            (self.end, self.searched, self.skipping) = (0, 0, true);
        }
        if self.bytes.len() < self.end + BLOCK {
            self.bytes.resize(self.end + BLOCK, 0);
        }
        let length = loop {
            match read(&mut self.bytes[self.end..]) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        self.end += length;
        Ok(length)
    }
}
