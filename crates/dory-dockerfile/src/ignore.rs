//! `.dockerignore`: which files of a context stay out of it, in Docker's exact sense (moby's `patternmatcher`).

use crate::glob::{Glob, GlobError};

/// A line of an ignore file is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// `!` and nothing.
    #[error("illegal exclusion pattern: \"!\"")]
    BareException,
    /// A malformed pattern.
    #[error("`{pattern}`: {source}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        #[source]
        source: GlobError,
    },
}

/// The patterns of an ignore file, in their order: the last one that matches decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnorePatterns {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    glob: Glob,
    /// `!`: what matches is taken back in.
    exception: bool,
}

impl IgnorePatterns {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// [`IgnoreError`] for the first line that is wrong.
    pub fn parse(file: &str) -> Result<Self, IgnoreError> {
        let file = file.strip_prefix('\u{feff}').unwrap_or(file);
        Self::from_lines(file.lines().filter(|line| !line.starts_with('#')))
    }

    /// Takes patterns, one each, as `--exclude` gives them.
    ///
    /// # Errors
    /// [`IgnoreError`] for the first that is wrong.
    pub fn from_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, IgnoreError> {
        let mut patterns = Vec::new();
        for line in lines.into_iter().map(str::trim).filter(|line| !line.is_empty()) {
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if pattern.is_empty() {
                return Err(IgnoreError::BareException);
            }
            let cleaned = clean(pattern);
            let glob = Glob::parse_deep(&cleaned)
                .map_err(|source| IgnoreError::Pattern { pattern: pattern.to_owned(), source })?;
            patterns.push(Pattern { glob, exception });
        }
        Ok(Self { patterns })
    }

    /// Whether nothing is ever left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether something is taken back in: then a directory that is left out has to be walked all the same.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }

    /// Whether `path` (relative, with slashes) stays out, by itself or by a directory above it.
    #[must_use]
    pub fn excludes(&self, path: &str) -> bool {
        let mut verdict = Verdict::default();
        for (end, _) in path.match_indices('/') {
            verdict = self.verdict(&path[..end], &verdict);
        }
        self.verdict(path, &verdict).excluded
    }

    /// The same for walks, which know what became of the directory above; at the top, that is the default.
    #[must_use]
    pub fn verdict(&self, path: &str, parent: &Verdict) -> Verdict {
        let mut verdict = Verdict { excluded: false, matched: vec![false; self.patterns.len()] };
        for (at, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.matched.get(at).copied().unwrap_or(false);
            verdict.matched[at] = inherited || pattern.matches(path);
            if verdict.matched[at] {
                verdict.excluded = !pattern.exception;
            }
        }
        verdict
    }
}

impl Pattern {
    fn matches(&self, path: &str) -> bool {
        self.glob.matches(path) || self.glob.matches_ending(path)
    }
}

/// What became of a path, for the paths beneath it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// It stays out.
    pub excluded: bool,
    matched: Vec<bool>,
}

/// Go's `path.Clean`, without the slash that it begins with: patterns are relative to the context.
fn clean(pattern: &str) -> String {
    let rooted = pattern.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match parts.join("/") {
        empty if empty.is_empty() && rooted => "/".to_owned(),
        empty if empty.is_empty() => ".".to_owned(),
        cleaned => cleaned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_out() {
        for (file, out, kept) in [
            ("# c\n\n/a\nb/\n", &["a", "a/x", "b/y/z"][..], &["x/a", "ab"][..]),
            ("*.o\n", &["x.o"], &["d/x.o"]),
            ("**/*.o\n", &["x.o", "d/x.o", "d/e/x.o"], &["x.oo"]),
            ("*\n!keep\n", &["x", "d/keep"], &["keep", "keep/x"]),
            ("d\n!d/keep\n", &["d", "d/x"], &["d/keep", "d/keep/y"]),
            ("!a\na\n", &["a"], &[]),
            ("a/../b/./c\n", &["b/c"], &["a"]),
            ("d/**\n", &["d/x", "d/x/y"], &["d"]),
            ("**\n!**/*.md\n", &["x", "d/x"], &["README.md", "d/x.md"]),
            ("**foo\n", &["foo", "xfoo", "d/xfoo"], &["foox"]),
            (" spaced \n", &["spaced"], &[]),
            ("  # no comment\n", &["# no comment"], &[]),
            ("! keep\n", &[], &["keep"]),
            (".\n", &[], &["a"]),
        ] {
            let patterns = IgnorePatterns::parse(file).expect(file);
            for path in out {
                assert!(patterns.excludes(path), "{file:?} leaves out {path}");
            }
            for path in kept {
                assert!(!patterns.excludes(path), "{file:?} keeps {path}");
            }
        }
    }

    #[test]
    fn refuses() {
        assert_eq!(IgnorePatterns::parse("!"), Err(IgnoreError::BareException));
        assert!(matches!(IgnorePatterns::parse("[a"), Err(IgnoreError::Pattern { .. })));
        assert!(IgnorePatterns::parse("*\n!x").expect("well formed").has_exceptions());
    }
}
