//! A tar stream as a sequence of entries: ustar, GNU and pax, with sparse files of every form in use.
//!
//! Header blocks are those of the `tar` crate; its entry iterator is not used, because it reads long names and pax
//! records of any length into memory and fills the holes of sparse files. Nothing here trusts a number of the
//! archive: what is kept in memory is bounded by the constants below.

use std::io::{self, BufRead, Read};

use tar::{EntryType, Header};

mod pax;
mod sparse;

use pax::PaxRecords;
pub(crate) use sparse::SparseMap;

/// The unit of the format, in bytes.
pub(crate) const BLOCK: usize = 512;
/// The longest name or set of pax records, in bytes; Go's reader has the same bound.
const METADATA_LENGTH_MAX: u64 = 1 << 20;

/// The stream is not a tar archive, or breaks off.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The source failed, or ended within an entry.
    #[error("cannot read the archive")]
    Read(#[from] io::Error),
    /// A header's checksum is wrong.
    #[error("the archive is damaged: the header at byte {0} has a wrong checksum")]
    Checksum(u64),
    /// A header's number has no value.
    #[error("the archive is damaged: the {field} of `{path}` is not a number in range")]
    Number {
        /// Which field.
        field: &'static str,
        /// The entry's name.
        path: String,
    },
    /// A long name or a set of pax records is longer than any sensible one.
    #[error("the archive's metadata record at byte {0} is too long")]
    MetadataTooLong(u64),
    /// The pax records do not have the form `length key=value`.
    #[error("the archive is damaged: the pax records before byte {0} are malformed")]
    Pax(u64),
    /// The map of a sparse file contradicts itself.
    #[error("the archive is damaged: the sparse map of `{0}` is malformed")]
    Sparse(String),
}

/// One member: what its headers say.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link_name: Vec<u8>,
    pub(crate) kind: EntryType,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) modified: (i64, u32),
    pub(crate) device: (u32, u32),
    /// Name without the `SCHILY.xattr.` prefix, and value.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of the payload in the archive, in bytes.
    pub(crate) size: u64,
    pub(crate) sparse: Option<SparseMap>,
}

impl Entry {
    /// The path for messages.
    pub(crate) fn display(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// Reads entries one after the other; the payload of the current one is read through `Read` and `BufRead`.
pub(crate) struct TarStream<R> {
    input: R,
    /// Bytes of the current payload that were not read yet.
    payload: u64,
    /// Zeros behind the payload, up to the next block.
    padding: u64,
    /// How many bytes of the archive were read.
    position: u64,
    ended: bool,
}

impl<R: BufRead> TarStream<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, payload: 0, padding: 0, position: 0, ended: false }
    }

    /// The source, behind what was read of it.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// The source, at the place up to which it was read.
    pub(crate) fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// Says that the source lacks the current payload: what follows in it is the payload's padding.
    pub(crate) fn replace_payload(&mut self) {
        self.payload = 0;
    }

    /// The next entry; what was not read of the current payload is passed over. `None` at the end of the archive.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut long_path = None;
        let mut long_link = None;
        let mut records = PaxRecords::default();
        while let Some(header) = self.next_header()? {
            match header.entry_type() {
                EntryType::GNULongName => long_path = Some(self.read_metadata()?),
                EntryType::GNULongLink => long_link = Some(self.read_metadata()?),
                EntryType::XHeader => {
                    let text = self.read_metadata()?;
                    records = PaxRecords::parse(&text).ok_or(TarError::Pax(self.position))?;
                }
                EntryType::XGlobalHeader => {}
                _ => return self.entry(&header, long_path, long_link, records).map(Some),
            }
        }
        Ok(None)
    }

    /// Puts an entry together from its header and the records that came before it.
    fn entry(
        &mut self,
        header: &Header,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        records: PaxRecords,
    ) -> Result<Entry, TarError> {
        let path = records.path.or(long_path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link_name = records.link_path.or(long_link);
        let link_name = link_name.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let display = String::from_utf8_lossy(&path).into_owned();
        let number = |field: &'static str, value: Option<i64>| {
            value.ok_or_else(|| TarError::Number { field, path: display.clone() })
        };
        let id = |field: &'static str, value: Option<i64>| {
            u32::try_from(number(field, value)?)
                .map_err(|_| TarError::Number { field, path: display.clone() })
        };
        let old = header.as_old();
        let kind = entry_kind(header.entry_type(), &path);
        let devices = header.as_ustar().map(|header| (header.dev_major, header.dev_minor));
        let devices = devices.or_else(|| header.as_gnu().map(|header| (header.dev_major, header.dev_minor)));
        let (major, minor) = devices.unwrap_or_default();
        let mut entry = Entry {
            link_name: link_name.unwrap_or_default(),
            kind,
            mode: (number("mode", numeric(&old.mode))? & 0o7777) as u32,
            uid: id("uid", records.uid.or_else(|| numeric(&old.uid)))?,
            gid: id("gid", records.gid.or_else(|| numeric(&old.gid)))?,
            modified: records
                .modified
                .map_or_else(|| number("mtime", numeric(&old.mtime)).map(|at| (at, 0)), Ok)?,
            device: (id("major", numeric(&major))?, id("minor", numeric(&minor))?),
            xattrs: records.xattrs,
            size: self.payload,
            sparse: None,
            path,
        };
        self.set_payload(payload_size(kind, records.size, self.payload, &display)?);
        entry.size = self.payload;
        if kind == EntryType::GNUSparse {
            entry.sparse = Some(self.old_gnu_map(header, &display)?);
            entry.kind = EntryType::Regular;
        } else if let Some(sparse) = records.sparse {
            entry.sparse = Some(self.pax_map(&sparse, &display)?);
            if let Some(name) = sparse.name {
                entry.path = name;
            }
        }
        Ok(entry)
    }

    /// The next header block; `None` at the end. Sets the payload to what the header's own size field says.
    fn next_header(&mut self) -> Result<Option<Header>, TarError> {
        self.skip_payload()?;
        if self.ended {
            return Ok(None);
        }
        let at = self.position;
        let mut block = [0; BLOCK];
        // An archive without end marker is one that ends between two entries; Go and GNU tar read it too.
        if !self.read_block(&mut block)? || block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        if !checksum_matches(&block) {
            return Err(TarError::Checksum(at));
        }
        let header = Header::from_byte_slice(&block).clone();
        let size = numeric(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
        let path = || String::from_utf8_lossy(&header.path_bytes()).into_owned();
        let size = size.ok_or_else(|| TarError::Number { field: "size", path: path() })?;
        self.set_payload(size);
        Ok(Some(header))
    }

    /// Says how long the payload is that begins here.
    fn set_payload(&mut self, size: u64) {
        self.payload = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// Passes over what is left of the payload and its padding.
    fn skip_payload(&mut self) -> Result<(), TarError> {
        self.payload += self.padding;
        self.padding = 0;
        while self.payload > 0 {
            let length = self.fill_buf()?.len();
            self.consume(length);
        }
        Ok(())
    }

    /// Reads the payload as a name or as pax records.
    fn read_metadata(&mut self) -> Result<Vec<u8>, TarError> {
        if self.payload > METADATA_LENGTH_MAX {
            return Err(TarError::MetadataTooLong(self.position));
        }
        let mut text = Vec::new();
        self.read_to_end(&mut text)?;
        // GNU ends its long names with a zero byte; pax records end with a line feed.
        while text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    /// Fills `block`; false where the source ended before its first byte.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(false);
        }
        self.input.read_exact(block)?;
        self.position += BLOCK as u64;
        Ok(true)
    }
}

