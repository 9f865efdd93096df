//! Lines of the file joined to logical ones: directives, comments, continuations, here-documents.

use crate::error::{LineRange, ParseError, SyntaxError};
use crate::heredoc::Heredoc;
use crate::statement::takes_heredocs;

/// No line may be as long as this, in bytes (Go's `bufio.MaxScanTokenSize`, which bounds BuildKit's lines).
pub const LINE_LENGTH_MAX: usize = 64 * 1024;

/// The parser directives: comments of the form `# name=value` before everything else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// `syntax`: the image of a frontend.
    pub syntax: Option<String>,
    /// `escape`: a backslash where it is not given.
    pub escape: Option<char>,
    /// `check`: `skip=…;error=true`.
    pub check: Option<String>,
}

impl Directives {
    /// What escapes and continues lines.
    #[must_use]
    pub fn escape_token(&self) -> char {
        self.escape.unwrap_or('\\')
    }

    /// Takes a line in; false where it is no directive, and no further one can follow.
    fn take(&mut self, line: &str) -> Result<bool, SyntaxError> {
        let Some((name, value)) = line.strip_prefix('#').and_then(|line| line.split_once('=')) else {
            return Ok(false);
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if value.is_empty() {
            return Ok(false);
        }
        match name.as_str() {
            "syntax" => once(&mut self.syntax, "syntax", value.to_owned())?,
            "check" => once(&mut self.check, "check", value.to_owned())?,
            "escape" => match value {
                "\\" | "`" => once(&mut self.escape, "escape", if value == "`" { '`' } else { '\\' })?,
                other => return Err(SyntaxError::EscapeToken(other.to_owned())),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn once<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), SyntaxError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(SyntaxError::DirectiveTwice(name)),
    }
}

/// A logical line: what one instruction is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogicalLine {
    pub(crate) lines: LineRange,
    /// Joined, without comments, escapes and newlines between its parts.
    pub(crate) text: String,
    pub(crate) heredocs: Vec<Heredoc>,
    /// The comments right before it.
    pub(crate) comments: Vec<String>,
    /// An empty line was among its parts: BuildKit warns of that.
    pub(crate) has_empty_continuation: bool,
}

/// Reads the file's logical lines.
pub(crate) fn read(source: &str) -> Result<(Directives, Vec<LogicalLine>), ParseError> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut reader = Reader {
        lines: source.split_inclusive('\n'),
        number: 0,
        directives: Directives::default(),
        directives_end: false,
    };
    let mut logical = Vec::new();
    let mut comments = Vec::new();
    while let Some(line) = reader.next()? {
        let line = line.trim_end_matches(['\r', '\n']).trim_start();
        if let Some(comment) = line.strip_prefix('#') {
            if !reader.directive(line)? {
                match comment.trim() {
                    "" => comments.clear(),
                    comment => comments.push(comment.to_owned()),
                }
            }
            continue;
        }
        reader.directives_end = true;
        let (text, continues) = reader.part(line);
        if text.is_empty() && !continues {
            comments.clear();
            continue;
        }
        logical.push(reader.logical(text, continues, std::mem::take(&mut comments))?);
    }
    if logical.is_empty() {
        return Err(reader.error(reader.number, SyntaxError::Empty));
    }
    Ok((reader.directives, logical))
}

