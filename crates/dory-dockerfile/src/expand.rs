//! Quotes, escapes and variables of a word, as BuildKit's shell lexer understands them.
//!
//! It mimics a POSIX shell (XCU 2.6.2) with some forms of bash: `${x:-word}`, `${x:+word}`, `${x:?word}` and these
//! without the colon, `${x#pattern}`, `${x##pattern}`, `${x%pattern}`, `${x%%pattern}`, `${x/pattern/replacement}`,
//! `${x//pattern/replacement}`.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{ExpansionError, ExpansionErrorKind as Kind};

mod pattern;

use pattern::Pattern;

/// Bytes of the longest expansion. `ENV A=$A$A` doubles a value with each line: without a bound, forty lines fill a
/// terabyte.
pub const EXPANSION_LENGTH_MAX: usize = 1 << 20;

/// Where values come from.
pub trait Variables {
    /// The value of `name`, if it is set.
    fn value(&self, name: &str) -> Option<&str>;
}

impl Variables for BTreeMap<String, String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// Nothing is set.
struct Unset;

impl Variables for Unset {
    fn value(&self, _name: &str) -> Option<&str> {
        None
    }
}

/// How words are read.
#[derive(Debug, Clone, Copy)]
pub struct Lexer {
    /// What escapes: a backslash, or the backtick where the file says so.
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escapes stay in the result.
    pub raw_escapes: bool,
    /// A variable that is not set stays as it is written.
    pub skip_unset: bool,
}

/// What became of a word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The word, as one.
    pub text: String,
    /// The same split at blanks that were not quoted, after the expansion.
    pub words: Vec<String>,
    /// The variables that had a value.
    pub matched: BTreeSet<String>,
    /// The variables that had none.
    pub unmatched: BTreeSet<String>,
}

impl Lexer {
    /// A lexer that takes quotes and escapes away.
    #[must_use]
    pub const fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, skip_unset: false }
    }

    /// Expands `text`.
    ///
    /// # Errors
    /// An open quote or brace, an unknown modifier, a variable that must be set, an expansion without end.
    pub fn expand(&self, text: &str, variables: &dyn Variables) -> Result<Expansion, ExpansionError> {
        let mut scan = Scan {
            rest: text.chars(),
            lexer: *self,
            raw_escapes: self.raw_escapes,
            variables,
            expansion: Expansion::default(),
        };
        match scan.until(None) {
            Ok(part) => Ok(Expansion { text: part.text, words: part.words.done(), ..scan.expansion }),
            Err(kind) => Err(ExpansionError { source_text: text.to_owned(), kind }),
        }
    }

    /// The words of `text`, where nothing is set.
    pub(crate) fn words(&self, text: &str) -> Result<Vec<String>, ExpansionError> {
        Ok(self.expand(text, &Unset)?.words)
    }
}

/// Words in the making.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if c.is_whitespace() { self.end() } else { self.word.push(c) }
    }

    fn end(&mut self) {
        if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn done(mut self) -> Vec<String> {
        self.end();
        self.done
    }
}

/// Text that was read up to its end.
#[derive(Default)]
struct Part {
    text: String,
    words: Words,
}

impl Part {
    fn push(&mut self, c: char) {
        self.text.push(c);
        self.words.push(c);
    }

    /// Blanks in it do not split.
    fn push_whole(&mut self, text: &str) {
        self.text.push_str(text);
        self.words.word.push_str(text);
    }

    /// Blanks in it split.
    fn push_split(&mut self, text: &str) {
        self.text.push_str(text);
        text.chars().for_each(|c| self.words.push(c));
    }
}

