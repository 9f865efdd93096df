//! What a command is: its words, flags, arguments, help and action.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use anyhow::Result;
use dory_registry::RegistryConfig;

use crate::client::Client;
use crate::failure::{Exit, ExitStatus, code};
use crate::flags::{Arguments, Flag, FlagKind, FlagsEnd};

/// What a command's action returns.
pub(crate) type Outcome<'a> = Pin<Box<dyn Future<Output = Result<ExitStatus>> + 'a>>;

/// One call of a command.
#[derive(Debug)]
pub(crate) struct Invocation<'s> {
    /// The words that named the command, `dory container ls`.
    pub(crate) command: String,
    /// Its flags and arguments.
    pub(crate) arguments: Arguments,
    /// The way to the engine.
    pub(crate) client: Client<'s>,
    /// Docker's `config.json`, with what `login` left.
    pub(crate) docker_config: PathBuf,
    /// How registries are configured, for commands that need no engine.
    pub(crate) registries: fn() -> Result<RegistryConfig>,
    /// The version of the program.
    pub(crate) version: &'s str,
}

/// How many arguments a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    /// None at all.
    None,
    /// This many.
    Exactly(usize),
    /// This many or more.
    AtLeast(usize),
    /// This many or fewer.
    AtMost(usize),
    /// Between the two, both included.
    Between(usize, usize),
}

/// A command with an action.
pub(crate) struct Command {
    /// Behind the words in the usage line, `[OPTIONS] IMAGE [COMMAND] [ARG...]`.
    pub(crate) usage: &'static str,
    /// One line for lists and the help.
    pub(crate) about: &'static str,
    /// Sets of flags that together are the command's.
    pub(crate) flags: &'static [&'static [Flag]],
    /// How many arguments there must be.
    pub(crate) arity: Arity,
    /// Where flags end.
    pub(crate) flags_end: FlagsEnd,
    /// The action.
    pub(crate) run: for<'a> fn(&'a Invocation<'a>) -> Outcome<'a>,
}

/// A word of the command line, and what it leads to.
pub(crate) struct Entry {
    /// The word, and other words for the same.
    pub(crate) names: &'static [&'static str],
    /// What it names.
    pub(crate) node: Node,
}

/// What a word leads to.
pub(crate) enum Node {
    /// A command.
    Command(&'static Command),
    /// More words, with the group's one line for lists.
    Group(&'static str, &'static [Entry]),
}

/// An entry for a command.
pub(crate) const fn entry(names: &'static [&'static str], command: &'static Command) -> Entry {
    Entry { names, node: Node::Command(command) }
}

impl Command {
    /// Reads the words behind the command's own.
    ///
    /// # Errors
    /// Docker's texts and exit codes for wrong flags and wrong numbers of arguments.
    pub(crate) fn parse(&self, command: &str, words: Vec<String>) -> Result<Arguments> {
        let arguments = Arguments::parse(self.flags, self.flags_end, words)?;
        if !arguments.on("help") {
            self.check_arity(command, arguments.positional().len())?;
        }
        Ok(arguments)
    }

    fn check_arity(&self, command: &str, given: usize) -> Result<()> {
        let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
        let needs = match self.arity {
            Arity::None if given > 0 => "accepts no arguments".to_owned(),
            Arity::Exactly(count) if given != count => format!("requires exactly {count} {}", plural(count)),
            Arity::AtLeast(count) if given < count => format!("requires at least {count} {}", plural(count)),
            Arity::AtMost(count) if given > count => format!("requires at most {count} {}", plural(count)),
            Arity::Between(least, most) if !(least..=most).contains(&given) => {
                format!("requires at least {least} and at most {most} {}", plural(most))
            }
            _ => return Ok(()),
        };
        let usage = self.usage_line(command);
        let about = self.about;
        let text = format!("\"{command}\" {needs}.\nSee '{command} --help'.\n\n{usage}\n\n{about}");
        Err(Exit { text, code: code::FAILED }.into())
    }

    fn usage_line(&self, command: &str) -> String {
        format!("Usage:  {command} {}", self.usage).trim_end().to_owned()
    }

    /// The text of `--help`.
    pub(crate) fn help(&self, command: &str) -> String {
        let mut text = format!("\n{}\n\n{}\n", self.usage_line(command), self.about);
        let mut flags: Vec<_> =
            self.flags.iter().flat_map(|set| set.iter()).filter(|f| !f.help.is_empty()).collect();
        if flags.is_empty() {
            return text;
        }
        flags.sort_by_key(|flag| flag.long);
        text.push_str("\nOptions:\n");
        text.push_str(&flag_lines(&flags));
        text
    }
}

/// One line per flag, the descriptions aligned.
pub(crate) fn flag_lines(flags: &[&Flag]) -> String {
    let lines: Vec<_> = flags.iter().map(|flag| (flag_form(flag), flag.help)).collect();
    two_columns(&lines, 3)
}

fn flag_form(flag: &Flag) -> String {
    let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    match flag.kind {
        FlagKind::Switch => format!("{short}--{}", flag.long),
        FlagKind::Value(name) | FlagKind::List(name) => format!("{short}--{} {name}", flag.long),
    }
}

/// Lines of a name and a description, aligned.
pub(crate) fn two_columns<N: AsRef<str>, T: AsRef<str>>(lines: &[(N, T)], gap: usize) -> String {
    let width = lines.iter().map(|(name, _)| name.as_ref().len()).max().unwrap_or(0) + gap;
    lines.iter().map(|(name, text)| format!("  {:<width$}{}\n", name.as_ref(), text.as_ref())).collect()
}
