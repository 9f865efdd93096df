//! Packs (gitformat-pack(5)): objects one after the other, some as what differs from another one.
//!
//! A pack is read twice. The first time finds the objects and the ids of those that are whole; the second puts together
//! those that are not, each once, from the bases outwards, and keeps them in a file beside the pack. So an object is one
//! read away whatever it was made of, and memory has two objects at most. What has an id has the content that the id is
//! of, so that the pack's own checksum would say nothing more.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;

use flate2::bufread::ZlibDecoder;
use sha1::{Digest as _, Sha1};

use super::GitError;
use super::object::{Kind, ObjectId};

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;
/// Bytes of an object that is put together, at most: git itself makes no differences of files beyond half of that.
const DELTA_MAX: u64 = 1 << 30;
/// Bytes of all that is put together: a pack of a kilobyte can say any length.
const RESOLVED_MAX: u64 = 32 << 30;

/// Where an object is.
#[derive(Debug, Clone, Copy)]
struct Place {
    kind: Kind,
    /// In the pack, compressed; else in the file beside it, as it is.
    packed: bool,
    offset: u64,
    size: u64,
}

/// An object that is what differs from another one.
#[derive(Debug)]
struct Delta {
    /// Where its entry begins, which is what others know it by.
    entry: u64,
    base: Base,
    /// Where its compressed data begins, and their uncompressed length.
    offset: u64,
    size: u64,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Base {
    Entry(u64),
    Object(ObjectId),
}

/// A pack whose objects are known.
#[derive(Debug)]
pub(crate) struct Pack {
    file: File,
    resolved: File,
    length: u64,
    objects: HashMap<ObjectId, Place>,
}

/// Counts what is taken out of a buffer.
struct Counting<R> {
    source: R,
    position: u64,
}

impl<R: BufRead> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.position += length as u64;
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.source.consume(length);
        self.position += length as u64;
    }
}

/// Reads a file from a place on, whatever others read of it.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

fn broken(_: io::Error) -> GitError {
    GitError::Pack("it ends too early, or what is compressed in it is damaged")
}

impl Pack {
    /// Reads the pack in `file`; `resolved` is an empty file to write to.
    pub(crate) fn read(file: File, resolved: File) -> Result<Self, GitError> {
        let mut pack = Self { file, resolved, length: 0, objects: HashMap::new() };
        let (deltas, entries) = pack.scan()?;
        pack.resolve(deltas, entries)?;
        Ok(pack)
    }

    /// The first time: all entries. Those that are whole by where they begin.
    fn scan(&mut self) -> Result<(Vec<Delta>, HashMap<u64, ObjectId>), GitError> {
        let source = BufReader::with_capacity(BUFFER, At { file: &self.file, offset: 0 });
        let mut source = Counting { source, position: 0 };
        let mut head = [0; 12];
        source.read_exact(&mut head).map_err(broken)?;
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if !head.starts_with(b"PACK") || !matches!(number(4), 2 | 3) {
            return Err(GitError::Pack("it does not begin as a pack does"));
        }
        let (mut deltas, mut entries) = (Vec::new(), HashMap::new());
        for _ in 0..number(8) {
            let entry = source.position;
            let (code, size) = entry_header(&mut source)?;
            let kind = match code {
                1 => Some(Kind::Commit),
                2 => Some(Kind::Tree),
                3 => Some(Kind::Blob),
                4 => Some(Kind::Tag),
                6 | 7 => None,
                _ => return Err(GitError::Pack("an object is of no known kind")),
            };
            let base = match code {
                6 => {
                    let back = base_offset(&mut source)?;
                    let base = entry.checked_sub(back).filter(|_| back > 0);
                    Some(Base::Entry(base.ok_or(GitError::Pack("an object's base is outside of it"))?))
                }
                7 => {
                    let mut id = [0; 20];
                    source.read_exact(&mut id).map_err(broken)?;
                    Some(Base::Object(ObjectId(id)))
                }
                _ => None,
            };
            let offset = source.position;
            let mut hasher = Sha1::new();
            if let Some(kind) = kind {
                hasher.update(format!("{} {size}\0", kind.as_str()));
            }
            let found = inflate(&mut source, size, |bytes| hasher.update(bytes))?;
            if found != size {
                return Err(GitError::Pack("an object has another length than it says"));
            }
            match (kind, base) {
                (Some(kind), _) => {
                    let id = ObjectId(hasher.finalize().into());
                    self.objects.insert(id, Place { kind, packed: true, offset, size });
                    entries.insert(entry, id);
                }
                (None, Some(base)) => deltas.push(Delta { entry, base, offset, size }),
                (None, None) => {}
            }
        }
        Ok((deltas, entries))
    }