impl<R: BufRead> Read for TarStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let length = available.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for TarStream<R> {
    /// What the source has of the current payload without another copy; empty at the payload's end.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.payload == 0 {
            return Ok(&[]);
        }
        let available = self.input.fill_buf()?;
        if available.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within an entry"));
        }
        let length =
            usize::try_from(self.payload).map_or(available.len(), |payload| payload.min(available.len()));
        Ok(&available[..length])
    }

    fn consume(&mut self, length: usize) {
        self.input.consume(length);
        self.payload -= length as u64;
        self.position += length as u64;
    }
}

/// The kind that an entry is treated as: old archives mark directories by a slash only, contiguous files are files.
fn entry_kind(kind: EntryType, path: &[u8]) -> EntryType {
    match kind {
        EntryType::Regular if path.ends_with(b"/") => EntryType::Directory,
        EntryType::Continuous => EntryType::Regular,
        other => other,
    }
}

/// How many bytes follow the header: kinds without content have none, whatever their size field says (as in Go).
fn payload_size(kind: EntryType, pax: Option<i64>, header: u64, path: &str) -> Result<u64, TarError> {
    use EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
    let out_of_range = || TarError::Number { field: "size", path: path.to_owned() };
    let size = pax.map_or(Ok(header), |size| u64::try_from(size).map_err(|_| out_of_range()))?;
    // Room for the padding: no sum of sizes below may overflow.
    if size > i64::MAX as u64 {
        return Err(out_of_range());
    }
    Ok(if matches!(kind, Link | Symlink | Char | Block | Directory | Fifo) { 0 } else { size })
}

/// True where the block's bytes add up to its checksum field, that field itself counted as spaces.
fn checksum_matches(block: &[u8; BLOCK]) -> bool {
    const FIELD: std::ops::Range<usize> = 148..156;
    let sum: i64 = block.iter().map(|byte| i64::from(*byte)).sum();
    let field: i64 = block[FIELD].iter().map(|byte| i64::from(*byte)).sum();
    numeric(&block[FIELD]) == Some(sum - field + 8 * i64::from(b' '))
}

/// True where `block` can be the first of a tar archive.
pub(crate) fn looks_like_tar(block: &[u8]) -> bool {
    let Some(block) = block.first_chunk::<BLOCK>() else { return false };
    checksum_matches(block) || block.iter().all(|byte| *byte == 0)
}

/// The name without empty components and `.`, and with `..` taken back, as Go's `filepath.Clean` does; absolute
/// names are taken relative, and `None` is one that climbs out.
pub(crate) fn clean_path(name: &[u8]) -> Option<Vec<u8>> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop()?;
            }
            component => components.push(component),
        }
    }
    Some(components.join(&b'/'))
}

/// A header's number: octal text, or GNU's big-endian base 256 where the first bit is set; blank is 0.
fn numeric(field: &[u8]) -> Option<i64> {
    if field.first()? & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let start = i128::from(field[0] & 0x3f) - if negative { 64 } else { 0 };
        let value = field[1..]
            .iter()
            .try_fold(start, |value, byte| value.checked_mul(256).map(|value| value + i128::from(*byte)))?;
        return i64::try_from(value).ok();
    }
    let text = std::str::from_utf8(field).ok()?;
    let text = text.split('\0').next().unwrap_or_default().trim();
    if text.is_empty() { Some(0) } else { i64::from_str_radix(text, 8).ok().filter(|value| *value >= 0) }
}

#[cfg(test)]
mod tests;
