//! Matching of a command's output against the lines that a transcript expects.
//!
//! An expected line is literal text with placeholders: `[..]` is any text, `[ID]` 64 hexadecimal digits, `[SHORT]`
//! twelve of them, `[NUM]` decimal digits, `[TIME]` an RFC 3339 time, `[IP]` an IPv4 address. A line that is just
//! `...` stands for any number of lines.

/// A placeholder's name, and what it accepts.
type Placeholder = (&'static str, fn(&str) -> bool);

const PLACEHOLDERS: [Placeholder; 6] = [
    ("[..]", |_| true),
    ("[ID]", |text| text.len() == 64 && is_hex(text)),
    ("[SHORT]", |text| text.len() == 12 && is_hex(text)),
    ("[NUM]", |text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())),
    ("[TIME]", is_time),
    ("[IP]", |text| text.parse::<std::net::Ipv4Addr>().is_ok()),
];

/// Whether `actual` is what `expected` describes, line by line.
pub fn lines_match(expected: &[String], actual: &[&str]) -> bool {
    let Some((first, rest)) = expected.split_first() else {
        return actual.is_empty();
    };
    if first == "..." {
        return (0..=actual.len()).any(|skip| lines_match(rest, &actual[skip..]));
    }
    actual.split_first().is_some_and(|(line, tail)| line_matches(first, line) && lines_match(rest, tail))
}

/// Whether one line of output is what the pattern `expected` describes.
pub fn line_matches(expected: &str, actual: &str) -> bool {
    let next = PLACEHOLDERS
        .iter()
        .filter_map(|(name, accepts)| expected.find(name).map(|at| (at, *name, *accepts)))
        .min_by_key(|(at, ..)| *at);
    let Some((at, name, accepts)) = next else {
        return expected == actual;
    };
    let Some(tail) = actual.strip_prefix(&expected[..at]) else {
        return false;
    };
    let rest = &expected[at + name.len()..];
    (0..=tail.len())
        .filter(|end| tail.is_char_boundary(*end))
        .any(|end| accepts(&tail[..end]) && line_matches(rest, &tail[end..]))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The shape of RFC 3339, which is what `docker inspect` and `docker logs -t` print.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[10] == b'T'
        && text[..10].bytes().all(|byte| byte == b'-' || byte.is_ascii_digit())
        && (text.ends_with('Z') || bytes[bytes.len() - 6] == b'+' || bytes[bytes.len() - 6] == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let table = [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a[..]d", "abcd", true),
            ("a[..]", "a", true),
            ("[SHORT] up", "0123456789ab up", true),
            ("[SHORT] up", "0123456789a up", false),
            ("[SHORT]", "0123456789ag", false),
            ("port [NUM]/tcp", "port 80/tcp", true),
            ("port [NUM]/tcp", "port /tcp", false),
            ("[IP]:[NUM]", "127.0.0.1:8080", true),
            ("[TIME] hi", "2026-01-02T03:04:05.123456789Z hi", true),
            ("[TIME] hi", "yesterday hi", false),
        ];
        for (expected, actual, matches) in table {
            assert_eq!(line_matches(expected, actual), matches, "{expected} ~ {actual}");
        }
    }

    #[test]
    fn elisions() {
        let expected = ["a", "...", "z"].map(String::from);
        assert!(lines_match(&expected, &["a", "b", "c", "z"]));
        assert!(lines_match(&expected, &["a", "z"]));
        assert!(!lines_match(&expected, &["a", "b"]));
        assert!(lines_match(&[], &[]));
        assert!(!lines_match(&[], &["x"]));
    }
}
