//! Pax extended header records: `length key=value\n` (POSIX.1-2017, pax, "pax Extended Header").

/// The prefix under which star, GNU tar and Docker keep extended attributes.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// The records that concern an entry; others are passed over.
#[derive(Debug, Default)]
pub(super) struct PaxRecords {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<i64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) modified: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<PaxSparse>,
}

/// GNU's `GNU.sparse.*` records, in the three versions of that form.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    /// The file's name; the header's own is a stand-in.
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offset and length of each segment, of versions 0.0 and 0.1.
    pub(super) numbers: Vec<u64>,
    /// Version 1.0: the map stands at the start of the payload.
    pub(super) map_in_payload: bool,
}

impl PaxRecords {
    /// Reads all records of `text`; `None` where one is malformed.
    pub(super) fn parse(mut text: &[u8]) -> Option<Self> {
        let mut records = Self::default();
        while !text.is_empty() {
            let (key, value, rest) = split_record(text)?;
            records.add(key, value)?;
            text = rest;
        }
        Some(records)
    }

    /// Takes one record in; `None` where its value has not the form that its key demands.
    fn add(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link_path = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.modified = Some(time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => self.add_sparse(&key[b"GNU.sparse.".len()..], value)?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }

    /// Takes one record of a sparse file in; `key` has no prefix.
    fn add_sparse(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let sparse = self.sparse.get_or_insert_default();
        let unsigned = || u64::try_from(number(value)?).ok();
        match key {
            b"name" => sparse.name = Some(value.to_vec()),
            b"size" | b"realsize" => sparse.real_size = Some(unsigned()?),
            b"offset" | b"numbytes" => sparse.numbers.push(unsigned()?),
            b"map" => {
                for part in value.split(|byte| *byte == b',') {
                    sparse.numbers.push(u64::try_from(number(part)?).ok()?);
                }
            }
            b"major" => sparse.map_in_payload = value == b"1",
            _ => {}
        }
        Some(())
    }
}

/// Splits the first record off: key, value and what follows.
fn split_record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&text[..space])?).ok()?;
    // The length counts itself, the space and the line feed.
    let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &text[length..]))
}

/// A decimal number, which may be negative.
fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction of any length, which may be negative.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{:0<9}", &fraction[..fraction.len().min(9)]).parse().ok()?;
    // -1.25 is a quarter of a second before -1.
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One record with its length.
    fn record(key: &str, value: &str) -> Vec<u8> {
        let body = format!(" {key}={value}\n");
        let length = (1..).map(|digits| digits + body.len()).find(|n| n.to_string().len() + body.len() == *n);
        format!("{}{body}", length.unwrap()).into_bytes()
    }

    #[test]
    fn reads_what_concerns_an_entry() {
        let text = [
            record("path", "a=b\nc"),
            record("mtime", "-1.25"),
            record("uid", "4294967294"),
            record("SCHILY.xattr.user.x", "v=1"),
            record("comment", "ignored"),
            record("GNU.sparse.map", "0,512,4096,1"),
        ]
        .concat();
        let records = PaxRecords::parse(&text).unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a=b\nc"[..]));
        assert_eq!(records.modified, Some((-2, 750_000_000)));
        assert_eq!(records.uid, Some(4_294_967_294));
        assert_eq!(records.xattrs, [(b"user.x".to_vec(), b"v=1".to_vec())]);
        assert_eq!(records.sparse.unwrap().numbers, [0, 512, 4096, 1]);
    }

    #[test]
    fn refuses_malformed_records() {
        for text in
            ["1", "0 a=b\n", "3 a=b\n", "99 a=b\n", "6 a=b", "7 a=b \n\n", "5 ab\n", "-6 a=b\n", "9 uid=x\n"]
        {
            assert!(PaxRecords::parse(text.as_bytes()).is_none(), "{text:?}");
        }
    }
}
