//! Flags of an instruction: which it has, and what they may be.

use std::collections::BTreeMap;

use crate::error::{SyntaxError, near};

/// The flags that were given.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: BTreeMap<String, Vec<String>>,
}

/// What an instruction takes.
pub(crate) struct Known {
    pub(crate) booleans: &'static [&'static str],
    pub(crate) strings: &'static [&'static str],
    /// May be there more than once.
    pub(crate) lists: &'static [&'static str],
}

/// An instruction without flags.
pub(crate) const NO_FLAGS: Known = Known { booleans: &[], strings: &[], lists: &[] };

impl Flags {
    pub(crate) fn parse(written: &[String], known: &Known) -> Result<Self, SyntaxError> {
        let mut flags = Self::default();
        for flag in written {
            let flag = flag.trim_start_matches("--");
            let (name, value) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            let all = [known.booleans, known.strings, known.lists];
            if !all.iter().any(|kind| kind.contains(&name)) {
                let near = near(name, all.into_iter().flatten().copied());
                return Err(SyntaxError::Flag { name: name.to_owned(), near });
            }
            let values = flags.values.entry(name.to_owned()).or_default();
            if !values.is_empty() && !known.lists.contains(&name) {
                return Err(SyntaxError::FlagTwice(name.to_owned()));
            }
            values.push(match value {
                Some(value) if known.booleans.contains(&name) => boolean(name, value)?,
                Some(value) => value.to_owned(),
                None if known.booleans.contains(&name) => "true".to_owned(),
                None => return Err(SyntaxError::FlagValue(name.to_owned())),
            });
        }
        Ok(flags)
    }

    /// A boolean flag; `None` where it was not given.
    pub(crate) fn boolean(&self, name: &str) -> Option<bool> {
        self.values.get(name).map(|values| values.iter().any(|value| value == "true"))
    }

    /// A flag's value; `None` where it was not given, or empty.
    pub(crate) fn string(&mut self, name: &str) -> Option<String> {
        self.list(name).pop().filter(|value| !value.is_empty())
    }

    /// All values of a flag.
    pub(crate) fn list(&mut self, name: &str) -> Vec<String> {
        self.values.remove(name).unwrap_or_default()
    }
}

fn boolean(name: &str, value: &str) -> Result<String, SyntaxError> {
    match value.to_ascii_lowercase().as_str() {
        "" => Err(SyntaxError::FlagValue(name.to_owned())),
        value @ ("true" | "false") => Ok(value.to_owned()),
        _ => Err(SyntaxError::FlagBoolean { name: name.to_owned(), value: value.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known { booleans: &["link"], strings: &["from"], lists: &["exclude"] };

    fn parse(flags: &[&str]) -> Result<Flags, SyntaxError> {
        Flags::parse(&flags.iter().map(|&flag| flag.to_owned()).collect::<Vec<_>>(), &KNOWN)
    }

    #[test]
    fn reads() {
        let mut flags =
            parse(&["--link", "--from=a=b", "--exclude=x", "--exclude=y"]).expect("all are known");
        assert_eq!(flags.boolean("link"), Some(true));
        assert_eq!(flags.string("from"), Some("a=b".to_owned()));
        assert_eq!(flags.list("exclude"), ["x", "y"]);
    }

    #[test]
    fn refuses() {
        for (flag, message) in [
            ("--form=x", "unknown flag: --form (did you mean from?)"),
            ("--link=maybe", "expecting boolean value for flag --link, not: maybe"),
            ("--link=", "missing a value on flag: --link"),
            ("--from", "missing a value on flag: --from"),
        ] {
            assert_eq!(parse(&[flag]).expect_err(flag).to_string(), message);
        }
        assert_eq!(
            parse(&["--from=a", "--from=b"]).expect_err("twice"),
            SyntaxError::FlagTwice("from".into())
        );
    }
}
