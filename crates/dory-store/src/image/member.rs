//! Members of an image archive on their way from the stream to whoever unpacks them.
//!
//! An archive names its layers only at its end, and it may be a stream that is read once. So every member that looks
//! like a layer is put into an unlinked file, which another thread unpacks while it still grows.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::{self, AtFlags, Mode, OFlags};

use crate::record::temporary_name;

/// A member's bytes, written by one thread and read by others behind it.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    progress: Mutex<Progress>,
    grown: Condvar,
}

/// How far the writer is.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    written: u64,
    end: Option<End>,
}

/// How the writing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    BrokenOff,
}

impl Spool {
    /// An empty file in `directory` that has no name.
    pub(super) fn new(directory: impl AsFd) -> io::Result<Self> {
        let name = temporary_name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = fs::openat(&directory, &name, flags, Mode::from_raw_mode(0o600))?;
        fs::unlinkat(&directory, &name, AtFlags::empty())?;
        Ok(Self { file: file.into(), progress: Mutex::default(), grown: Condvar::new() })
    }

    /// Copies `source` to its end; readers learn of a failure too. `on_growth` is told the bytes so far.
    pub(super) fn fill(&self, source: &mut impl BufRead, mut on_growth: impl FnMut(u64)) -> io::Result<()> {
        let copied = self.copy(source, &mut on_growth);
        let end = if copied.is_ok() { End::Whole } else { End::BrokenOff };
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).end = Some(end);
        self.grown.notify_all();
        copied
    }

    fn copy(&self, source: &mut impl BufRead, on_growth: &mut dyn FnMut(u64)) -> io::Result<()> {
        let mut written = 0;
        loop {
            let available = source.fill_buf()?;
            if available.is_empty() {
                return Ok(());
            }
            self.file.write_all_at(available, written)?;
            let length = available.len();
            source.consume(length);
            written += length as u64;
            self.progress.lock().unwrap_or_else(PoisonError::into_inner).written = written;
            self.grown.notify_all();
            on_growth(written);
        }
    }

    /// A reader from the start.
    pub(super) fn reader(self: &Arc<Self>) -> SpoolReader {
        SpoolReader { spool: Arc::clone(self), position: 0 }
    }
}

/// Reads a spool, and waits where it has read all that is written so far.
#[derive(Debug)]
pub(super) struct SpoolReader {
    spool: Arc<Spool>,
    position: u64,
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let progress = self.spool.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |progress: &mut Progress| progress.written == self.position && progress.end.is_none();
        let progress = *self.spool.grown.wait_while(progress, waits).unwrap_or_else(PoisonError::into_inner);
        if progress.written == self.position {
            return match progress.end {
                Some(End::BrokenOff) => {
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive broke off"))
                }
                _ => Ok(0),
            };
        }
        let available = usize::try_from(progress.written - self.position).unwrap_or(usize::MAX);
        let length = buffer.len().min(available);
        let read = self.spool.file.read_at(&mut buffer[..length], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_follow_the_writer() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(File::open(directory.path()).unwrap()).unwrap());
        let content: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    let mut reader = spool.reader();
                    scope.spawn(move || {
                        let mut read = Vec::new();
                        reader.read_to_end(&mut read).map(|_| read)
                    })
                })
                .collect();
            spool.fill(&mut io::BufReader::with_capacity(777, content.as_slice()), |_| {}).unwrap();
            for reader in readers {
                assert!(reader.join().unwrap().unwrap() == content);
            }
        });
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn readers_learn_that_the_source_broke() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(File::open(directory.path()).unwrap()).unwrap());
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        assert!(spool.fill(&mut io::BufReader::new(Broken), |_| {}).is_err());
        assert_eq!(spool.reader().read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
