//! What an archive has around the content of its files, kept so that the same archive can be written again.
//!
//! A layer's diff-id is the digest of an archive, and no two programs write the same archive of the same files:
//! formats, padding, the order of records differ. So while a layer is unpacked, everything of its archive that does
//! not become the content of a file is written to `framing.zst`: headers, long names, sparse maps, padding, the end.
//! To write the archive again, that file is read as the archive that it nearly is, and the files' content is put in
//! where it belongs. What comes out is hashed on the way: a layer that was tampered with is found out.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use dory_types::Digest;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::extract::{ExtractError, stored_path};
use super::input::{HashedInput, Hashing};
use super::{FILES, LayerRecord, Replaced};
use crate::directory;
use crate::tar_stream::{Entry, TarError, TarStream};

/// The file with everything but the files' content.
const FRAMING: &str = "framing.zst";
/// The directory with what the archive has twice.
pub(super) const REPLACED: &str = "replaced";
/// Headers differ little from one another: the fastest level makes a hundredth of them.
const LEVEL: i32 = 1;
/// How much of a file is read at once, in bytes.
const BUFFER: usize = 256 << 10;

/// A layer's archive cannot be written again.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// What the layer is made of cannot be read.
    #[error("cannot read the layer's files")]
    Layer(#[source] io::Error),
    /// The framing is damaged.
    #[error("the layer's framing is damaged")]
    Framing(#[from] TarError),
    /// A file is not there any more, or is shorter than it was.
    #[error("cannot read `{path}` of the layer")]
    File {
        /// Its name in the archive.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The receiver failed.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
    /// The files are not those that were unpacked.
    #[error("the files of layer `{expected}` have changed: their archive would be `{found}`")]
    Changed {
        /// The layer's diff-id.
        expected: Digest,
        /// What came out.
        found: Digest,
    },
}

/// Writes what is read through it to the framing, except while it is paused.
pub(super) struct Recorder<R> {
    source: HashedInput<R>,
    framing: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    paused: bool,
    /// `consume` cannot fail, so its failure waits for the next call that can.
    failure: Option<io::Error>,
}

impl<R: Read> Recorder<R> {
    /// Records into a new file in `staging`.
    pub(super) fn new(source: HashedInput<R>, staging: &OwnedFd) -> Result<Self, ExtractError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = fs::openat(staging, FRAMING, flags, Mode::from_raw_mode(0o600));
        let file = BufWriter::new(File::from(file.map_err(ExtractError::Root)?));
        let framing = zstd::stream::write::Encoder::new(file, LEVEL).map_err(ExtractError::Framing)?;
        Ok(Self { source, framing, paused: false, failure: None })
    }

    /// Begins or ends a part that is kept elsewhere.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Reads the rest, which has no entries any more; the digest and the length of the whole archive.
    pub(super) fn finish(mut self) -> Result<(Digest, u64), ExtractError> {
        loop {
            let length = self.fill_buf().map_err(ExtractError::Read)?.len();
            if length == 0 {
                break;
            }
            self.consume(length);
        }
        let mut file = self.framing.finish().map_err(ExtractError::Framing)?;
        file.flush().map_err(ExtractError::Framing)?;
        Ok(self.source.finish())
    }
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: Read> BufRead for Recorder<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.source.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        if !self.paused && length > 0 {
            // The bytes are in the buffer: whoever consumes them has just seen them.
            let written = self.source.fill_buf().and_then(|bytes| self.framing.write_all(&bytes[..length]));
            self.failure = written.err();
        }
        self.source.consume(length);
    }
}

