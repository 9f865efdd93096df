//! What is wrong with a Dockerfile, where, and in words that people can search for.

use std::fmt;

/// Lines of the file, counted from 1, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineRange {
    /// The first line.
    pub first: u32,
    /// The last line.
    pub last: u32,
}

/// A Dockerfile cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Where.
    pub lines: LineRange,
    /// What.
    pub kind: SyntaxError,
}

impl fmt::Display for ParseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "dockerfile parse error on line {}: {}", self.lines.first, self.kind)
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.kind)
    }
}

/// What is wrong with a statement; the messages are BuildKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// The file is empty, or has comments only.
    #[error("file with no instructions")]
    Empty,
    /// The file is not UTF-8.
    #[error("the file is not valid UTF-8")]
    Encoding,
    /// One line is too long.
    #[error("dockerfile line greater than max allowed size of {}", crate::LINE_LENGTH_MAX - 1)]
    LineLength,
    /// `# escape=` names something else than a backslash or a backtick.
    #[error("invalid escape token '{0}' does not match ` or \\")]
    EscapeToken(String),
    /// A directive is there twice.
    #[error("only one {0} parser directive can be used")]
    DirectiveTwice(&'static str),
    /// A heredoc's end is missing.
    #[error("unterminated heredoc")]
    Heredoc,
    /// Not an instruction.
    #[error("unknown instruction: {name}{}", DidYouMean(.near))]
    Instruction {
        /// As written.
        name: String,
        /// A known one that is spelled nearly so.
        near: Option<String>,
    },
    /// Not a flag of this instruction.
    #[error("unknown flag: --{name}{}", DidYouMean(.near))]
    Flag {
        /// Without dashes.
        name: String,
        /// A known one that is spelled nearly so.
        near: Option<String>,
    },
    /// A flag is there twice.
    #[error("duplicate flag specified: --{0}")]
    FlagTwice(String),
    /// A flag has no value.
    #[error("missing a value on flag: --{0}")]
    FlagValue(String),
    /// A flag is neither true nor false.
    #[error("expecting boolean value for flag --{name}, not: {value}")]
    FlagBoolean {
        /// Without dashes.
        name: String,
        /// As written.
        value: String,
    },
    /// Arguments are missing.
    #[error("{0} requires at least one argument")]
    NoArgument(&'static str),
    /// One argument is expected.
    #[error("{0} requires exactly one argument")]
    OneArgument(&'static str),
    /// Sources without a destination.
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    /// A heredoc where a path is expected.
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    /// A name is empty.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// A name without a value.
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    /// A pair without `=`.
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NoEquals(String),
    /// A JSON array of something else than strings.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    /// `SHELL` in shell form.
    #[error("SHELL requires the arguments to be in JSON form")]
    ShellForm,
    /// `FROM` with a wrong number of words.
    #[error("FROM requires either one or three arguments")]
    From,
    /// A stage's name.
    #[error("invalid name for build stage: {0:?}, name can't start with a number or contain symbols")]
    StageName(String),
    /// An instruction before the first `FROM`.
    #[error("no build stage in current context")]
    NoStage,
    /// `ONBUILD ONBUILD`.
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnbuildChain,
    /// An instruction that `ONBUILD` may not have.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    Trigger(String),
    /// One instruction is expected.
    #[error("one instruction is expected, and there are {0}")]
    Several(usize),
    /// `HEALTHCHECK NONE` with arguments.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    /// `HEALTHCHECK CMD` without a command.
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthcheckCommand,
    /// Neither `CMD` nor `NONE`.
    #[error("Unknown type {0:?} in HEALTHCHECK (try CMD)")]
    HealthcheckType(String),
    /// An interval below a millisecond.
    #[error("Interval {0:?} cannot be less than 1ms")]
    HealthcheckInterval(&'static str),
    /// Not a duration.
    #[error("time: invalid duration {0:?}")]
    Duration(String),
    /// Not a count.
    #[error("invalid value {value:?} for --{name}")]
    Number {
        /// Without dashes.
        name: &'static str,
        /// As written.
        value: String,
    },
    /// A negative count.
    #[error("--retries cannot be negative ({0})")]
    Retries(i64),
    /// `VOLUME` with an empty path.
    #[error("VOLUME specified can not be an empty string")]
    Volume,
    /// `RUN` without a command.
    #[error("RUN requires at least one argument")]
    Run,
    /// A field of `--mount`.
    #[error("{0}")]
    Mount(String),
    /// `RUN --network` or `--security` with an unknown mode.
    #[error("invalid {kind} mode {value:?}{}", DidYouMean(.near))]
    Mode {
        /// `network` or `security`.
        kind: &'static str,
        /// As written.
        value: String,
        /// A known one that is spelled nearly so.
        near: Option<String>,
    },
    /// A word cannot be expanded.
    #[error(transparent)]
    Expansion(#[from] ExpansionError),
}

impl SyntaxError {
    /// The word at fault, where one is: what [`ParseError::excerpt`] points at.
    fn word(&self) -> Option<&str> {
        match self {
            Self::EscapeToken(word)
            | Self::FlagTwice(word)
            | Self::FlagValue(word)
            | Self::NoEquals(word)
            | Self::StageName(word)
            | Self::Trigger(word)
            | Self::HealthcheckType(word)
            | Self::Duration(word) => Some(word),
            Self::Instruction { name, .. } | Self::Flag { name, .. } => Some(name),
            Self::FlagBoolean { value, .. } | Self::Number { value, .. } | Self::Mode { value, .. } => {
                Some(value)
            }
            _ => None,
        }
    }
}

/// ` (did you mean X?)`, or nothing.
struct DidYouMean<'a>(&'a Option<String>);

impl fmt::Display for DidYouMean<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(near) => write!(formatter, " (did you mean {near}?)"),
            None => Ok(()),
        }
    }
}

