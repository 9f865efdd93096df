//! Compressions of archives, recognised by their first bytes as Docker does.

use std::io::{self, BufReader, Cursor, Read};

/// The buffer between a compressed source and its decompressor, in bytes: fewer and larger reads of the source.
const SOURCE_BUFFER: usize = 128 << 10;

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
    /// Recognised so that it can be refused by name.
    Bzip2,
    /// Recognised so that it can be refused by name.
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
/// `Unsupported` for a compression that is known and not read here.
pub(crate) fn decompress<'a, R: Read + Send + 'a>(
    source: R,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let unsupported = |name: &str| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{name} compression is not supported: use gzip, zstd or none"),
        )
    };
    match compression {
        Compression::None => Ok(Box::new(source)),
        Compression::Gzip => {
            let source = BufReader::with_capacity(SOURCE_BUFFER, source);
            Ok(Box::new(flate2::bufread::MultiGzDecoder::new(source)))
        }
        Compression::Zstd => Ok(Box::new(zstd::stream::read::Decoder::new(source)?)),
        Compression::Bzip2 => Err(unsupported("bzip2")),
        Compression::Xz => Err(unsupported("xz")),
    }
}

/// What a file is for somebody who unpacks archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// A tar archive, by itself or compressed in a way that is known here.
    Tar,
    /// Compressed in this way, which is not; what is in it cannot be seen.
    Unknown(&'static str),
    /// Something else.
    None,
}

/// Bytes of a member's header (POSIX.1-2017, pax "ustar Interchange Format").
const HEADER: usize = 512;

/// Finds out what `file` is, by its first bytes.
pub fn archive_kind(file: impl Read + Send) -> ArchiveKind {
    let Ok((start, source)) = sniff(file) else { return ArchiveKind::None };
    let mut header = [0; HEADER];
    let read = match Compression::of(&start) {
        Compression::Bzip2 => return ArchiveKind::Unknown("bzip2"),
        Compression::Xz => return ArchiveKind::Unknown("xz"),
        compression => decompress(source, compression).and_then(|mut tar| tar.read_exact(&mut header)),
    };
    let parsed = tar::Header::from_byte_slice(&header);
    // The checksum counts its own field as blanks.
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    match read.is_ok() && parsed.cksum().is_ok_and(|checksum| checksum == sum) {
        true => ArchiveKind::Tar,
        false => ArchiveKind::None,
    }
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

    #[test]
    fn short_streams_and_foreign_forms() {
        let (start, _) = sniff(&b"\x1f"[..]).unwrap();
        assert_eq!(Compression::of(&start), Compression::None);
        let Err(error) = decompress(&b""[..], Compression::of(b"\xfd7zXZ\0")) else {
            panic!("xz is refused")
        };
        assert_eq!(error.to_string(), "xz compression is not supported: use gzip, zstd or none");
    }
}
