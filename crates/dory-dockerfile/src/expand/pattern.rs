//! Patterns of `${x#…}`, `${x%…}` and `${x/…/…}`: `*` and `?`, with a backslash before what stands for itself.
//!
//! All ends that a match can have are found at once, so that no pattern, however it is made, takes more than
//! its length times the value's for each place where it may begin.

use crate::error::ExpansionErrorKind as Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: any one, but no newline.
    One,
    /// `*`: any number, but no newline.
    Many,
}

#[derive(Debug)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, Kind> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => match chars.next() {
                    // The first two are escaped for the sake of `${}`, the others for the pattern's.
                    Some(escaped @ ('}' | '/' | '*' | '?' | '\\')) => Token::Char(escaped),
                    other => {
                        let escaped = other.unwrap_or('\u{fffd}');
                        return Err(Kind::Pattern { pattern: text.to_owned(), escaped });
                    }
                },
                c => Token::Char(c),
            });
        }
        Ok(Self(tokens))
    }

    pub(super) fn without_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let end = self.end(&chars, longest).unwrap_or(0);
        chars[end..].iter().collect()
    }

    pub(super) fn without_suffix(&self, value: &str, longest: bool) -> String {
        // The same from the other end.
        let reversed = Self(self.0.iter().rev().copied().collect());
        let chars: Vec<char> = value.chars().rev().collect();
        let end = reversed.end(&chars, longest).unwrap_or(0);
        chars[end..].iter().rev().collect()
    }

    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::with_capacity(value.len());
        let (mut at, mut matched_to) = (0, None);
        while at <= chars.len() {
            match self.end(&chars[at..], true) {
                // An empty match right after a match is none.
                Some(length) if length > 0 || matched_to != Some(at) => {
                    out.push_str(replacement);
                    at += length;
                    matched_to = Some(at);
                    if !all {
                        break;
                    }
                    if length > 0 {
                        continue;
                    }
                }
                _ => {}
            }
            out.extend(chars.get(at));
            at += 1;
        }
        out.extend(chars.get(at..).unwrap_or_default());
        out
    }

    /// How many characters from the start on match, at the longest or shortest; `None` where none do.
    fn end(&self, value: &[char], longest: bool) -> Option<usize> {
        let last = self.0.len();
        // Which tokens may come next, having read so far.
        let mut next = vec![false; last + 1];
        next[0] = true;
        let mut found = None;
        for read in 0..=value.len() {
            for token in 0..last {
                if next[token] && self.0[token] == Token::Many {
                    next[token + 1] = true;
                }
            }
            if next[last] {
                found = Some(read);
                if !longest {
                    return found;
                }
            }
            let Some(&c) = value.get(read) else { break };
            let mut after = vec![false; last + 1];
            for (token, kind) in self.0.iter().enumerate().filter(|(token, _)| next[*token]) {
                match kind {
                    Token::Char(wanted) if *wanted == c => after[token + 1] = true,
                    Token::One if c != '\n' => after[token + 1] = true,
                    Token::Many if c != '\n' => after[token] = true,
                    _ => {}
                }
            }
            if !after.contains(&true) {
                break;
            }
            next = after;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces() {
        for (pattern, replacement, value, first, all) in [
            ("a", "x", "banana", "bxnana", "bxnxnx"),
            ("an", "", "banana", "bana", "ba"),
            ("a*a", "x", "banana", "bx", "bx"),
            ("*", "x", "banana", "x", "x"),
            ("q", "x", "banana", "banana", "banana"),
            ("", "-", "ab", "-ab", "-a-b-"),
        ] {
            let pattern = Pattern::parse(pattern).expect(pattern);
            assert_eq!(pattern.replace(value, replacement, false), first, "{pattern:?}");
            assert_eq!(pattern.replace(value, replacement, true), all, "{pattern:?}");
        }
    }

    #[test]
    fn takes_no_other_escape() {
        assert_eq!(
            Pattern::parse("a\\b").map(|_| ()),
            Err(Kind::Pattern { pattern: "a\\b".into(), escaped: 'b' })
        );
    }
}
