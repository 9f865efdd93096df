//! Whole records into a chain of files.

use std::os::fd::BorrowedFd;

use super::queue::RecordQueue;
use super::sink::Sink;
use crate::config::LogConfig;
use crate::error::LogError;

/// Bytes that are compressed in one piece of background work: a few milliseconds.
const WORK: usize = 256 << 10;

/// The files of one container's log, open for appending.
#[derive(Debug)]
pub struct LogFiles {
    name: String,
    sink: Sink,
    /// Records that are not yet in the file.
    batch: Vec<u8>,
}

impl LogFiles {
    /// Opens the log `name` in `dir`, creating it or appending to it; a torn last line is cut off. `None` where the driver
    /// keeps nothing.
    ///
    /// # Errors
    /// [`LogError::Open`], [`LogError::Stat`] or [`LogError::Repair`].
    pub fn open(dir: BorrowedFd<'_>, name: &str, config: &LogConfig) -> Result<Option<Self>, LogError> {
        let Some((format, options)) = config.driver.files() else { return Ok(None) };
        let sink = Sink::open(dir, name, format, options)?;
        Ok(Some(Self { name: name.to_owned(), sink, batch: Vec::new() }))
    }

    /// Appends every whole record in `framed`, which came out of a [`RecordQueue`], and takes it out there.
    ///
    /// # Errors
    /// [`LogError::Write`] where records were lost, [`LogError::Rotate`] where the file grows in place of another.
    pub fn append_framed(&mut self, framed: &mut Vec<u8>) -> Result<(), LogError> {
        let mut outcome = Ok(());
        let mut taken = 0;
        while let Some(record) = RecordQueue::first_record(&framed[taken..]) {
            taken += RecordQueue::framed_length(record);
            outcome = outcome.and(self.add(|batch| batch.extend_from_slice(record)));
        }
        framed.drain(..taken);
        outcome.and(self.flush())
    }

    /// Has `encode` put one record into the batch, rotating first where the file is full.
    pub(super) fn add(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), LogError> {
        let mut outcome = Ok(());
        if self.sink.is_full(self.batch.len()) {
            outcome = self.flush().and(self.rotate());
        }
        encode(&mut self.batch);
        outcome
    }

    fn rotate(&mut self) -> Result<(), LogError> {
        self.sink.rotate(&self.name).map_err(|source| LogError::Rotate { name: self.name.clone(), source })
    }

    /// Writes the batch out.
    pub(super) fn flush(&mut self) -> Result<(), LogError> {
        let outcome = self.sink.write_all(&self.batch);
        self.batch.clear();
        outcome.map_err(|source| LogError::Write { name: self.name.clone(), source })
    }

    /// As [`super::LogWriter::has_work`].
    pub fn has_work(&self) -> bool {
        self.sink.is_compressing()
    }

    /// As [`super::LogWriter::work`].
    pub fn work(&mut self) {
        self.sink.compress(WORK);
    }

    #[cfg(test)]
    pub(super) fn write_to(&mut self, file: std::os::fd::OwnedFd) {
        self.sink.file = file;
    }
}
