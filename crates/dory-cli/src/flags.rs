//! Flags as Docker's command line reads them.
//!
//! The rules are those of pflag (POSIX and GNU forms, `-it`, `-p80:80`, `--rm=false`), with one that general parsers lack:
//! `run`, `create`, `exec` and `top` refuse unknown flags, but only up to the first argument; everything behind it
//! belongs to the container. Scripts also depend on the texts and exit codes of the refusals, so they are Docker's too.

use std::collections::BTreeMap;
use std::fmt;

use dory_types::parse_bool;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagKind {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// One value, the last one given; the text names its type in the help.
    Value(&'static str),
    /// Any number of values.
    List(&'static str),
}

/// One flag of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// The name behind `--`.
    pub(crate) long: &'static str,
    /// The letter behind `-`.
    pub(crate) short: Option<char>,
    /// What it takes.
    pub(crate) kind: FlagKind,
    /// One line for the help; empty for flags that are accepted and not shown.
    pub(crate) help: &'static str,
}

/// A switch with a letter.
pub(crate) const fn switch(long: &'static str, short: char, help: &'static str) -> Flag {
    Flag { long, short: Some(short), kind: FlagKind::Switch, help }
}

/// A switch without a letter.
pub(crate) const fn long_switch(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, kind: FlagKind::Switch, help }
}

/// A flag with one value and a letter.
pub(crate) const fn value(long: &'static str, short: char, name: &'static str, help: &'static str) -> Flag {
    Flag { long, short: Some(short), kind: FlagKind::Value(name), help }
}

/// A flag with one value and no letter.
pub(crate) const fn long_value(long: &'static str, name: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, kind: FlagKind::Value(name), help }
}

/// A flag that may be repeated, with a letter.
pub(crate) const fn list(long: &'static str, short: char, help: &'static str) -> Flag {
    Flag { long, short: Some(short), kind: FlagKind::List("list"), help }
}

/// A flag that may be repeated, without a letter.
pub(crate) const fn long_list(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, kind: FlagKind::List("list"), help }
}

impl Flag {
    /// `-m, --memory` or `--memory`, as refusals name it.
    fn display_name(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}

/// Where flags end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagsEnd {
    /// Flags and arguments may be mixed, up to `--`.
    DoubleDash,
    /// The first argument ends the flags.
    FirstArgument,
    /// No word is a flag, except that any `--help` asks for help.
    Beginning,
}

/// Why arguments could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FlagError {
    /// No such flag.
    UnknownLong(String),
    /// No such letter; the second text is the argument that it stands in.
    UnknownShort(char, String),
    /// The flag's value is missing.
    NeedsArgument(String),
    /// The value does not fit the flag.
    Invalid {
        /// The value.
        value: String,
        /// The flag, with its letter.
        flag: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for FlagError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownLong(name) => write!(formatter, "unknown flag: --{name}"),
            Self::UnknownShort(letter, argument) => {
                write!(formatter, "unknown shorthand flag: '{letter}' in {argument}")
            }
            Self::NeedsArgument(flag) => write!(formatter, "flag needs an argument: {flag}"),
            Self::Invalid { value, flag, reason } => {
                write!(formatter, "invalid argument \"{value}\" for \"{flag}\" flag: {reason}")
            }
        }
    }
}

impl std::error::Error for FlagError {}

/// The flags and arguments of one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arguments {
    values: BTreeMap<&'static str, Vec<String>>,
    names: BTreeMap<&'static str, String>,
    positional: Vec<String>,
}