/// Writes the archive of the layer in `directory`, byte for byte as it was unpacked and uncompressed, to `sink`.
pub(crate) fn write_archive(
    directory: BorrowedFd<'_>,
    diff_id: &Digest,
    record: &LayerRecord,
    sink: &mut dyn Write,
) -> Result<(), ExportError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let framing = fs::openat(directory, FRAMING, flags, Mode::empty()).map_err(layer_error)?;
    let framing = zstd::stream::read::Decoder::new(File::from(framing)).map_err(ExportError::Layer)?;
    let sources = Sources {
        files: directory::open_child(directory, FILES).map_err(layer_error)?,
        replaced: match record.replaced.is_empty() {
            true => None,
            false => Some(directory::open_child(directory, REPLACED).map_err(layer_error)?),
        },
        record,
    };
    let mut archive = TarStream::new(Replay {
        framing: BufReader::new(framing),
        sink: HashingSink::new(sink),
        failure: None,
    });
    let mut buffer = vec![0; BUFFER];
    let mut position = 0;
    while let Some(entry) = archive.next_entry()? {
        if let Some(path) = stored_path(&entry).ok().flatten() {
            let file = sources.open(&path, position).map_err(|errno| file_error(&entry, errno.into()))?;
            archive.replace_payload();
            archive.input().put_content(&file, &entry, &mut buffer)?;
        }
        position += 1;
    }
    let found = archive.into_inner().finish()?;
    if found != *diff_id {
        return Err(ExportError::Changed { expected: *diff_id, found });
    }
    Ok(())
}

fn layer_error(errno: Errno) -> ExportError {
    ExportError::Layer(errno.into())
}

fn file_error(entry: &Entry, source: io::Error) -> ExportError {
    ExportError::File { path: entry.display(), source }
}

/// Where the content of files comes from.
struct Sources<'a> {
    files: OwnedFd,
    replaced: Option<OwnedFd>,
    record: &'a LayerRecord,
}

impl Sources<'_> {
    /// Opens what the entry at `position` made: it lies in its place, unless a later entry took that.
    fn open(&self, path: &[u8], position: u64) -> Result<File, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if let Some(replaced) = &self.replaced {
            let later = self.record.replaced.iter().filter(|replaced| replaced.entry > position);
            let moved = later.filter_map(|replaced| Some((replaced.entry, beneath(replaced, path)?)));
            if let Some((entry, rest)) = moved.min_by_key(|(entry, _)| *entry) {
                let path = [entry.to_string().as_bytes(), rest].concat();
                return directory::open_file_in_root(replaced, &path, flags).map(File::from);
            }
        }
        directory::open_file_in_root(&self.files, path, flags).map(File::from)
    }
}

/// What follows the replaced path in `path`: nothing, or a slash and more.
fn beneath<'a>(replaced: &Replaced, path: &'a [u8]) -> Option<&'a [u8]> {
    path.strip_prefix(replaced.path.as_slice()).filter(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Hashes what is written through it.
struct HashingSink<'a> {
    sink: &'a mut dyn Write,
    hashing: Hashing,
}

impl<'a> HashingSink<'a> {
    fn new(sink: &'a mut dyn Write) -> Self {
        Self { sink, hashing: Hashing::default() }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hashing.update(bytes);
        self.sink.write_all(bytes)
    }
}

/// Reads the framing, and writes everything that was read of it.
struct Replay<'a, R> {
    framing: BufReader<R>,
    sink: HashingSink<'a>,
    /// The receiver's failure, which `consume` cannot tell.
    failure: Option<io::Error>,
}

impl<R: Read> Replay<'_, R> {
    /// Writes the content that `entry` has in the archive.
    fn put_content(&mut self, file: &File, entry: &Entry, buffer: &mut [u8]) -> Result<(), ExportError> {
        let whole = [(0, entry.size)];
        let segments = entry.sparse.as_ref().map_or(whole.as_slice(), |map| map.segments.as_slice());
        for &(mut offset, mut left) in segments {
            while left > 0 {
                let part = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                file.read_exact_at(&mut buffer[..part], offset)
                    .map_err(|source| file_error(entry, source))?;
                self.sink.put(&buffer[..part]).map_err(ExportError::Write)?;
                offset += part as u64;
                left -= part as u64;
            }
        }
        Ok(())
    }

    /// Writes what follows the last entry; the digest of everything.
    fn finish(mut self) -> Result<Digest, ExportError> {
        loop {
            let length = self.fill_buf().map_err(ExportError::Write)?.len();
            if length == 0 {
                return Ok(self.sink.hashing.finish().0);
            }
            self.consume(length);
        }
    }
}

impl<R: Read> Read for Replay<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: Read> BufRead for Replay<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.framing.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        let written = self.framing.fill_buf().and_then(|bytes| self.sink.put(&bytes[..length]));
        self.failure = written.err();
        self.framing.consume(length);
    }
}
