//! Words of a Dockerfile instruction: quotes, backslashes, and variables.

use super::ChangeError;

/// Splits at white space outside quotes; quotes and backslashes stay. There is one word at least, which may be empty.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, letter) if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            (None | Some('"'), '\\') => {
                word.push('\\');
                word.extend(letters.next());
                continue;
            }
            _ => {}
        }
        word.push(letter);
    }
    if !word.is_empty() || words.is_empty() {
        words.push(word);
    }
    words
}

/// Takes quotes and backslashes out and puts variables of `environment` in; single quotes keep everything.
pub(super) fn expand(text: &str, environment: &[String]) -> Result<String, ChangeError> {
    let mut value = String::new();
    let mut quote = None;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        match (quote, letter) {
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            (None, '\\') => value.push(next(&mut rest).unwrap_or('\\')),
            (Some('"'), '\\') if rest.starts_with(['"', '$', '\\']) => value.extend(next(&mut rest)),
            (None | Some('"'), '$') => value.push_str(&variable(&mut rest, environment)),
            (_, letter) => value.push(letter),
        }
    }
    match quote {
        None => Ok(value),
        Some('"') => Err(ChangeError::Quote { word: text.to_owned(), quote: "double" }),
        Some(_) => Err(ChangeError::Quote { word: text.to_owned(), quote: "single" }),
    }
}

/// Takes one letter off.
fn next(rest: &mut &str) -> Option<char> {
    let letter = rest.chars().next()?;
    *rest = &rest[letter.len_utf8()..];
    Some(letter)
}

/// The value of the variable whose name follows: `NAME`, `{NAME}`, `{NAME:-default}` or `{NAME:+alternative}`.
fn variable(rest: &mut &str, environment: &[String]) -> String {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let value_of = |name: &str| {
        let value =
            environment.iter().find_map(|assignment| assignment.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().to_owned()
    };
    if let Some((braced, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        *rest = after;
        return match (braced.split_once(":-"), braced.split_once(":+")) {
            (Some((name, default)), _) if value_of(name).is_empty() => default.to_owned(),
            (Some((name, _)), _) => value_of(name),
            (None, Some((name, alternative))) if !value_of(name).is_empty() => alternative.to_owned(),
            (None, Some(_)) => String::new(),
            (None, None) => value_of(braced),
        };
    }
    let end = rest.find(|letter: char| !is_name(letter)).unwrap_or(rest.len());
    if end == 0 {
        return "$".to_owned();
    }
    let (name, after) = rest.split_at(end);
    *rest = after;
    value_of(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_expands() {
        assert_eq!(split(r#"a="b c" d\ e 'f g'"#), [r#"a="b c""#, r"d\ e", "'f g'"]);
        let environment = ["A=1".to_owned(), "E=".to_owned()];
        let cases = [
            ("$A", "1"),
            ("${A}2", "12"),
            ("'$A'", "$A"),
            ("\"$A\"", "1"),
            ("\\$A", "$A"),
            ("${B:-x}${A:-y}${E:-z}", "x1z"),
            ("${A:+x}${B:+y}", "x"),
            ("$", "$"),
            ("$B.", "."),
            ("\"a\\\"b\"", "a\"b"),
            ("é\\é", "éé"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &environment).unwrap(), expected, "{text}");
        }
        assert!(expand("'x", &environment).is_err());
    }
}