impl Arguments {
    /// Reads `input` by `flags`. `--help` and, where no flag has the letter, `-h` are always known.
    ///
    /// # Errors
    /// [`FlagError`].
    pub(crate) fn parse(flags: &[&[Flag]], end: FlagsEnd, input: Vec<String>) -> Result<Self, FlagError> {
        let known = |predicate: &dyn Fn(&Flag) -> bool| {
            flags.iter().flat_map(|set| set.iter()).find(|flag| predicate(flag))
        };
        let mut parsed = Self::default();
        if end == FlagsEnd::Beginning {
            if input.iter().any(|word| word == "--help") {
                parsed.take(&HELP, None, &mut std::iter::empty(), String::new)?;
            }
            parsed.positional = input;
            return Ok(parsed);
        }
        let mut rest = input.into_iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                break;
            } else if let Some(long) = argument.strip_prefix("--") {
                let (name, value) = split_value(long);
                let flag = match known(&|flag| flag.long == name) {
                    Some(flag) => flag,
                    None if name == "help" => &HELP,
                    None => return Err(FlagError::UnknownLong(name.to_owned())),
                };
                parsed.take(flag, value, &mut rest, || format!("--{name}"))?;
            } else if argument.len() > 1 && argument.starts_with('-') {
                parsed
                    .take_letters(&argument, &mut rest, |letter| known(&|flag| flag.short == Some(letter)))?;
            } else {
                parsed.positional.push(argument);
                if end == FlagsEnd::FirstArgument {
                    break;
                }
            }
        }
        parsed.positional.extend(rest);
        Ok(parsed)
    }

    /// Reads a group of letters, the last of which may take the rest of the group or the next argument.
    fn take_letters<'f>(
        &mut self,
        argument: &str,
        rest: &mut impl Iterator<Item = String>,
        known: impl Fn(char) -> Option<&'f Flag>,
    ) -> Result<(), FlagError> {
        let mut letters = argument[1..].chars();
        while let Some(letter) = letters.next() {
            let flag = match known(letter) {
                Some(flag) => flag,
                None if letter == 'h' => &HELP,
                None => return Err(FlagError::UnknownShort(letter, argument.to_owned())),
            };
            let group = letters.as_str();
            let value = match group.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None if flag.kind == FlagKind::Switch || group.is_empty() => None,
                None => Some(group.to_owned()),
            };
            let consumed = value.is_some();
            self.take(flag, value, rest, || format!("'{letter}' in {argument}"))?;
            if consumed {
                break;
            }
        }
        Ok(())
    }

    /// Stores a flag's value, from `value` or the next argument.
    fn take(
        &mut self,
        flag: &Flag,
        value: Option<String>,
        rest: &mut impl Iterator<Item = String>,
        name: impl Fn() -> String,
    ) -> Result<(), FlagError> {
        let value = match (flag.kind, value) {
            (FlagKind::Switch, None) => "true".to_owned(),
            (FlagKind::Switch, Some(value)) => match parse_bool(&value) {
                Some(value) => value.to_string(),
                None => {
                    let reason = format!("strconv.ParseBool: parsing \"{value}\": invalid syntax");
                    return Err(FlagError::Invalid { value, flag: flag.display_name(), reason });
                }
            },
            (_, Some(value)) => value,
            (_, None) => rest.next().ok_or_else(|| FlagError::NeedsArgument(name()))?,
        };
        self.values.entry(flag.long).or_default().push(value);
        self.names.entry(flag.long).or_insert_with(|| flag.display_name());
        Ok(())
    }

    /// Whether the switch `long` is on.
    pub(crate) fn on(&self, long: &str) -> bool {
        self.on_or(long, false)
    }

    /// Whether the switch `long` is on, `default` if it was not given.
    pub(crate) fn on_or(&self, long: &str, default: bool) -> bool {
        self.value(long).map_or(default, |value| value == "true")
    }

    /// The last value of `long`.
    pub(crate) fn value(&self, long: &str) -> Option<&str> {
        self.values.get(long).and_then(|values| values.last()).map(String::as_str)
    }

    /// The value of `long`, or the empty text.
    pub(crate) fn text(&self, long: &str) -> &str {
        self.value(long).unwrap_or_default()
    }

    /// All values of `long`.
    pub(crate) fn list(&self, long: &str) -> &[String] {
        self.values.get(long).map(Vec::as_slice).unwrap_or_default()
    }

    /// The value of `long` as `parse` reads it.
    ///
    /// # Errors
    /// [`FlagError::Invalid`] with the reason that `parse` gives.
    pub(crate) fn parsed<T, E: fmt::Display>(
        &self,
        long: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, FlagError> {
        self.value(long)
            .map(|value| parse(value).map_err(|reason| self.invalid(long, value, &reason)))
            .transpose()
    }

    /// All values of `long` as `parse` reads them.
    ///
    /// # Errors
    /// [`FlagError::Invalid`] with the reason that `parse` gives.
    pub(crate) fn parsed_list<T, E: fmt::Display>(
        &self,
        long: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, FlagError> {
        self.list(long)
            .iter()
            .map(|value| parse(value).map_err(|reason| self.invalid(long, value, &reason)))
            .collect()
    }

    fn invalid(&self, long: &str, value: &str, reason: &dyn fmt::Display) -> FlagError {
        let flag = self.names.get(long).cloned().unwrap_or_else(|| format!("--{long}"));
        FlagError::Invalid { value: value.to_owned(), flag, reason: reason.to_string() }
    }

    /// The arguments that are no flags.
    pub(crate) fn positional(&self) -> &[String] {
        &self.positional
    }
}

/// `--help`, which every command knows.
const HELP: Flag = long_switch("help", "Print usage");

fn split_value(text: &str) -> (&str, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    }
}

