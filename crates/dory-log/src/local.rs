//! One record of the `local` driver: compact, readable from either end, and found again behind damage.
//!
//! ```text
//! head     u32, little endian: MARK in the highest byte, the length of flags, time and text in the others
//! flags    u8: the stream's number; COMPLETE where a newline belongs behind the text
//! time     i64 seconds since 1970, u32 nanoseconds, little endian
//! text     the bytes as the container wrote them
//! tail     the head again: the way to the record from the end of the file
//! ```

use crate::frame::Stream;
use crate::json::{LineText, MAX_LINE};
use crate::timestamp::Timestamp;

/// Bytes of a head, and of a tail.
pub(crate) const HEAD: usize = 4;
/// Bytes of flags and time.
const FIXED: usize = 1 + 8 + 4;
/// No byte of UTF-8, so that text is rarely taken for a head.
const MARK: u32 = 0xfd00_0000;
const COMPLETE: u8 = 0x80;

/// Appends one record.
pub(crate) fn append(buffer: &mut Vec<u8>, stream: Stream, text: LineText<'_>, time: Timestamp) {
    // A record's text has MAX_LINE bytes at most, far below the three bytes that there are for the length.
    let head = (MARK | (FIXED + text.bytes.len()) as u32).to_le_bytes();
    buffer.extend_from_slice(&head);
    buffer.push(stream as u8 | if text.complete { COMPLETE } else { 0 });
    buffer.extend_from_slice(&time.seconds().to_le_bytes());
    buffer.extend_from_slice(&time.nanoseconds().to_le_bytes());
    buffer.extend_from_slice(text.bytes);
    buffer.extend_from_slice(&head);
}

/// The length of the whole record that has `head` as its head or tail; `None` where that is neither.
pub(crate) fn record_length(head: [u8; HEAD]) -> Option<usize> {
    let head = u32::from_le_bytes(head);
    let length = (head & !MARK) as usize;
    let plausible = head & MARK == MARK && (FIXED..=FIXED + MAX_LINE).contains(&length);
    plausible.then_some(HEAD + length + HEAD)
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A record of so many bytes.
    Record(usize),
    /// No record: look again behind so many bytes.
    Damage(usize),
    /// Too few bytes to say.
    Unfinished,
}

/// Looks for a record at the beginning of `bytes`.
pub(crate) fn find(bytes: &[u8]) -> Found {
    let Some(head) = bytes.first_chunk() else { return Found::Unfinished };
    let Some(length) = record_length(*head) else { return Found::Damage(1) };
    match bytes.get(length - HEAD..length) {
        None => Found::Unfinished,
        Some(tail) if tail == head && parse(&bytes[..length]).is_some() => Found::Record(length),
        Some(_) => Found::Damage(1),
    }
}

/// Bytes of a record that say whether it is one, together with its tail.
pub(crate) const START: usize = HEAD + FIXED;

/// Whether `start` and `tail` are those of one whole record.
pub(crate) fn belong_together(start: &[u8; START], tail: [u8; HEAD]) -> bool {
    let record = [&start[..], &tail].concat();
    start.starts_with(&tail) && parse(&record).is_some()
}

/// The parts of a whole record; `None` where it is damaged.
pub(crate) fn parse(record: &[u8]) -> Option<(Stream, Timestamp, LineText<'_>)> {
    let body = record.get(HEAD..record.len().checked_sub(HEAD)?)?;
    let (flags, rest) = body.split_first()?;
    let (seconds, rest) = rest.split_first_chunk()?;
    let (nanoseconds, bytes) = rest.split_first_chunk()?;
    let stream = match flags & !COMPLETE {
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        _ => return None,
    };
    let time = Timestamp::from_unix(i64::from_le_bytes(*seconds), u32::from_le_bytes(*nanoseconds))?;
    Some((stream, time, LineText { bytes, complete: flags & COMPLETE != 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &[u8], complete: bool) -> Vec<u8> {
        let mut buffer = Vec::new();
        let time = Timestamp::from_unix(1_700_000_000, 999_999_999).unwrap();
        append(&mut buffer, Stream::Stderr, LineText { bytes: text, complete }, time);
        buffer
    }

    #[test]
    fn parses_what_it_wrote() {
        for (text, complete) in [(&b""[..], true), (b"\xff\0line", true), (&[b'x'; MAX_LINE], false)] {
            let bytes = record(text, complete);
            assert_eq!(find(&bytes), Found::Record(bytes.len()));
            let (stream, time, line) = parse(&bytes).unwrap();
            assert_eq!((stream, time.nanoseconds()), (Stream::Stderr, 999_999_999));
            assert_eq!((line.bytes, line.complete), (text, complete));
        }
    }

    #[test]
    fn knows_damage_from_an_unfinished_record() {
        let bytes = record(b"some text", true);
        for length in 0..bytes.len() {
            assert_eq!(find(&bytes[..length]), Found::Unfinished, "{length}");
        }
        for (index, damage) in [(0, 0xff), (3, 0), (HEAD, 7), (bytes.len() - 1, 0)] {
            let mut bytes = bytes.clone();
            bytes[index] = damage;
            assert_ne!(find(&bytes), Found::Record(bytes.len()), "{index}");
        }
        assert_eq!(find(&[0; 100]), Found::Damage(1));
    }
}