struct Reader<'a> {
    lines: std::str::SplitInclusive<'a, char>,
    /// Of the line read last.
    number: u32,
    directives: Directives,
    directives_end: bool,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<&'a str>, ParseError> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        self.number += 1;
        if line.len() >= LINE_LENGTH_MAX {
            return Err(self.error(self.number, SyntaxError::LineLength));
        }
        Ok(Some(line))
    }

    fn error(&self, first: u32, kind: SyntaxError) -> ParseError {
        ParseError { lines: LineRange { first: first.max(1), last: self.number.max(1) }, kind }
    }

    fn directive(&mut self, line: &str) -> Result<bool, ParseError> {
        if self.directives_end {
            return Ok(false);
        }
        let taken = self.directives.take(line).map_err(|kind| self.error(self.number, kind))?;
        self.directives_end = !taken;
        Ok(taken)
    }

    /// A line without the escape that continues it, and whether it continues. An escape before the escape keeps it
    /// from that; which of three is escaped is not asked, as BuildKit does not.
    fn part(&self, line: &'a str) -> (&'a str, bool) {
        let escape = self.directives.escape_token();
        match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(text) if !text.ends_with(escape) => (text, true),
            _ => (line, false),
        }
    }

    /// The rest of a logical line that begins with `text`.
    fn logical(
        &mut self,
        text: &str,
        mut continues: bool,
        comments: Vec<String>,
    ) -> Result<LogicalLine, ParseError> {
        let first = self.number;
        let mut text = text.to_owned();
        let mut has_empty_continuation = false;
        while continues {
            let Some(line) = self.next()? else { break };
            let line = line.trim_end_matches(['\r', '\n']);
            if line.trim_start().starts_with('#') {
                continue;
            }
            if line.trim_start().is_empty() {
                has_empty_continuation = true;
                continue;
            }
            let (part, more) = self.part(line);
            text.push_str(part);
            continues = more;
        }
        let mut heredocs = Vec::new();
        if text.contains("<<") && takes_heredocs(&text) {
            heredocs = Heredoc::announced(&text).map_err(|error| self.error(first, error.into()))?;
            for heredoc in &mut heredocs {
                self.content(heredoc, first)?;
            }
        }
        let lines = LineRange { first, last: self.number };
        Ok(LogicalLine { lines, text, heredocs, comments, has_empty_continuation })
    }

    fn content(&mut self, heredoc: &mut Heredoc, first: u32) -> Result<(), ParseError> {
        while let Some(line) = self.next()? {
            if heredoc.ends(line) {
                return Ok(());
            }
            heredoc.content.push_str(line);
        }
        Err(self.error(first, SyntaxError::Heredoc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<(u32, u32, String)> {
        let (_, lines) = read(source).expect(source);
        lines.into_iter().map(|line| (line.lines.first, line.lines.last, line.text)).collect()
    }

    #[test]
    fn joins_lines() {
        for (source, expected) in [
            ("FROM a\nRUN b\n", vec![(1, 1, "FROM a"), (2, 2, "RUN b")]),
            ("RUN a \\\n  b\\\nc", vec![(1, 3, "RUN a   bc")]),
            ("RUN a \\ \t\n# no\n  # nor this\n\n b\nRUN c", vec![(1, 5, "RUN a  b"), (6, 6, "RUN c")]),
            ("RUN a \\\\\nRUN b", vec![(1, 1, "RUN a \\\\"), (2, 2, "RUN b")]),
            ("# escape=`\nRUN a `\nb \\\nRUN c", vec![(2, 3, "RUN a b \\"), (4, 4, "RUN c")]),
            ("\u{feff}  FROM a\r\n\\\nRUN b", vec![(1, 1, "FROM a"), (2, 3, "RUN b")]),
            ("RUN <<E\n# kept\nx\nE\nRUN y", vec![(1, 4, "RUN <<E"), (5, 5, "RUN y")]),
            ("ENV a=<<E\nRUN y", vec![(1, 1, "ENV a=<<E"), (2, 2, "RUN y")]),
            ("RUN a \\", vec![(1, 1, "RUN a ")]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(a, b, text)| (a, b, text.to_owned())).collect();
            assert_eq!(texts(source), expected, "{source:?}");
        }
    }

    #[test]
    fn reads_directives_first_only() {
        let read = |source| read(source).map(|(directives, _)| directives).map_err(|error| error.kind);
        let directives = Directives { syntax: Some("a/b:1".into()), escape: Some('`'), check: None };
        assert_eq!(read("# syntax = a/b:1\n#escape=`\nFROM a"), Ok(directives));
        assert_eq!(read("# hello\n# escape=`\nFROM a"), Ok(Directives::default()));
        assert_eq!(read("\n# escape=`\nFROM a"), Ok(Directives::default()));
        assert_eq!(read("# escape=`\n# escape=`\nFROM a"), Err(SyntaxError::DirectiveTwice("escape")));
        assert_eq!(read("# escape=x\nFROM a"), Err(SyntaxError::EscapeToken("x".into())));
    }

    #[test]
    fn reads_heredocs() {
        let (_, lines) = read("RUN <<A <<-B\na\nA\n\tb\n\tB\n").expect("it is well formed");
        let contents: Vec<_> = lines[0].heredocs.iter().map(|heredoc| heredoc.content.as_str()).collect();
        assert_eq!(contents, ["a\n", "\tb\n"]);
        assert_eq!(
            read("RUN <<A\na\n").map_err(|error| (error.lines.first, error.kind)),
            Err((1, SyntaxError::Heredoc))
        );
    }

    #[test]
    fn refuses_what_has_no_instruction() {
        for source in ["", "# only\n\n# comments"] {
            assert_eq!(read(source).map_err(|error| error.kind), Err(SyntaxError::Empty));
        }
        let long = format!("RUN {}", "x".repeat(LINE_LENGTH_MAX));
        assert_eq!(read(&long).map_err(|error| error.kind), Err(SyntaxError::LineLength));
    }
}