/// How many lines before and after the statement an excerpt shows.
const CONTEXT: u32 = 2;

impl ParseError {
    /// The lines around the error, numbered and marked, with a pointer under the word at fault; `source` is the file.
    #[must_use]
    pub fn excerpt(&self, source: &str) -> String {
        excerpt(source, self.lines, self.kind.word())
    }
}

/// Lines around `lines`, marked with `>>>`, and a pointer under `word` where it is found in them.
pub(crate) fn excerpt(source: &str, lines: LineRange, word: Option<&str>) -> String {
    let first = lines.first.saturating_sub(CONTEXT).max(1);
    let mut out = String::new();
    let mut word = word.filter(|word| !word.is_empty());
    let numbered = source.lines().zip(1u32..);
    for (line, number) in numbered.skip(first as usize - 1).take_while(|(_, n)| *n <= lines.last + CONTEXT) {
        let inside = (lines.first..=lines.last).contains(&number);
        let mark = if inside { ">>>" } else { "   " };
        out.push_str(&format!("{number:4} | {mark} {line}\n"));
        if let Some(column) = word.filter(|_| inside).and_then(|word| line.find(word)) {
            let before: String = line[..column].chars().map(|c| if c == '\t' { c } else { ' ' }).collect();
            let length = word.take().map_or(1, |word| word.chars().count());
            out.push_str(&format!("     |     {before}{}\n", "^".repeat(length)));
        }
    }
    out
}

/// A word cannot be expanded; the messages are BuildKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {source_text:?}: {kind}")]
pub struct ExpansionError {
    /// What was to be expanded.
    pub source_text: String,
    /// Why it cannot be.
    pub kind: ExpansionErrorKind,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpansionErrorKind {
    /// A quote or brace is open at the end.
    #[error("unexpected end of statement while looking for matching {0}")]
    Open(&'static str),
    /// `${x` without its end.
    #[error("syntax error: missing '}}'")]
    Brace,
    /// `${x/y` without its second slash.
    #[error("syntax error: missing '/' in ${{}}")]
    Slash,
    /// `${}` and the like.
    #[error("syntax error: bad substitution")]
    Substitution,
    /// A modifier that is none.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// `${x?message}` where it is unset or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the file says about it.
        message: String,
    },
    /// A pattern with an escape that means nothing.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What follows the backslash.
        escaped: char,
    },
    /// Variables that hold variables that hold variables.
    #[error("the expansion is longer than {} bytes", crate::EXPANSION_LENGTH_MAX)]
    Length,
}

/// The option nearest to `written` by edits, if fewer than three are needed; an exact match is none.
pub(crate) fn near<'a>(written: &str, options: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = written.to_lowercase();
    let mut best = (3, None);
    for option in options {
        let distance = edits(&lower, &option.to_lowercase());
        if distance == 0 {
            return None;
        }
        if distance < best.0 {
            best = (distance, Some(option));
        }
    }
    best.1.map(|option| if written == lower { option.to_lowercase() } else { option.to_owned() })
}

/// Levenshtein's distance.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, have) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, want) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(have != *want);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near() {
        let known = ["RUN", "COPY", "FROM"];
        assert_eq!(near("FORM", known), Some("FROM".to_owned()));
        assert_eq!(near("runn", known), Some("run".to_owned()));
        assert_eq!(near("EXPLODE", known), None);
        assert_eq!(near("RUN", known), None);
    }

    #[test]
    fn points_at_the_word() {
        let lines = LineRange { first: 2, last: 2 };
        let kind = SyntaxError::Instruction { name: "RUNN".into(), near: Some("RUN".into()) };
        let error = ParseError { lines, kind };
        assert_eq!(
            error.to_string(),
            "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"
        );
        assert_eq!(
            error.excerpt("FROM a\n  RUNN x\nCMD y\n"),
            "   1 |     FROM a\n   2 | >>>   RUNN x\n     |       ^^^^\n   3 |     CMD y\n"
        );
    }
}
