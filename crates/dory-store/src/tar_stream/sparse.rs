//! Maps of sparse files: which parts of a file its payload has; all else is a hole.

use std::io::{BufRead, Read};

use tar::Header;

use super::pax::PaxSparse;
use super::{BLOCK, TarError, TarStream, numeric};

/// The most segments that a file may have; with two numbers each they take 16 MiB.
const SEGMENTS_MAX: usize = 1 << 20;

/// Where the bytes of a sparse file's payload belong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// The file's length with its holes, in bytes.
    pub(crate) real_size: u64,
    /// Offset and length of each segment, in the payload's order.
    pub(crate) segments: Vec<(u64, u64)>,
}

impl SparseMap {
    /// The map, where its segments ascend within `real_size` and add up to the `payload`.
    fn checked(real_size: u64, numbers: &[u64], payload: u64) -> Option<Self> {
        let mut end = 0;
        let mut total: u64 = 0;
        let mut segments = Vec::with_capacity(numbers.len() / 2);
        for pair in numbers.chunks(2) {
            let &[offset, length] = pair else { return None };
            if offset < end {
                return None;
            }
            end = offset.checked_add(length).filter(|end| *end <= real_size)?;
            total += length;
            if length > 0 {
                segments.push((offset, length));
            }
        }
        (total == payload && real_size <= i64::MAX as u64).then_some(Self { real_size, segments })
    }
}

impl<R: BufRead> TarStream<R> {
    /// Reads the map of an old GNU sparse entry: four segments in its header, more in blocks behind it.
    pub(super) fn old_gnu_map(&mut self, header: &Header, path: &str) -> Result<SparseMap, TarError> {
        let malformed = || TarError::Sparse(path.to_owned());
        let gnu = header.as_gnu().ok_or_else(malformed)?;
        let mut numbers = Vec::new();
        for segment in &gnu.sparse {
            push_segment(&mut numbers, &segment.offset, &segment.numbytes).ok_or_else(malformed)?;
        }
        let mut extended = gnu.isextended[0] != 0;
        while extended {
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? || numbers.len() > 2 * SEGMENTS_MAX {
                return Err(malformed());
            }
            for segment in block[..21 * 24].chunks_exact(24) {
                push_segment(&mut numbers, &segment[..12], &segment[12..]).ok_or_else(malformed)?;
            }
            extended = block[21 * 24] != 0;
        }
        let real_size =
            numeric(&gnu.realsize).and_then(|size| u64::try_from(size).ok()).ok_or_else(malformed)?;
        SparseMap::checked(real_size, &numbers, self.payload).ok_or_else(malformed)
    }

    /// The map of a sparse entry in pax form; version 1.0 has it at the start of the payload.
    pub(super) fn pax_map(&mut self, sparse: &PaxSparse, path: &str) -> Result<SparseMap, TarError> {
        let malformed = || TarError::Sparse(path.to_owned());
        let numbers = if sparse.map_in_payload { self.map_in_payload(path)? } else { sparse.numbers.clone() };
        let real_size = sparse.real_size.ok_or_else(malformed)?;
        SparseMap::checked(real_size, &numbers, self.payload).ok_or_else(malformed)
    }

    /// Reads `count\n` and then that many pairs of lines, padded to a whole block.
    fn map_in_payload(&mut self, path: &str) -> Result<Vec<u64>, TarError> {
        let malformed = || TarError::Sparse(path.to_owned());
        let mut read = 0;
        let count = self.map_line(&mut read).ok_or_else(malformed)?;
        let count =
            usize::try_from(count).ok().filter(|count| *count <= SEGMENTS_MAX).ok_or_else(malformed)?;
        let mut numbers = Vec::new();
        for _ in 0..2 * count {
            numbers.push(self.map_line(&mut read).ok_or_else(malformed)?);
        }
        let padding = read.next_multiple_of(BLOCK as u64) - read;
        let skipped = std::io::copy(&mut self.by_ref().take(padding), &mut std::io::sink())?;
        if skipped == padding { Ok(numbers) } else { Err(malformed()) }
    }

    /// One decimal number and its line feed; `read` counts the bytes.
    fn map_line(&mut self, read: &mut u64) -> Option<u64> {
        let mut line = Vec::new();
        self.by_ref().take(21).read_until(b'\n', &mut line).ok()?;
        *read += line.len() as u64;
        std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?.parse().ok()
    }
}

/// Adds one segment of a GNU header; unused ones are blank.
fn push_segment(numbers: &mut Vec<u64>, offset: &[u8], length: &[u8]) -> Option<()> {
    if offset[0] == 0 || length[0] == 0 {
        return Some(());
    }
    for field in [offset, length] {
        numbers.push(u64::try_from(numeric(field)?).ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_ascend_and_add_up() {
        let map = SparseMap::checked(100, &[0, 10, 50, 20, 100, 0], 30).unwrap();
        assert_eq!(map.segments, [(0, 10), (50, 20)]);
        let wrong: [(u64, &[u64], u64); 5] = [
            (100, &[0, 10], 11),
            (100, &[50, 10, 0, 10], 20),
            (100, &[90, 20], 20),
            (100, &[1], 1),
            (u64::MAX, &[u64::MAX, 1], 1),
        ];
        for (real_size, numbers, payload) in wrong {
            assert_eq!(SparseMap::checked(real_size, numbers, payload), None, "{numbers:?}");
        }
    }
}
