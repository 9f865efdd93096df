//! Headers of the archives that are written: ustar, with pax records where ustar has no room (POSIX.1-2017, pax
//! "ustar Interchange Format" and "pax Extended Header").

use std::io::{self, Write};

use tar::{EntryType, Header};

/// Zeros for padding and for holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// The unit of the format, in bytes.
const BLOCK: u64 = 512;
/// The biggest number in a field of 11 octal digits.
const SIZE_MAX: u64 = 0o777_7777_7777;
/// The biggest number in a field of 7 octal digits.
const ID_MAX: u32 = 0o777_7777;
/// The longest name in a header's own field.
const NAME_MAX: usize = 100;

/// One member of an archive, before its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    /// Its name; directories end with a slash.
    pub(super) name: &'a [u8],
    pub(super) kind: EntryType,
    /// Target of a link.
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes of content that follow.
    pub(super) size: u64,
    /// Seconds since 1970: Docker writes whole ones.
    pub(super) modified: i64,
    pub(super) device: (u32, u32),
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Writes `member`'s headers.
pub(super) fn write_member(sink: &mut impl Write, member: &Member<'_>) -> io::Result<()> {
    let records = records(member);
    if !records.is_empty() {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..PAX_NAME.len()].copy_from_slice(PAX_NAME);
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        header.set_cksum();
        sink.write_all(header.as_bytes())?;
        sink.write_all(&records)?;
        write_padding(sink, records.len() as u64)?;
    }
    let mut header = Header::new_ustar();
    let old = header.as_old_mut();
    fill(&mut old.name, member.name);
    fill(&mut old.linkname, member.link);
    header.set_entry_type(member.kind);
    header.set_mode(member.mode & 0o7777);
    header.set_uid(u64::from(member.uid.min(ID_MAX)));
    header.set_gid(u64::from(member.gid.min(ID_MAX)));
    header.set_size(member.size.min(SIZE_MAX));
    header.set_mtime(u64::try_from(member.modified).unwrap_or(0).min(SIZE_MAX));
    if matches!(member.kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(member.device.0.min(ID_MAX))?;
        header.set_device_minor(member.device.1.min(ID_MAX))?;
    }
    header.set_cksum();
    sink.write_all(header.as_bytes())
}

/// What stands where readers without pax look for a name.
const PAX_NAME: &[u8] = b"PaxHeaders.0/records";

/// Writes the zeros behind content of `length` bytes.
pub(super) fn write_padding(sink: &mut impl Write, length: u64) -> io::Result<()> {
    write_zeros(sink, length.next_multiple_of(BLOCK) - length)
}

/// Writes `length` zeros.
pub(super) fn write_zeros(sink: &mut impl Write, mut length: u64) -> io::Result<()> {
    while length > 0 {
        let part = length.min(ZEROS.len() as u64);
        sink.write_all(&ZEROS[..part as usize])?;
        length -= part;
    }
    Ok(())
}

/// Writes an archive's end: two blocks of zeros.
pub(super) fn write_end(sink: &mut impl Write) -> io::Result<()> {
    write_zeros(sink, 2 * BLOCK)
}

fn fill(field: &mut [u8; NAME_MAX], text: &[u8]) {
    let length = text.len().min(NAME_MAX);
    field[..length].copy_from_slice(&text[..length]);
}

/// The records for what the header's fields cannot hold.
fn records(member: &Member<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    if needs_record(member.name) {
        push(&mut records, b"path", member.name);
    }
    if needs_record(member.link) {
        push(&mut records, b"linkpath", member.link);
    }
    if member.size > SIZE_MAX {
        push(&mut records, b"size", member.size.to_string().as_bytes());
    }
    for (name, id) in [(b"uid", member.uid), (b"gid", member.gid)] {
        if id > ID_MAX {
            push(&mut records, name, id.to_string().as_bytes());
        }
    }
    if u64::try_from(member.modified).is_err() || member.modified as u64 > SIZE_MAX {
        push(&mut records, b"mtime", member.modified.to_string().as_bytes());
    }
    for (name, value) in member.xattrs {
        push(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// Names beyond ASCII mean something only in a record, which is UTF-8.
fn needs_record(name: &[u8]) -> bool {
    name.len() > NAME_MAX || !name.is_ascii()
}

/// Appends `length key=value\n`, where the length counts its own digits.
fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar_stream::TarStream;

    #[test]
    fn what_is_written_is_read_again() {
        let long = "directory/".repeat(30) + "file";
        let cases = [
            ("short", 0, 5, 1_700_000_000, 0),
            (long.as_str(), 0o777_7777 + 1, 1 << 40, -5, 1),
            ("grün", u32::MAX - 1, 0, i64::from(u32::MAX) * 4, 2),
        ];
        for (name, uid, size, modified, xattrs) in cases {
            let value: Vec<u8> = (0..=255).collect();
            let xattrs: Vec<_> =
                (0..xattrs).map(|index| (format!("user.a{index}").into_bytes(), value.clone())).collect();
            let mut archive = Vec::new();
            let member = Member {
                name: name.as_bytes(),
                kind: EntryType::Regular,
                link: long.as_bytes(),
                mode: 0o4755,
                uid,
                gid: 7,
                size,
                modified,
                device: (0, 0),
                xattrs: &xattrs,
            };
            write_member(&mut archive, &member).unwrap();
            let entry = TarStream::new(archive.as_slice()).next_entry().unwrap().unwrap();
            assert_eq!(
                (entry.path.as_slice(), entry.link_name),
                (name.as_bytes(), long.clone().into_bytes())
            );
            assert_eq!((entry.uid, entry.gid, entry.mode, entry.size), (uid, 7, 0o4755, size));
            assert_eq!((entry.modified, entry.xattrs), ((modified, 0), xattrs));
        }
    }

    #[test]
    fn lengths_of_records_count_themselves() {
        for value in [0, 1, 88, 89, 90, 91, 988, 989, 990] {
            let mut record = Vec::new();
            push(&mut record, b"key", &vec![b'v'; value]);
            let text = String::from_utf8(record.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse(), Ok(record.len()), "{value}");
        }
    }
}
