//! Wildcards of paths: Go's `path/filepath.Match`, which `COPY` and `ADD` use, and `**`, which ignore files add.
//!
//! A pattern is followed through the path in all the ways at once, so that no pattern takes more than its length times
//! the path's.

/// The pattern is malformed; Go's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct GlobError;

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    /// The pattern itself, where nothing in it stands for something else.
    literal: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: any but a slash.
    One,
    /// `*`: any number, but no slash.
    Many,
    /// `[a-z]`, `[^a-z]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**` in the middle: the next token or none.
    Maybe,
    /// Anything that ends with a slash.
    Directories,
    /// `**` at the end: anything.
    Rest,
}

impl Glob {
    /// Reads a pattern of `COPY` and `ADD`.
    ///
    /// # Errors
    /// A class without end or with an empty range, a backslash at the end.
    pub fn parse(pattern: &str) -> Result<Self, GlobError> {
        Self::read(pattern, false)
    }

    /// The same with `**`, as ignore files have it; a slash after it is part of it.
    pub(crate) fn parse_deep(pattern: &str) -> Result<Self, GlobError> {
        Self::read(pattern, true)
    }

    fn read(pattern: &str, deep: bool) -> Result<Self, GlobError> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            let token = match c {
                '*' if deep && chars.next_if_eq(&'*').is_some() => {
                    chars.next_if_eq(&'/');
                    if chars.peek().is_none() {
                        Token::Rest
                    } else {
                        tokens.push(Token::Maybe);
                        Token::Directories
                    }
                }
                '*' => Token::Many,
                '?' => Token::One,
                '[' => class(&mut chars)?,
                '\\' => Token::Char(chars.next().ok_or(GlobError)?),
                c => Token::Char(c),
            };
            tokens.push(token);
        }
        let literal = tokens.iter().map(|token| match token {
            Token::Char(c) => Some(*c),
            _ => None,
        });
        Ok(Self { literal: literal.collect(), tokens })
    }

    /// Whether it is a pattern at all, and not the name of one file.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.literal.is_some()
    }

    /// Whether all of `path` matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match &self.literal {
            Some(literal) => literal == path,
            None => self.follow(path),
        }
    }

    /// Whether the pattern is `**` and a literal, and `path` ends with that: `**foo` matches `xfoo`, too.
    pub(crate) fn matches_ending(&self, path: &str) -> bool {
        let [Token::Maybe, Token::Directories, rest @ ..] = self.tokens.as_slice() else { return false };
        let mut path = path.chars();
        rest.iter().rev().all(|token| matches!(token, Token::Char(c) if path.next_back() == Some(*c)))
    }

    fn follow(&self, path: &str) -> bool {
        let last = self.tokens.len();
        // Which tokens may come next, having read so far.
        let mut next = vec![false; last + 1];
        next[0] = true;
        self.pass_over(&mut next);
        for c in path.chars() {
            let mut after = vec![false; last + 1];
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| next[*at]) {
                match token {
                    Token::Char(wanted) => after[at + 1] |= *wanted == c,
                    Token::One => after[at + 1] |= c != '/',
                    Token::Class { negated, ranges } => {
                        let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                        after[at + 1] |= inside != *negated;
                    }
                    Token::Many => after[at] |= c != '/',
                    Token::Maybe => {}
                    Token::Directories => {
                        after[at] = true;
                        after[at + 1] |= c == '/';
                    }
                    Token::Rest => after[at] = true,
                }
            }
            self.pass_over(&mut after);
            next = after;
        }
        next[last]
    }

    /// Tokens that may stand for nothing are passed over.
    fn pass_over(&self, next: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if !next[at] {
                continue;
            }
            match token {
                Token::Many | Token::Rest => next[at + 1] = true,
                Token::Maybe => next[at + 1..=at + 2].fill(true),
                _ => {}
            }
        }
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, GlobError> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, GlobError> {
    match chars.next() {
        None | Some('-' | ']') => Err(GlobError),
        Some('\\') => chars.next().ok_or(GlobError),
        Some(c) => Ok(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        for (pattern, path, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("a?b", "a/b", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Glob::parse(pattern).map(|glob| glob.matches(path)), Ok(expected), "{pattern} {path}");
        }
        for pattern in ["[", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[^", "[^bc", "a[", "\\"] {
            assert_eq!(Glob::parse(pattern), Err(GlobError), "{pattern}");
        }
    }

    #[test]
    fn goes_deep_where_it_may() {
        for (pattern, path, expected) in [
            ("**/a", "a", true),
            ("**/a", "x/y/a", true),
            ("**/a", "x/ya", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("**", "a/b", true),
            ("**/*.go", "x/a.go", true),
            ("a**b", "ax/b", true),
            ("a**b", "axb", false),
        ] {
            assert_eq!(
                Glob::parse_deep(pattern).map(|glob| glob.matches(path)),
                Ok(expected),
                "{pattern} {path}"
            );
        }
    }
}