/// Go's `strconv.ParseInt`, for the flags that take whole numbers.
///
/// # Errors
/// Go's own text.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        switch("interactive", 'i', "x"),
        switch("tty", 't', "x"),
        long_switch("rm", "x"),
        value("hostname", 'h', "string", "x"),
        list("publish", 'p', "x"),
        value("memory", 'm', "bytes", "x"),
    ];

    fn parse(end: FlagsEnd, input: &[&str]) -> Result<Arguments, String> {
        let input = input.iter().map(|text| (*text).to_owned()).collect();
        Arguments::parse(&[FLAGS], end, input).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_all_forms() {
        let input = [
            "-it",
            "--rm=false",
            "-p80:80",
            "-p",
            "81:81",
            "--publish=82",
            "-h=box",
            "image",
            "-x",
            "--",
            "--rm",
        ];
        let parsed = parse(FlagsEnd::FirstArgument, &input).unwrap();
        assert!(parsed.on("interactive") && parsed.on("tty") && !parsed.on("rm"));
        assert!(parsed.on_or("absent", true));
        assert_eq!(parsed.list("publish"), ["80:80", "81:81", "82"]);
        assert_eq!(parsed.value("hostname"), Some("box"));
        assert_eq!(parsed.positional(), ["image", "-x", "--", "--rm"]);
    }

    #[test]
    fn mixes_flags_and_arguments_where_allowed() {
        let parsed = parse(FlagsEnd::DoubleDash, &["a", "--rm", "-", "b", "--", "-i"]).unwrap();
        assert!(parsed.on("rm") && !parsed.on("interactive"));
        assert_eq!(parsed.positional(), ["a", "-", "b", "-i"]);
    }

    #[test]
    fn refuses_with_dockers_texts() {
        for (input, message) in [
            (&["--nope=1"][..], "unknown flag: --nope"),
            (&["-ix"], "unknown shorthand flag: 'x' in -ix"),
            (&["--hostname"], "flag needs an argument: --hostname"),
            (&["-ip"], "flag needs an argument: 'p' in -ip"),
            (
                &["--rm=maybe"],
                "invalid argument \"maybe\" for \"--rm\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(parse(FlagsEnd::DoubleDash, input).unwrap_err(), message);
        }
        let parsed = parse(FlagsEnd::DoubleDash, &["-m", "x"]).unwrap();
        assert_eq!(
            parsed.parsed("memory", |_| Err::<(), _>("invalid size: 'x'")).unwrap_err().to_string(),
            "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'"
        );
    }

    #[test]
    fn help_needs_no_declaration() {
        assert!(parse(FlagsEnd::DoubleDash, &["--help"]).unwrap().on("help"));
        assert!(Arguments::parse(&[], FlagsEnd::DoubleDash, vec!["-h".to_owned()]).unwrap().on("help"));
    }
}
