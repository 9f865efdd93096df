//! One open file of a chain, plain or compressed, and how far it has been read.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use flate2::bufread::GzDecoder;
use rustix::fs::fstat;
use rustix::io::pread;

use super::tail;
use crate::config::LogFormat;
use crate::frames::RecordBuffer;
use crate::identity::FileIdentity;
use crate::rotate::{chain_name, compressed_name, open_read};

/// An open file.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) identity: FileIdentity,
    content: Content,
    /// Records to pass over before the first one that is wanted.
    pub(super) surplus: u64,
}

#[derive(Debug)]
enum Content {
    Plain { file: OwnedFd, offset: u64 },
    Compressed(Box<GzDecoder<BufReader<File>>>),
}

impl LogFile {
    /// Opens file `index` of the chain, in whichever form it is; `None` where there is none.
    ///
    /// The plain one is looked for first: it goes when the other is there already.
    pub(super) fn open(dir: BorrowedFd<'_>, name: &str, index: u32) -> io::Result<Option<Self>> {
        if let Some(file) = open_read(dir, &chain_name(name, index))? {
            let identity = FileIdentity::of(file.as_fd())?;
            return Ok(Some(Self { identity, content: Content::Plain { file, offset: 0 }, surplus: 0 }));
        }
        let compressed = if index == 0 { None } else { open_read(dir, &compressed_name(name, index))? };
        compressed.map(Self::decompress).transpose()
    }

    fn decompress(file: OwnedFd) -> io::Result<Self> {
        let own = FileIdentity::of(file.as_fd())?;
        let decoder = GzDecoder::new(BufReader::new(File::from(file)));
        let comment = decoder.header().and_then(|header| header.comment());
        // One that somebody else made stands for itself.
        let identity = comment.and_then(FileIdentity::parse).unwrap_or(own);
        Ok(Self { identity, content: Content::Compressed(Box::new(decoder)), surplus: 0 })
    }

    /// Reads on into `records`; 0 at the present end.
    pub(super) fn read(&mut self, records: &mut RecordBuffer) -> io::Result<usize> {
        match &mut self.content {
            Content::Plain { file, offset } => {
                let length = records.fill(|bytes| Ok(pread(&*file, bytes, *offset)?))?;
                *offset += length as u64;
                // dockerd truncates a log without rotation files, and so do people who clear one by hand.
                if length == 0 && (fstat(&*file)?.st_size as u64) < *offset {
                    *offset = 0;
                    records.clear();
                }
                Ok(length)
            }
            Content::Compressed(decoder) => match records.fill(|bytes| decoder.read(bytes)) {
                // What can be read of a damaged file was read.
                Err(error) if is_damage(&error) => Ok(0),
                other => other,
            },
        }
    }

    /// Passes over all but the last `count` records; returns how many are left.
    ///
    /// An unfinished last record does not count, and is left, so that it is read once it is finished.
    pub(super) fn seek_to_last(&mut self, count: u64, format: LogFormat) -> io::Result<u64> {
        if let Content::Plain { file, offset } = &mut self.content
            && let Some((start, found)) = tail::start_of_last(file.as_fd(), count, format)?
        {
            *offset = start;
            return Ok(found);
        }
        let mut records = RecordBuffer::new(format);
        let mut total: u64 = 0;
        while self.read(&mut records)? > 0 {
            while records.next().is_some() {
                total += 1;
            }
        }
        self.rewind()?;
        self.surplus = total.saturating_sub(count);
        Ok(total.min(count))
    }

    fn rewind(&mut self) -> io::Result<()> {
        match &mut self.content {
            Content::Plain { offset, .. } => *offset = 0,
            Content::Compressed(decoder) => {
                let file = decoder.get_ref().get_ref().try_clone()?;
                io::Seek::rewind(&mut &file)?;
                **decoder = GzDecoder::new(BufReader::new(file));
            }
        }
        Ok(())
    }

    /// True where the chain has dropped it; a compressed file never comes to this question.
    pub(super) fn is_deleted(&self) -> io::Result<bool> {
        match &self.content {
            Content::Plain { file, .. } => Ok(fstat(file)?.st_nlink == 0),
            Content::Compressed(decoder) => Ok(fstat(decoder.get_ref().get_ref())?.st_nlink == 0),
        }
    }
}

fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
    )
}
