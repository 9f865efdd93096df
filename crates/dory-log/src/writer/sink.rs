//! The chain of files that a writer appends to.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{fstat, ftruncate};
use rustix::io::{Errno, pread, write};

use super::compress::Compressing;
use crate::config::{FileOptions, LogFormat};
use crate::error::LogError;
use crate::frames::RecordBuffer;
use crate::identity::FileIdentity;
use crate::local::{self, HEAD};
use crate::rotate;

/// Bytes that are compressed for each byte that is written: a rotated file is done with before the next one is full.
const COMPRESSION_PACE: usize = 2;

/// The open file of a chain.
#[derive(Debug)]
pub(super) struct Sink {
    dir: OwnedFd,
    pub(super) file: OwnedFd,
    size: u64,
    options: FileOptions,
    /// The last rotated file, while it is being compressed.
    compressing: Option<Compressing>,
    /// What the compressed files of the chain were made of, as far as this writer made them; the latest is last.
    compressed: VecDeque<FileIdentity>,
}

impl Sink {
    pub(super) fn open(
        dir: BorrowedFd<'_>,
        name: &str,
        format: LogFormat,
        options: FileOptions,
    ) -> Result<Self, LogError> {
        let open_error = |source| LogError::Open { name: name.to_owned(), source };
        let file = rotate::open_append(dir, name).map_err(open_error)?;
        let dir = dir.try_clone_to_owned().map_err(open_error)?;
        let size = fstat(&file)
            .map_err(|source| LogError::Stat { name: name.to_owned(), source: source.into() })?
            .st_size as u64;
        let size = cut_torn_record(file.as_fd(), size, format)
            .map_err(|source| LogError::Repair { name: name.to_owned(), source })?;
        let compressing = match options.compress {
            // A writer that was killed meanwhile left it behind; where it cannot be taken up it stays as it is.
            true => Compressing::begin(dir.as_fd(), name).ok().flatten(),
            false => None,
        };
        Ok(Self { dir, file, size, options, compressing, compressed: VecDeque::new() })
    }

    /// Whether `further` bytes more would be too many for this file.
    pub(super) fn is_full(&self, further: usize) -> bool {
        self.options.max_size.is_some_and(|limit| self.size + further as u64 >= limit)
    }

    /// Moves the chain by one and goes on with an empty file.
    pub(super) fn rotate(&mut self, name: &str) -> io::Result<()> {
        self.compress(usize::MAX);
        self.file = rotate::rotate(&self.dir, name, self.options.max_file, &self.compressed)?;
        self.size = 0;
        if self.options.compress {
            self.compressing = Compressing::begin(self.dir.as_fd(), name)?;
        }
        Ok(())
    }

    /// Appends `records`; on failure takes back what was written of them, so that the file ends with a whole record.
    pub(super) fn write_all(&mut self, records: &[u8]) -> io::Result<()> {
        let mut rest = records;
        while !rest.is_empty() {
            match write(&self.file, rest) {
                Ok(0) => return self.take_back(io::ErrorKind::WriteZero.into()),
                Ok(length) => rest = &rest[length..],
                Err(Errno::INTR) => {}
                Err(error) => return self.take_back(error.into()),
            }
        }
        self.size += records.len() as u64;
        self.compress(records.len().saturating_mul(COMPRESSION_PACE));
        Ok(())
    }

    fn take_back(&self, error: io::Error) -> io::Result<()> {
        // If this fails too, the torn record stays and readers skip it.
        let _ = ftruncate(&self.file, self.size);
        Err(error)
    }

    /// True where a rotated file waits to be compressed.
    pub(super) fn is_compressing(&self) -> bool {
        self.compressing.is_some()
    }

    /// Compresses `budget` bytes of the rotated file, if there is one.
    pub(super) fn compress(&mut self, budget: usize) {
        let Some(compressing) = &mut self.compressing else { return };
        match compressing.step(budget) {
            Ok(false) => return,
            Ok(true) => {
                self.compressed.push_back(compressing.identity());
                if self.compressed.len() > self.options.max_file as usize {
                    self.compressed.pop_front();
                }
            }
            // Where the disk is full the file stays as it is, and is read as it is.
            Err(_) => {}
        }
        self.compressing = None;
    }
}

/// Cuts off the bytes behind the last whole record of `file`; returns the new size.
fn cut_torn_record(file: BorrowedFd<'_>, size: u64, format: LogFormat) -> io::Result<u64> {
    let end = match format {
        LogFormat::Json => end_of_last_line(file, size)?,
        LogFormat::Local => end_of_last_record(file, size)?,
    };
    if end < size {
        ftruncate(file, end)?;
    }
    Ok(end)
}

fn end_of_last_line(file: BorrowedFd<'_>, size: u64) -> io::Result<u64> {
    let mut block = [0_u8; 4096];
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let length = pread(file, &mut block[..(end - start) as usize], start)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(newline) = block[..length].iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(end)
}

fn end_of_last_record(file: BorrowedFd<'_>, size: u64) -> io::Result<u64> {
    if ends_with_record(file, size)? {
        return Ok(size);
    }
    // Only from the file's beginning on are records told for sure from what a container wrote into its text.
    let mut records = RecordBuffer::new(LogFormat::Local);
    let mut offset = 0;
    while offset < size {
        let count = records.fill(|bytes| Ok(pread(file, bytes, offset)?))?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        offset += count as u64;
        while records.next().is_some() {}
    }
    Ok(size - records.unfinished() as u64)
}

fn ends_with_record(file: BorrowedFd<'_>, size: u64) -> io::Result<bool> {
    let Some(start) = size.checked_sub(HEAD as u64) else { return Ok(size == 0) };
    let mut tail = [0; HEAD];
    if pread(file, &mut tail, start)? < HEAD {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let Some(length) = local::record_length(tail) else { return Ok(false) };
    let Some(start) = size.checked_sub(length as u64) else { return Ok(false) };
    let mut head = [0; HEAD];
    Ok(pread(file, &mut head, start)? == HEAD && head == tail)
}
