//! One record of dockerd's `json-file` format, there and back.
//!
//! `{"log":"line\n","stream":"stdout","attrs":{…},"time":"2006-01-02T15:04:05.999999999Z"}` and a newline. The escapes
//! are those of dockerd's own writer, byte for byte: `\n`, `\r`, `\"` and `\\` in short form, `<`, `>`, `&`, the other
//! control characters, U+2028 and U+2029 as `\uXXXX`, and each byte that is not UTF-8 as `\ufffd`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use crate::frame::Stream;
use crate::timestamp::Timestamp;

/// Bytes of output in one record at most. A longer line is split into records of this size without the newline, which
/// only the last one has; clients join them again by writing them one after the other.
pub const MAX_LINE: usize = 16 * 1024;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends records to a buffer; remembers the date of the last second, since lines come in bursts.
#[derive(Debug)]
pub(crate) struct RecordEncoder {
    /// `"attrs":{…},` or nothing.
    attributes: Vec<u8>,
    second: i64,
    date: [u8; 19],
}

impl RecordEncoder {
    pub(crate) fn new(attributes: &BTreeMap<String, String>) -> Self {
        let epoch = Timestamp::default();
        Self { attributes: encode_attributes(attributes), second: epoch.seconds(), date: epoch.date() }
    }

    /// Appends one record with `head` and `tail` as its text, one after the other, and a newline if `complete`.
    pub(crate) fn append(
        &mut self,
        buffer: &mut Vec<u8>,
        stream: Stream,
        text: LineText<'_>,
        time: Timestamp,
    ) {
        buffer.extend_from_slice(b"{\"log\":\"");
        append_escaped(buffer, text.bytes);
        if text.complete {
            buffer.extend_from_slice(b"\\n");
        }
        buffer.extend_from_slice(b"\",\"stream\":\"");
        buffer.extend_from_slice(stream.name().as_bytes());
        buffer.extend_from_slice(b"\",");
        buffer.extend_from_slice(&self.attributes);
        buffer.extend_from_slice(b"\"time\":\"");
        if time.seconds() != self.second {
            self.second = time.seconds();
            self.date = time.date();
        }
        buffer.extend_from_slice(&self.date);
        time.append_fraction(buffer);
        buffer.extend_from_slice(b"\"}\n");
    }
}

/// The text of one record, without its newline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineText<'a> {
    /// At most [`MAX_LINE`] bytes.
    pub(crate) bytes: &'a [u8],
    /// The line ends here.
    pub(crate) complete: bool,
}

fn encode_attributes(attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let mut encoded = Vec::new();
    if attributes.is_empty() {
        return encoded;
    }
    encoded.extend_from_slice(b"\"attrs\":{");
    for (index, (key, value)) in attributes.iter().enumerate() {
        encoded.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        append_escaped(&mut encoded, key.as_bytes());
        encoded.extend_from_slice(b"\":\"");
        append_escaped(&mut encoded, value.as_bytes());
        encoded.push(b'"');
    }
    encoded.extend_from_slice(b"},");
    encoded
}

/// Appends `bytes` as the inside of a JSON string.
fn append_escaped(buffer: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        append_escaped_text(buffer, chunk.valid().as_bytes());
        // Go replaces byte by byte, not sequence by sequence.
        for _ in chunk.invalid() {
            buffer.extend_from_slice(b"\\ufffd");
        }
    }
}

