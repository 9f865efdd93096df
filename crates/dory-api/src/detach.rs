//! Keys that end an attachment to a terminal and leave its process running.

use crate::error::ApiError;

/// `ctrl-p,ctrl-q`, Docker's default.
const DEFAULT_KEYS: [u8; 2] = [0x10, 0x11];

/// Looks for a sequence of keys in a terminal's input.
///
/// The keys of a sequence that began are held back until it is complete or broken, as Docker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self { keys: DEFAULT_KEYS.to_vec(), matched: 0 }
    }
}

impl DetachKeys {
    /// Reads the `detachKeys` parameter: `ctrl-` and a letter or one of `@[\]^_`, or single characters, with commas
    /// between. Nothing means the default.
    ///
    /// # Errors
    /// 400 with dockerd's message.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let keys = text.split(',').map(parse_key).collect::<Option<Vec<u8>>>();
        match keys {
            Some(keys) => Ok(Self { keys, matched: 0 }),
            None => Err(ApiError::bad_request(format!("Invalid detach keys ({text}) provided"))),
        }
    }

    /// Appends to `output` what of `input` goes to the process; true once the sequence is complete.
    pub(crate) fn filter(&mut self, input: &[u8], output: &mut Vec<u8>) -> bool {
        for &byte in input {
            if byte != self.keys[self.matched] {
                output.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
            } else {
                output.push(byte);
            }
        }
        false
    }
}

fn parse_key(text: &str) -> Option<u8> {
    if let Some(key) = text.strip_prefix("ctrl-") {
        return match key.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            b"@" => Some(0),
            [sign @ (b'[' | b'\\' | b']' | b'^' | b'_')] => Some(sign - b'[' + 27),
            _ => None,
        };
    }
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_key_names() {
        for (text, keys) in [
            ("", vec![0x10, 0x11]),
            ("ctrl-a", vec![1]),
            ("ctrl-@,ctrl-_,x", vec![0, 31, b'x']),
            ("ctrl-[,ctrl-\\", vec![27, 28]),
        ] {
            assert_eq!(DetachKeys::parse(text).unwrap().keys, keys, "{text}");
        }
        for wrong in ["ctrl-A", "ctrl-", "ab", "a,,b", "ctrl-1"] {
            let error = DetachKeys::parse(wrong).unwrap_err();
            assert_eq!(error.message(), format!("Invalid detach keys ({wrong}) provided"));
        }
    }

    #[test]
    fn finds_the_sequence_across_reads() {
        let cases = [
            (vec!["ls\n"], "ls\n", false),
            (vec!["a\x10", "\x11b"], "a", true),
            (vec!["\x10x"], "\x10x", false),
            (vec!["\x10\x10\x11"], "\x10", true),
            (vec!["\x11\x10", "q\x10"], "\x11\x10q", false),
        ];
        for (reads, passed, detached) in cases {
            let mut keys = DetachKeys::default();
            let mut output = Vec::new();
            let found = reads.iter().any(|read| keys.filter(read.as_bytes(), &mut output));
            assert_eq!((output.as_slice(), found), (passed.as_bytes(), detached), "{reads:?}");
        }
    }
}
