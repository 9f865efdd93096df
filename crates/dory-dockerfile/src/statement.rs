//! A logical line cut into keyword, flags and the rest.

use crate::error::SyntaxError;

/// `KEYWORD --flag=value rest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// As written.
    pub(crate) keyword: &'a str,
    /// With their dashes, without quotes and escapes.
    pub(crate) flags: Vec<String>,
    pub(crate) rest: &'a str,
}

/// What separates words here: blanks, but no newline, which no logical line has outside of quotes.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0b' | '\x0c' | '\r')
}

impl<'a> Statement<'a> {
    pub(crate) fn cut(text: &'a str, escape: char) -> Self {
        let text = text.trim();
        let (keyword, rest) = text.split_once(is_blank).unwrap_or((text, ""));
        let (flags, rest) = leading_flags(rest.trim_start_matches(is_blank), escape);
        Self { keyword, flags, rest: rest.trim() }
    }
}

/// Whether an instruction that begins so may announce here-documents; `ONBUILD` asks on behalf of its trigger.
pub(crate) fn takes_heredocs(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let mut word = words.next().unwrap_or_default();
    if word.eq_ignore_ascii_case("ONBUILD") {
        word = words.next().unwrap_or_default();
    }
    ["ADD", "COPY", "RUN"].iter().any(|name| word.eq_ignore_ascii_case(name))
}

/// Takes words that begin with two dashes off the front; a bare `--` ends them.
fn leading_flags(mut rest: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, quoted, after) = flag_word(rest, escape);
        rest = after;
        match word.as_str() {
            "--" => return (flags, rest),
            "" if !quoted => {}
            _ => flags.push(word),
        }
    }
}

/// One word, without its quotes and escapes, whether it had quotes, and what follows.
fn flag_word(text: &str, escape: char) -> (String, bool, &str) {
    let (mut word, mut quote, mut quoted) = (String::new(), None, false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, quoted, &text[at..]),
            None if c == '\'' || c == '"' => (quote, quoted) = (Some(c), true),
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => word.push(c),
        }
    }
    (word, quoted, "")
}

/// The strings of a JSON array; `None` where `text` is none, and a shell's line instead.
///
/// # Errors
/// An array of something else than strings.
pub(crate) fn json_strings(text: &str) -> Result<Option<Vec<String>>, SyntaxError> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(SyntaxError::NotStrings),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Words separated by blanks; the quotes that they may have mean nothing here.
pub(crate) fn blank_separated(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts() {
        for (text, keyword, flags, rest) in [
            ("RUN a  b", "RUN", &[][..], "a  b"),
            ("COPY --from=x --link a b", "COPY", &["--from=x", "--link"], "a b"),
            ("RUN --mount='type=a b' --x=\"q\" c", "RUN", &["--mount=type=a b", "--x=q"], "c"),
            ("RUN -- --x", "RUN", &[], "--x"),
            ("RUN --a\\ b c", "RUN", &["--a b"], "c"),
            ("CMD", "CMD", &[], ""),
            ("RUN\t-x", "RUN", &[], "-x"),
            ("RUN --a", "RUN", &["--a"], ""),
        ] {
            let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
            assert_eq!(Statement::cut(text, '\\'), Statement { keyword, flags, rest }, "{text}");
        }
    }

    #[test]
    fn knows_json_from_shell() {
        assert_eq!(json_strings("[\"a\", \"b\"]"), Ok(Some(vec!["a".into(), "b".into()])));
        assert_eq!(json_strings("[]"), Ok(Some(vec![])));
        assert_eq!(json_strings("[ -f x ]"), Ok(None));
        assert_eq!(json_strings("['a']"), Ok(None));
        assert_eq!(json_strings("[\"a\"] b"), Ok(None));
        assert_eq!(json_strings("[\"a\", 1]"), Err(SyntaxError::NotStrings));
    }
}