fn append_escaped_text(buffer: &mut Vec<u8>, text: &[u8]) {
    let mut start = 0;
    for (index, &byte) in text.iter().enumerate() {
        if !NEEDS_CARE[byte as usize] {
            continue;
        }
        if byte == 0xe2 {
            if let [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] = text[index..] {
                buffer.extend_from_slice(&text[start..index]);
                buffer.extend_from_slice(if last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                start = index + 3;
            }
            continue;
        }
        buffer.extend_from_slice(&text[start..index]);
        start = index + 1;
        match byte {
            b'"' | b'\\' => buffer.extend_from_slice(&[b'\\', byte]),
            b'\n' => buffer.extend_from_slice(b"\\n"),
            b'\r' => buffer.extend_from_slice(b"\\r"),
            _ => buffer.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
    buffer.extend_from_slice(&text[start..]);
}

/// Bytes that may need an escape: control characters, `"`, `\`, `<`, `>`, `&`, and the first byte of U+2028.
const NEEDS_CARE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xe2] = true;
    table
};

/// A record as it stands in a file, ours or dockerd's.
#[derive(Debug, Deserialize)]
pub(crate) struct StoredRecord<'a> {
    #[serde(borrow, default)]
    pub(crate) log: Cow<'a, str>,
    pub(crate) stream: Stream,
    #[serde(default)]
    pub(crate) attrs: Option<BTreeMap<String, String>>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl<'a> StoredRecord<'a> {
    /// The record in `line`; `None` where the line is damaged.
    pub(crate) fn parse(line: &'a [u8]) -> Option<(Self, Timestamp)> {
        let record: Self = serde_json::from_slice(line).ok()?;
        let time = Timestamp::parse_rfc3339(&record.time)?;
        Some((record, time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(bytes: &[u8], complete: bool, attributes: &[(&str, &str)]) -> String {
        let attributes =
            attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut buffer = Vec::new();
        let time = Timestamp::from_unix(1_700_000_000, 248_271_966).unwrap();
        RecordEncoder::new(&attributes).append(
            &mut buffer,
            Stream::Stdout,
            LineText { bytes, complete },
            time,
        );
        String::from_utf8(buffer).unwrap()
    }

    /// The expectation was taken from a file that dockerd 20.10 wrote for the same bytes.
    #[test]
    fn escapes_as_dockerd_does() {
        let text = b"a\tb<c>&\"\\\\ \x01\x7f \xff\xc3\xa9 \xe2\x80\xa8 \xe2\x82\xac\r";
        let expected = concat!(
            r#"{"log":"a\u0009b\u003cc\u003e\u0026\"\\\\ \u0001"#,
            "\x7f ",
            r#"\ufffd"#,
            "é ",
            r#"\u2028 €\r\n","stream":"stdout","time":"2023-11-14T22:13:20.248271966Z"}"#,
            "\n"
        );
        assert_eq!(encode(text, true, &[]), expected);
    }

    #[test]
    fn attributes_stand_before_the_time() {
        assert_eq!(
            encode(b"part", false, &[("tag", "x"), ("a", "<b>")]),
            concat!(
                r#"{"log":"part","stream":"stdout","attrs":{"a":"\u003cb\u003e","tag":"x"},"#,
                r#""time":"2023-11-14T22:13:20.248271966Z"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn replaces_each_invalid_byte() {
        assert!(encode(b"\xe2\x80", true, &[]).contains(r#""\ufffd\ufffd\n""#));
        assert!(encode(b"\xf0\x9f\x98x", true, &[]).contains(r#""\ufffd\ufffd\ufffdx\n""#));
    }

    #[test]
    fn parses_what_it_wrote() {
        let line = encode(b"\x00tab\t \"quoted\" \xe2\x80\xa9", true, &[("k", "v")]);
        let (record, time) = StoredRecord::parse(line.as_bytes()).unwrap();
        assert_eq!(record.log, "\0tab\t \"quoted\" \u{2029}\n");
        assert_eq!((record.stream, time.nanoseconds()), (Stream::Stdout, 248_271_966));
        assert_eq!(record.attrs.unwrap()["k"], "v");
        for damaged in
            ["", "{", r#"{"log":"x"}"#, "\0\0\0", r#"{"log":"x","stream":"stdout","time":"never"}"#]
        {
            assert!(StoredRecord::parse(damaged.as_bytes()).is_none(), "{damaged}");
        }
    }
}
