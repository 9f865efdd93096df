//! Compressions of archives, recognised by their first bytes as Docker does.

use std::io::{self, BufReader, Cursor, Read};

/// The buffer between a compressed source and its decompressor, in bytes: fewer and larger reads of the source.
const SOURCE_BUFFER: usize = 128 << 10;

/// KiB that an xz stream may ask for: twice the dictionary of `xz -9`. Its header could ask for 4 GiB.
const XZ_MEMORY_MAX: u32 = 128 << 10;

/// How many bytes are enough to recognise every form: one tar header.
pub(crate) const SNIFF_LENGTH: usize = 512;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
    /// Any number of streams.
    Bzip2,
    /// The .xz file format 1.2, any number of streams.
    Xz,
}

impl Compression {
    /// Recognises the compression of a stream that begins with `start`.
    pub(crate) fn of(start: &[u8]) -> Self {
        const MAGICS: [(&[u8], Compression); 4] = [
            (&[0x1f, 0x8b, 0x08], Compression::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (b"BZh", Compression::Bzip2),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
        ];
        let is_skippable_frame = matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        match MAGICS.iter().find(|(magic, _)| start.starts_with(magic)) {
            Some((_, compression)) => *compression,
            None if is_skippable_frame => Self::Zstd,
            None => Self::None,
        }
    }
}

/// A source whose first bytes were read, and are read again.
pub(crate) type Sniffed<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Reads the first bytes of `source`, and gives back a reader that still has them.
pub(crate) fn sniff<R: Read>(mut source: R) -> io::Result<(Vec<u8>, Sniffed<R>)> {
    let mut start = Vec::with_capacity(SNIFF_LENGTH);
    source.by_ref().take(SNIFF_LENGTH as u64).read_to_end(&mut start)?;
    Ok((start.clone(), Cursor::new(start).chain(source)))
}

/// The uncompressed form of `source`.
///
/// # Errors
/// Where a decompressor cannot be set up.
pub(crate) fn decompress<'a, R: Read + Send + 'a>(
    source: R,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let buffered = |source| BufReader::with_capacity(SOURCE_BUFFER, source);
    match compression {
        Compression::None => Ok(Box::new(source)),
        Compression::Gzip => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(buffered(source)))),
        Compression::Zstd => Ok(Box::new(zstd::stream::read::Decoder::new(source)?)),
        Compression::Bzip2 => Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(source)))),
        Compression::Xz => {
            Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(buffered(source), true, XZ_MEMORY_MAX)))
        }
    }
}

/// Bytes of a member's header (POSIX.1-2017, pax "ustar Interchange Format").
const HEADER: usize = 512;

/// Whether `file` is a tar archive, by itself or compressed in one of the known ways.
pub fn is_archive(file: impl Read + Send) -> bool {
    let Ok((start, source)) = sniff(file) else { return false };
    let mut header = [0; HEADER];
    let read = decompress(source, Compression::of(&start)).and_then(|mut tar| tar.read_exact(&mut header));
    let parsed = tar::Header::from_byte_slice(&header);
    // The checksum counts its own field as blanks.
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    read.is_ok() && parsed.cksum().is_ok_and(|checksum| checksum == sum)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn recognises_and_reads_each_form() {
        let text = b"some bytes".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text[..5000]).unwrap();
        let mut gzip_members = gzip.finish().unwrap();
        let mut second = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        second.write_all(&text[5000..]).unwrap();
        gzip_members.extend(second.finish().unwrap());
        let zstd = zstd::encode_all(text.as_slice(), 1).unwrap();
        for (bytes, expected) in
            [(text.clone(), Compression::None), (gzip_members, Compression::Gzip), (zstd, Compression::Zstd)]
        {
            let (start, source) = sniff(bytes.as_slice()).unwrap();
            assert_eq!(Compression::of(&start), expected);
            let mut read = Vec::new();
            decompress(source, expected).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, text);
        }
    }

    /// `printf 'some bytes' | bzip2` and `| xz`, twice each.
    #[test]
    fn reads_what_is_never_written_here() {
        let bzip2 = "425a68393141592653595accb8cf0000031180400012028c2020002190c210c08dce8e076f8bb9229c28482d665c6780";
        let xz = "fd377a585a000004e6d6b4460200210116000000742fe5a3010009736f6d65206279746573000000abf98a36ee82a37d0001220a151ae1671fb6f37d010000000004595a";
        for (hex, expected) in [(bzip2, Compression::Bzip2), (xz, Compression::Xz)] {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let once: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            let twice = once.repeat(2);
            assert_eq!(Compression::of(&twice), expected);
            let mut text = String::new();
            decompress(twice.as_slice(), expected).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "some bytessome bytes");
            let torn = decompress(&once[..once.len() - 9], expected).unwrap().read_to_string(&mut text);
            assert!(torn.is_err(), "{expected:?}");
        }
    }

    #[test]
    fn short_streams() {
        let (start, _) = sniff(&b"\x1f"[..]).unwrap();
        assert_eq!(Compression::of(&start), Compression::None);
        assert!(!is_archive(&b"\xfd7zXZ\0"[..]));
    }
}