    /// The second time: what differs is put together, beginning with what lies over whole objects.
    fn resolve(&mut self, deltas: Vec<Delta>, mut entries: HashMap<u64, ObjectId>) -> Result<(), GitError> {
        let total = deltas.len();
        let mut waiting: HashMap<Base, Vec<Delta>> = HashMap::new();
        for delta in deltas {
            waiting.entry(delta.base_key()).or_default().push(delta);
        }
        let mut ready: Vec<(u64, ObjectId)> = entries.iter().map(|(entry, id)| (*entry, *id)).collect();
        let mut done = 0;
        while let Some((entry, id)) = ready.pop() {
            let by_entry = waiting.remove(&Base::Entry(entry)).unwrap_or_default();
            let by_id = waiting.remove(&Base::Object(id)).unwrap_or_default();
            if by_entry.is_empty() && by_id.is_empty() {
                continue;
            }
            let (kind, base) = self.object(&id)?;
            for delta in by_entry.into_iter().chain(by_id) {
                let content = self.apply(&base, &delta)?;
                let id = ObjectId::of(kind, &content);
                if let std::collections::hash_map::Entry::Vacant(place) = self.objects.entry(id) {
                    let (offset, size) = (self.length, content.len() as u64);
                    self.length += size;
                    if self.length > RESOLVED_MAX {
                        return Err(GitError::Pack("its objects are too long"));
                    }
                    let written = self.resolved.write_all_at(&content, offset);
                    written.map_err(|source| GitError::Write { path: "objects".to_owned(), source })?;
                    place.insert(Place { kind, packed: false, offset, size });
                }
                entries.insert(delta.entry, id);
                ready.push((delta.entry, id));
                done += 1;
            }
        }
        if done < total {
            return Err(GitError::Pack("the base of an object is not in it"));
        }
        Ok(())
    }

    fn apply(&self, base: &[u8], delta: &Delta) -> Result<Vec<u8>, GitError> {
        if delta.size > DELTA_MAX {
            return Err(GitError::Pack("an object is too long"));
        }
        let mut changes = Vec::new();
        let mut source = BufReader::with_capacity(BUFFER, At { file: &self.file, offset: delta.offset });
        inflate(&mut source, delta.size, |bytes| changes.extend_from_slice(bytes))?;
        patch(base, &changes).map_err(GitError::Pack)
    }

    fn place(&self, id: &ObjectId) -> Result<Place, GitError> {
        self.objects.get(id).copied().ok_or(GitError::Missing(*id))
    }

    /// The content of an object that is no large file.
    pub(super) fn object(&self, id: &ObjectId) -> Result<(Kind, Vec<u8>), GitError> {
        let place = self.place(id)?;
        if place.size > DELTA_MAX {
            return Err(GitError::Pack("an object is too long"));
        }
        let mut content = Vec::new();
        self.copy(id, &mut content)?;
        Ok((place.kind, content))
    }

    /// An object of this kind.
    pub(super) fn of_kind(&self, id: &ObjectId, kind: Kind) -> Result<Vec<u8>, GitError> {
        match self.object(id)? {
            (found, content) if found == kind => Ok(content),
            _ => Err(GitError::Object { id: *id, reason: "it is of another kind" }),
        }
    }