struct Scan<'a> {
    rest: std::str::Chars<'a>,
    lexer: Lexer,
    raw_escapes: bool,
    variables: &'a dyn Variables,
    expansion: Expansion,
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    /// Reads up to `stop`, which is taken and not given; to the end where it is `None`.
    fn until(&mut self, stop: Option<char>) -> Result<Part, Kind> {
        let mut part = Part::default();
        while let Some(c) = self.peek() {
            if part.text.len() > EXPANSION_LENGTH_MAX {
                return Err(Kind::Length);
            }
            if Some(c) == stop {
                self.rest.next();
                return Ok(part);
            }
            self.rest.next();
            match c {
                '$' => part.push_split(&self.dollar()?),
                '<' => part.push_whole(&self.redirection()),
                '\'' => part.push_whole(&self.single_quotes()?),
                '"' => part.push_whole(&self.double_quotes()?),
                c if c == self.lexer.escape => {
                    let mut escaped = String::new();
                    if self.raw_escapes {
                        escaped.push(c);
                    }
                    escaped.extend(self.rest.next());
                    part.push_whole(&escaped);
                }
                c => part.push(c),
            }
        }
        match stop {
            None if part.text.len() > EXPANSION_LENGTH_MAX => Err(Kind::Length),
            None => Ok(part),
            Some('/') => Err(Kind::Slash),
            Some(_) => Err(Kind::Brace),
        }
    }

    /// Patterns keep their escapes.
    fn until_raw(&mut self, stop: char) -> Result<String, Kind> {
        let before = std::mem::replace(&mut self.raw_escapes, true);
        let part = self.until(Some(stop));
        self.raw_escapes = before;
        Ok(part?.text)
    }

    /// `<<` and the blanks after it stay together: they belong to the word of a here-document.
    fn redirection(&mut self) -> String {
        let mut text = "<".to_owned();
        if self.peek() == Some('<') {
            text.extend(self.rest.next());
            while matches!(self.peek(), Some(' ' | '\t' | '\r')) {
                text.extend(self.rest.next());
            }
        }
        text
    }

    fn single_quotes(&mut self) -> Result<String, Kind> {
        let mut text = String::new();
        for c in self.rest.by_ref() {
            if c == '\'' {
                return Ok(if self.lexer.raw_quotes { format!("'{text}'") } else { text });
            }
            text.push(c);
        }
        Err(Kind::Open("single-quote"))
    }

    fn double_quotes(&mut self) -> Result<String, Kind> {
        let escape = self.lexer.escape;
        let mut text = String::new();
        while let Some(c) = self.rest.next() {
            match c {
                '"' => return Ok(if self.lexer.raw_quotes { format!("\"{text}\"") } else { text }),
                '$' => text.push_str(&self.dollar()?),
                c if c == escape => {
                    if self.raw_escapes {
                        text.push(c);
                    }
                    match self.peek() {
                        None => {}
                        // Only these can be escaped here; before all else it stands for itself.
                        Some(next) if next == '"' || next == '$' || next == escape => {
                            text.extend(self.rest.next());
                        }
                        Some(_) => text.push(c),
                    }
                }
                c => text.push(c),
            }
            if text.len() > EXPANSION_LENGTH_MAX {
                return Err(Kind::Length);
            }
        }
        Err(Kind::Open("double-quote"))
    }

    /// What follows a dollar.
    fn dollar(&mut self) -> Result<String, Kind> {
        if self.peek() == Some('{') {
            self.rest.next();
            return self.braces();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.look_up(&name) {
            None if self.lexer.skip_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    fn braces(&mut self) -> Result<String, Kind> {
        match self.peek() {
            None => return Err(Kind::Brace),
            Some('{' | '}' | ':') => return Err(Kind::Substitution),
            Some(_) => {}
        }
        let name = self.name();
        let Some(operator) = self.rest.next() else { return Err(Kind::Modifier(String::new())) };
        match operator {
            '}' => match self.look_up(&name) {
                None if self.lexer.skip_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            ':' => match self.rest.next() {
                Some(operator @ ('-' | '+' | '?')) => self.alternative(&name, operator, true),
                other => Err(Kind::Modifier(":".chars().chain(other).collect())),
            },
            '-' | '+' | '?' => self.alternative(&name, operator, false),
            '#' | '%' => self.trimmed(&name, operator),
            '/' => self.replaced(&name),
            other => Err(Kind::Modifier(other.to_string())),
        }
    }

    /// `${x-word}`, `${x+word}`, `${x?word}`; with a colon, empty is like unset.
    fn alternative(&mut self, name: &str, operator: char, colon: bool) -> Result<String, Kind> {
        let word = self.until(Some('}'))?.text;
        let value = self.look_up(name);
        if value.is_none() && self.lexer.skip_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let usable = value.as_deref().is_some_and(|value| !colon || !value.is_empty());
        match operator {
            '-' => Ok(if usable { value.unwrap_or_default() } else { word }),
            '+' => Ok(if usable { word } else { String::new() }),
            _ if usable => Ok(value.unwrap_or_default()),
            _ => {
                let default = match value {
                    None => "is not allowed to be unset",
                    Some(_) => "is not allowed to be empty",
                };
                let message = if word.is_empty() { default.to_owned() } else { word };
                Err(Kind::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `${x#pattern}`, `${x%pattern}`, and doubled for the longest match.
    fn trimmed(&mut self, name: &str, operator: char) -> Result<String, Kind> {
        let word = self.until_raw('}')?;
        let Some(value) = self.look_up(name) else {
            let kept = format!("${{{name}{operator}{word}}}");
            return Ok(if self.lexer.skip_unset { kept } else { String::new() });
        };
        let (longest, word) = match word.strip_prefix(operator) {
            Some(word) => (true, word),
            None => (false, word.as_str()),
        };
        let pattern = Pattern::parse(word)?;
        Ok(if operator == '#' {
            pattern.without_prefix(&value, longest)
        } else {
            pattern.without_suffix(&value, longest)
        })
    }

    /// `${x/pattern/replacement}`, and `${x//pattern/replacement}` for all of them.
    fn replaced(&mut self, name: &str) -> Result<String, Kind> {
        let all = self.peek() == Some('/');
        if all {
            self.rest.next();
        }
        let pattern = self.until_raw('/')?;
        let replacement = self.until_raw('}')?;
        let Some(value) = self.look_up(name) else {
            let slashes = if all { "//" } else { "/" };
            let kept = format!("${{{name}{slashes}{pattern}/{replacement}}}");
            return Ok(if self.lexer.skip_unset { kept } else { String::new() });
        };
        let replaced = Pattern::parse(&pattern)?.replace(&value, &replacement, all);
        if replaced.len() > EXPANSION_LENGTH_MAX { Err(Kind::Length) } else { Ok(replaced) }
    }

    /// A variable's name; a positional or special parameter ends with its first character or digits.
    fn name(&mut self) -> String {
        let text = self.rest.as_str();
        let mut chars = text.chars();
        let length = match chars.next() {
            Some(c) if c.is_numeric() => text.find(|c: char| !c.is_numeric()).unwrap_or(text.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()),
        };
        self.rest = text[length..].chars();
        text[..length].to_owned()
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        let value = self.variables.value(name).map(str::to_owned);
        let names = if value.is_some() { &mut self.expansion.matched } else { &mut self.expansion.unmatched };
        names.insert(name.to_owned());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("foo", "bar"), ("empty", ""), ("path", "/usr/local/bin:/usr/bin"), ("two", "a b"), ("v", "a.b.c")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn expands() {
        for (text, expected) in [
            ("$foo", "bar"),
            ("${foo}s", "bars"),
            ("$foos", ""),
            ("\\$foo", "$foo"),
            ("'$foo'", "$foo"),
            ("\"$foo x\"", "bar x"),
            ("\"\\$foo \\\"q\\\" \\x\"", "$foo \"q\" \\x"),
            ("a\\ b", "a b"),
            ("$", "$"),
            ("$1x", "x"),
            ("${empty:-d}${empty-d}", "d"),
            ("${none:-d}${none-e}", "de"),
            ("${foo:+x}${empty:+y}${empty+z}", "xz"),
            ("${foo:?m}", "bar"),
            ("${none:-${foo}}", "bar"),
            ("${path#*/}", "usr/local/bin:/usr/bin"),
            ("${path##*/}", "bin"),
            ("${path%/*}", "/usr/local/bin:/usr"),
            ("${path%%/*}", ""),
            ("${path%%:*}", "/usr/local/bin"),
            ("${v/./-}", "a-b.c"),
            ("${v//./-}", "a-b-c"),
            ("${path//\\//_}", "_usr_local_bin:_usr_bin"),
            ("${v//\\*/-}", "a.b.c"),
            ("${v/?.?/x}", "x.c"),
            ("${none#a}", ""),
        ] {
            let expansion = Lexer::new('\\').expand(text, &variables());
            assert_eq!(expansion.map(|expansion| expansion.text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn splits_after_the_expansion_and_not_inside_quotes() {
        for (text, expected) in [
            ("a $two c", &["a", "a", "b", "c"][..]),
            ("a \"$two\" c", &["a", "a b", "c"]),
            ("x' 'y  z", &["x y", "z"]),
            ("RUN << EOF cat", &["RUN", "<< EOF", "cat"]),
        ] {
            let words = Lexer::new('\\').expand(text, &variables()).map(|expansion| expansion.words);
            assert_eq!(words, Ok(expected.iter().map(|&word| word.to_owned()).collect()), "{text}");
        }
    }

    #[test]
    fn refuses_in_words() {
        for (text, expected) in [
            (
                "\"a",
                "failed to process \"\\\"a\": unexpected end of statement while looking for matching double-quote",
            ),
            (
                "'a",
                "failed to process \"'a\": unexpected end of statement while looking for matching single-quote",
            ),
            ("${a", "failed to process \"${a\": unsupported modifier () in substitution"),
            ("${", "failed to process \"${\": syntax error: missing '}'"),
            ("${}", "failed to process \"${}\": syntax error: bad substitution"),
            ("${a:-b", "failed to process \"${a:-b\": syntax error: missing '}'"),
            ("${a:#b}", "failed to process \"${a:#b}\": unsupported modifier (:#) in substitution"),
            ("${a^}", "failed to process \"${a^}\": unsupported modifier (^) in substitution"),
            ("${foo/a", "failed to process \"${foo/a\": syntax error: missing '/' in ${}"),
            ("${none?}", "failed to process \"${none?}\": none: is not allowed to be unset"),
            ("${none:?why}", "failed to process \"${none:?why}\": none: why"),
            ("${empty:?}", "failed to process \"${empty:?}\": empty: is not allowed to be empty"),
        ] {
            let error = Lexer::new('\\').expand(text, &variables()).expect_err(text);
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn keeps_what_it_is_told_to() {
        let kept = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, escape: '\\' };
        let text = "a\\ b \"c $d\" '${e:-f}' ${g:-h} $foo";
        let expansion = kept.expand(text, &variables()).expect("nothing is wrong with it");
        assert_eq!(expansion.text, "a\\ b \"c $d\" '${e:-f}' ${g:-h} bar");
        assert_eq!(expansion.unmatched, ["d".to_owned(), "g".to_owned()].into());
        assert_eq!(expansion.matched, ["foo".to_owned()].into());
    }

    #[test]
    fn has_an_end() {
        let variables = BTreeMap::from([("a".to_owned(), "x".repeat(EXPANSION_LENGTH_MAX / 2))]);
        let kind = Lexer::new('\\').expand("$a$a$a", &variables).expect_err("too long").kind;
        assert_eq!(kind, Kind::Length);
    }
}
