//! Words of `ENV`, `LABEL` and `ARG`, whose quotes stay until they are expanded.

use crate::error::SyntaxError;
use crate::instruction::KeyValue;

/// Splits at blanks outside of quotes; quotes and escapes stay.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut inside) = (String::new(), None, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if inside {
                words.push(std::mem::take(&mut word));
            }
            inside = false;
            continue;
        }
        // An escape at the very end is dropped. In single quotes nothing can be escaped.
        if c == escape && quote != Some('\'') {
            if let Some(escaped) = chars.next() {
                word.extend([c, escaped]);
                inside = true;
            }
            continue;
        }
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            _ => {}
        }
        word.push(c);
        inside = true;
    }
    if inside {
        words.push(word);
    }
    words
}

/// `name=value name=value …`, or the old `name value`, of which `keyword` takes the rest as one value.
pub(crate) fn pairs(rest: &str, keyword: &'static str, escape: char) -> Result<Vec<KeyValue>, SyntaxError> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else { return Err(SyntaxError::NoArgument(keyword)) };
    let pair = |key: &str, value: &str, legacy| match key {
        "" => Err(SyntaxError::BlankName(keyword)),
        _ => Ok(KeyValue { key: key.to_owned(), value: value.to_owned(), legacy }),
    };
    if !first.contains('=') {
        let (key, value) = rest.split_once(char::is_whitespace).ok_or(SyntaxError::TwoArguments(keyword))?;
        return Ok(vec![pair(key, value.trim_start(), true)?]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => pair(key, value, false),
            None => Err(SyntaxError::NoEquals(word.clone())),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        for (text, expected) in [
            ("a b", &["a", "b"][..]),
            ("a='x y' b=\"z \\\" w\"", &["a='x y'", "b=\"z \\\" w\""]),
            ("a\\ b c\\", &["a\\ b", "c"]),
            ("'a\\' b", &["'a\\'", "b"]),
            ("  ", &[]),
            ("a=\"\" ''", &["a=\"\"", "''"]),
        ] {
            assert_eq!(quoted_words(text, '\\'), expected, "{text}");
        }
    }

    #[test]
    fn pairs_names_and_values() {
        let pair = |key: &str, value: &str, legacy| KeyValue { key: key.into(), value: value.into(), legacy };
        assert_eq!(pairs("a b  c", "ENV", '\\'), Ok(vec![pair("a", "b  c", true)]));
        assert_eq!(
            pairs("a=b c='d e'", "ENV", '\\'),
            Ok(vec![pair("a", "b", false), pair("c", "'d e'", false)])
        );
        assert_eq!(pairs("a=", "ENV", '\\'), Ok(vec![pair("a", "", false)]));
        assert_eq!(pairs("a", "ENV", '\\'), Err(SyntaxError::TwoArguments("ENV")));
        assert_eq!(pairs("", "LABEL", '\\'), Err(SyntaxError::NoArgument("LABEL")));
        assert_eq!(pairs("a=b c", "ENV", '\\'), Err(SyntaxError::NoEquals("c".into())));
        assert_eq!(pairs("=b", "ENV", '\\'), Err(SyntaxError::BlankName("ENV")));
    }
}