    /// Writes the content of an object.
    pub(super) fn copy(&self, id: &ObjectId, sink: &mut dyn Write) -> Result<(), GitError> {
        let place = self.place(id)?;
        let mut failed = Ok(());
        let mut write = |bytes: &[u8]| {
            if failed.is_ok() {
                failed = sink.write_all(bytes);
            }
        };
        if place.packed {
            let mut source = BufReader::with_capacity(BUFFER, At { file: &self.file, offset: place.offset });
            inflate(&mut source, place.size, &mut write)?;
        } else {
            let mut source =
                BufReader::with_capacity(BUFFER, At { file: &self.resolved, offset: place.offset });
            let mut left = place.size;
            while left > 0 {
                let bytes = source.fill_buf().map_err(broken)?;
                let part = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                if part == 0 {
                    return Err(GitError::Pack("it ends too early"));
                }
                write(&bytes[..part]);
                source.consume(part);
                left -= part as u64;
            }
        }
        failed.map_err(|source| GitError::Write { path: id.to_string(), source })
    }
}

impl Delta {
    fn base_key(&self) -> Base {
        match self.base {
            Base::Entry(entry) => Base::Entry(entry),
            Base::Object(id) => Base::Object(id),
        }
    }
}

/// Uncompresses to the end, but never more than `size` bytes; how many there were.
fn inflate(source: &mut impl BufRead, size: u64, mut take: impl FnMut(&[u8])) -> Result<u64, GitError> {
    let mut decoder = ZlibDecoder::new(source);
    let mut buffer = vec![0; 32 << 10];
    let mut length = 0;
    loop {
        match decoder.read(&mut buffer).map_err(broken)? {
            0 => return Ok(length),
            count => {
                length += count as u64;
                if length > size {
                    return Err(GitError::Pack("an object is longer than it says"));
                }
                take(&buffer[..count]);
            }
        }
    }
}

fn byte(source: &mut impl Read) -> Result<u8, GitError> {
    let mut byte = [0];
    source.read_exact(&mut byte).map_err(broken)?;
    Ok(byte[0])
}

/// Kind and length: three bits and four, then seven each while the first bit is set.
fn entry_header(source: &mut impl Read) -> Result<(u8, u64), GitError> {
    let mut next = byte(source)?;
    let (code, mut size, mut shift) = ((next >> 4) & 7, u64::from(next & 15), 4);
    while next & 0x80 != 0 {
        if shift > 56 {
            return Err(GitError::Pack("an object's length has no end"));
        }
        next = byte(source)?;
        size |= u64::from(next & 0x7f) << shift;
        shift += 7;
    }
    Ok((code, size))
}

/// How far back a base begins: seven bits each, the highest first, one added to all but the last.
fn base_offset(source: &mut impl Read) -> Result<u64, GitError> {
    let mut next = byte(source)?;
    let mut offset = u64::from(next & 0x7f);
    while next & 0x80 != 0 {
        if offset >= 1 << 48 {
            return Err(GitError::Pack("an object's base is outside of it"));
        }
        next = byte(source)?;
        offset = ((offset + 1) << 7) | u64::from(next & 0x7f);
    }
    Ok(offset)
}

/// Puts an object together out of its base and what differs (gitformat-pack(5), "Deltified representation").
fn patch(base: &[u8], changes: &[u8]) -> Result<Vec<u8>, &'static str> {
    const TORN: &str = "what differs of an object ends too early";
    let mut at = 0;
    let mut next = || {
        at += 1;
        changes.get(at - 1).copied().ok_or(TORN)
    };
    let mut length = || -> Result<u64, &'static str> {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = next()?;
            length |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(length);
            }
            if shift > 56 {
                return Err("an object's length has no end");
            }
        }
    };
    if length()? != base.len() as u64 {
        return Err("an object's base has another length");
    }
    let size = length()?;
    if size > DELTA_MAX {
        return Err("an object is too long");
    }
    let mut object = Vec::new();
    while at < changes.len() {
        let operation = changes[at];
        at += 1;
        if operation == 0 {
            return Err("an operation of what differs does not exist");
        }
        if operation & 0x80 == 0 {
            let end = at + usize::from(operation);
            object.extend_from_slice(changes.get(at..end).ok_or(TORN)?);
            at = end;
        } else {
            let mut field = |bits: std::ops::Range<u8>| -> Result<usize, &'static str> {
                let mut value = 0;
                for (place, bit) in bits.enumerate() {
                    if operation & (1 << bit) != 0 {
                        value |= usize::from(*changes.get(at).ok_or(TORN)?) << (8 * place);
                        at += 1;
                    }
                }
                Ok(value)
            };
            let from = field(0..4)?;
            let count = match field(4..7)? {
                0 => 0x10000,
                count => count,
            };
            let part = from.checked_add(count).and_then(|end| base.get(from..end));
            object.extend_from_slice(part.ok_or("a part of an object is outside of its base")?);
        }
        if object.len() as u64 > size {
            return Err("an object is longer than it says");
        }
    }
    if object.len() as u64 != size {
        return Err("an object has another length than it says");
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn pack(entries: &[Vec<u8>]) -> Result<Pack, GitError> {
        let mut bytes = b"PACK\0\0\0\x02".to_vec();
        bytes.extend((entries.len() as u32).to_be_bytes());
        bytes.extend(entries.concat());
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        Pack::read(file, tempfile::tempfile().unwrap())
    }

    #[test]
    fn puts_objects_together() {
        // The base; "hello " from it and "you" new; the same over that by id.
        let base = [vec![0x30 | 12], zlib(b"hello world\n")].concat();
        let changes = [12, 9, 0x90, 6, 3, b'y', b'o', b'u'];
        let delta = [vec![0x60 | 8, base.len() as u8], zlib(&changes)].concat();
        let middle = ObjectId::of(Kind::Blob, b"hello you");
        let again = [9, 4, 0x91, 5, 4];
        let by_id = [vec![0x70 | 5], middle.0.to_vec(), zlib(&again)].concat();
        let pack = pack(&[base, delta, by_id]).unwrap();
        for text in [&b"hello world\n"[..], b"hello you", b" you"] {
            let found = pack.of_kind(&ObjectId::of(Kind::Blob, text), Kind::Blob).unwrap();
            assert_eq!(found, text);
        }
        assert!(matches!(pack.object(&ObjectId([0; 20])), Err(GitError::Missing(_))));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let blob = |size: u8, text: &[u8]| [vec![0x30 | size], zlib(text)].concat();
        let orphan = [vec![0x70 | 5], vec![1; 20], zlib(&[9, 4, 0x91, 5, 4])].concat();
        let outside = [vec![0x60 | 5, 0x7f], zlib(&[9, 4, 0x91, 5, 4])].concat();
        for (name, entries) in [
            ("longer than it says", vec![blob(3, b"four")]),
            ("another length", vec![blob(5, b"four")]),
            ("base of an object is not in it", vec![orphan]),
            ("base is outside", vec![outside]),
            ("no known kind", vec![vec![0x50]]),
            ("ends too early", vec![vec![0x30 | 4, 0x78]]),
        ] {
            let error = pack(&entries).unwrap_err().to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
        for (changes, name) in [
            (&[3, 9, 0x90, 9][..], "outside of its base"),
            (&[4, 9], "base has another length"),
            (&[3, 9, 0], "does not exist"),
            (&[3, 9, 5, 1], "too early"),
            (&[3, 1, 2, 1, 1], "longer"),
            (&[3, 9, 1, 1], "another length"),
        ] {
            let error = patch(b"abc", changes).unwrap_err();
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
