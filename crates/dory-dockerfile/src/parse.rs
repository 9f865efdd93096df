//! The whole file: statements become typed instructions, instructions stages.

use crate::error::{LineRange, ParseError, SyntaxError, near};
use crate::flags::{Flags, Known, NO_FLAGS};
use crate::healthcheck::Healthcheck;
use crate::heredoc::{Heredoc, without_leading_tabs};
use crate::instruction::{
    Add, ArgDefinition, CommandLine, Copy, Inline, Instruction, Located, Network, Run, Security, Sources,
    Stage,
};
use crate::lines::{self, Directives, LogicalLine};
use crate::mount::Mount;
use crate::statement::{Statement, blank_separated, json_strings};
use crate::words::{pairs, quoted_words};

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The parser directives.
    pub directives: Directives,
    /// `ARG` before the first `FROM`: for `FROM` lines, and as defaults of the stages' own.
    pub global_args: Vec<Located<Vec<ArgDefinition>>>,
    /// The stages, in their order.
    pub stages: Vec<Located<Stage>>,
    /// Instructions with an empty line between their parts.
    pub(crate) empty_continuations: Vec<LineRange>,
}

/// Reads a Dockerfile.
///
/// # Errors
/// [`ParseError`] for the first thing that is wrong.
pub fn parse(source: &[u8]) -> Result<Dockerfile, ParseError> {
    let source = std::str::from_utf8(source).map_err(|error| {
        let newlines = source[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        let line = u32::try_from(newlines + 1).unwrap_or(u32::MAX);
        ParseError { lines: LineRange { first: line, last: line }, kind: SyntaxError::Encoding }
    })?;
    let (directives, logical) = lines::read(source)?;
    let escape = directives.escape_token();
    let mut file = Dockerfile {
        directives,
        global_args: Vec::new(),
        stages: Vec::new(),
        empty_continuations: Vec::new(),
    };
    for line in &logical {
        if line.has_empty_continuation {
            file.empty_continuations.push(line.lines);
        }
        file.take(line, escape).map_err(|kind| ParseError { lines: line.lines, kind })?;
    }
    if file.stages.is_empty() {
        let lines = logical.last().map(|line| line.lines).unwrap_or_default();
        return Err(ParseError { lines, kind: SyntaxError::NoStage });
    }
    Ok(file)
}

/// Reads one instruction that stands for itself: a change of `docker commit`.
///
/// # Errors
/// [`ParseError`]; also for several instructions, and for `FROM`.
pub fn parse_instruction(source: &str) -> Result<Located<Instruction>, ParseError> {
    let (directives, logical) = lines::read(source)?;
    let [line] = logical.as_slice() else {
        let lines = logical.last().map(|line| line.lines).unwrap_or_default();
        return Err(ParseError { lines, kind: SyntaxError::Several(logical.len()) });
    };
    let escape = directives.escape_token();
    let statement = Statement::cut(&line.text, escape);
    let value = instruction(&statement, &line.heredocs, &line.text, escape)
        .map_err(|kind| ParseError { lines: line.lines, kind })?;
    Ok(located(line, &statement, value))
}

/// Reads the instruction of an `ONBUILD` trigger that a base image brings.
///
/// # Errors
/// As [`parse_instruction`], and for what `ONBUILD` may not have.
pub fn parse_trigger(source: &str) -> Result<Located<Instruction>, ParseError> {
    let keyword = source.split_whitespace().next().unwrap_or_default();
    check_trigger(keyword).map_err(|kind| ParseError { lines: LineRange { first: 1, last: 1 }, kind })?;
    parse_instruction(source)
}

impl Dockerfile {
    fn take(&mut self, line: &LogicalLine, escape: char) -> Result<(), SyntaxError> {
        let statement = Statement::cut(&line.text, escape);
        if statement.keyword.eq_ignore_ascii_case("FROM") {
            let stage = from(&statement)?;
            self.stages.push(located(line, &statement, stage));
            return Ok(());
        }
        let value = instruction(&statement, &line.heredocs, &line.text, escape)?;
        match (self.stages.last_mut(), value) {
            (Some(stage), value) => stage.value.instructions.push(located(line, &statement, value)),
            (None, Instruction::Arg(definitions)) => {
                self.global_args.push(located(line, &statement, definitions));
            }
            (None, _) => return Err(SyntaxError::NoStage),
        }
        Ok(())
    }

    /// The stage with this name or number, among those before `before` (`None`: all), the last of a name first.
    #[must_use]
    pub fn stage(&self, name: &str, before: Option<usize>) -> Option<usize> {
        let known = &self.stages[..before.unwrap_or(self.stages.len()).min(self.stages.len())];
        let lower = name.to_lowercase();
        known
            .iter()
            .rposition(|stage| stage.value.name.as_ref() == Some(&lower))
            .or_else(|| name.parse().ok().filter(|&number: &usize| number < known.len()))
    }
}

fn located<T>(line: &LogicalLine, statement: &Statement<'_>, value: T) -> Located<T> {
    Located {
        lines: line.lines,
        text: line.text.trim().to_owned(),
        keyword: statement.keyword.to_owned(),
        value,
    }
}

fn from(statement: &Statement<'_>) -> Result<Stage, SyntaxError> {
    const FLAGS: Known = Known { booleans: &[], strings: &["platform"], lists: &[] };
    let words = blank_separated(statement.rest);
    let (base, alias) = match words.as_slice() {
        [base] => (base, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => (base, Some((keyword, name))),
        _ => return Err(SyntaxError::From),
    };
    let name = alias.map(|(_, name)| name.to_lowercase());
    if let (Some(lower), Some((_, written))) = (&name, alias)
        && !is_stage_name(lower)
    {
        return Err(SyntaxError::StageName(written.clone()));
    }
    let mut flags = Flags::parse(&statement.flags, &FLAGS)?;
    Ok(Stage {
        base: base.clone(),
        name,
        platform: flags.string("platform"),
        alias: alias.map(|(keyword, name)| (keyword.clone(), name.clone())),
        instructions: Vec::new(),
    })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn instruction(
    statement: &Statement<'_>,
    heredocs: &[Heredoc],
    text: &str,
    escape: char,
) -> Result<Instruction, SyntaxError> {
    let keyword = statement.keyword.to_ascii_uppercase();
    Ok(match keyword.as_str() {
        "ADD" => Instruction::Add(add(statement, heredocs)?),
        "ARG" => Instruction::Arg(arg(statement, escape)?),
        "CMD" => Instruction::Cmd(command(statement)?),
        "COPY" => Instruction::Copy(copy(statement, heredocs)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(statement)?),
        "ENV" => Instruction::Env(pairs(without_flags(statement)?, "ENV", escape)?),
        "EXPOSE" => Instruction::Expose(expose(statement)?),
        "HEALTHCHECK" => Instruction::Healthcheck(Healthcheck::parse(statement)?),
        "LABEL" => Instruction::Label(pairs(without_flags(statement)?, "LABEL", escape)?),
        "MAINTAINER" => Instruction::Maintainer(one(statement, "MAINTAINER")?),
        "ONBUILD" => Instruction::Onbuild(onbuild(statement, heredocs, text, escape)?),
        "RUN" => Instruction::Run(run(statement, heredocs)?),
        "SHELL" => Instruction::Shell(shell(statement)?),
        "STOPSIGNAL" => Instruction::StopSignal(one(statement, "STOPSIGNAL")?),
        "USER" => Instruction::User(one(statement, "USER")?),
        "VOLUME" => Instruction::Volume(volume(statement)?),
        "WORKDIR" => Instruction::Workdir(one(statement, "WORKDIR")?),
        _ => {
            let near = near(statement.keyword, KEYWORDS);
            return Err(SyntaxError::Instruction { name: statement.keyword.to_owned(), near });
        }
    })
}

fn without_flags<'a>(statement: &Statement<'a>) -> Result<&'a str, SyntaxError> {
    Flags::parse(&statement.flags, &NO_FLAGS)?;
    Ok(statement.rest)
}

fn one(statement: &Statement<'_>, keyword: &'static str) -> Result<String, SyntaxError> {
    match without_flags(statement)? {
        "" => Err(SyntaxError::OneArgument(keyword)),
        rest => Ok(rest.to_owned()),
    }
}

fn arg(statement: &Statement<'_>, escape: char) -> Result<Vec<ArgDefinition>, SyntaxError> {
    let words = quoted_words(without_flags(statement)?, escape);
    if words.is_empty() {
        return Err(SyntaxError::NoArgument("ARG"));
    }
    let definition = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(SyntaxError::BlankName("ARG")),
        Some((name, default)) => {
            Ok(ArgDefinition { name: name.to_owned(), default: Some(default.to_owned()) })
        }
        None => Ok(ArgDefinition { name: word, default: None }),
    };
    words.into_iter().map(definition).collect()
}

fn command_line(rest: &str) -> Result<CommandLine, SyntaxError> {
    Ok(match json_strings(rest)? {
        Some(words) => CommandLine { words, shell: false },
        None if rest.is_empty() => CommandLine { words: Vec::new(), shell: true },
        None => CommandLine { words: vec![rest.to_owned()], shell: true },
    })
}

fn command(statement: &Statement<'_>) -> Result<CommandLine, SyntaxError> {
    command_line(without_flags(statement)?)
}

fn expose(statement: &Statement<'_>) -> Result<Vec<String>, SyntaxError> {
    let mut ports = blank_separated(without_flags(statement)?);
    if ports.is_empty() {
        return Err(SyntaxError::NoArgument("EXPOSE"));
    }
    ports.sort();
    Ok(ports)
}

fn volume(statement: &Statement<'_>) -> Result<Vec<String>, SyntaxError> {
    let paths = path_list(without_flags(statement)?)?;
    if paths.is_empty() {
        return Err(SyntaxError::NoArgument("VOLUME"));
    }
    let path = |path: String| match path.trim() {
        "" => Err(SyntaxError::Volume),
        path => Ok(path.to_owned()),
    };
    paths.into_iter().map(path).collect()
}

/// A JSON array, or words.
fn path_list(rest: &str) -> Result<Vec<String>, SyntaxError> {
    Ok(json_strings(rest)?.unwrap_or_else(|| blank_separated(rest)))
}

fn shell(statement: &Statement<'_>) -> Result<Vec<String>, SyntaxError> {
    match json_strings(without_flags(statement)?)? {
        Some(words) if !words.is_empty() => Ok(words),
        None if !statement.rest.is_empty() => Err(SyntaxError::ShellForm),
        _ => Err(SyntaxError::NoArgument("SHELL")),
    }
}

fn run(statement: &Statement<'_>, heredocs: &[Heredoc]) -> Result<Run, SyntaxError> {
    const FLAGS: Known = Known { booleans: &[], strings: &["network", "security"], lists: &["mount"] };
    let mut flags = Flags::parse(&statement.flags, &FLAGS)?;
    let command = command_line(statement.rest)?;
    if command.words.is_empty() {
        return Err(SyntaxError::Run);
    }
    let mounts = flags.list("mount");
    mounts.iter().try_for_each(|mount| Mount::check(mount))?;
    let networks = [("default", Network::Default), ("none", Network::None), ("host", Network::Host)];
    let securities = [("sandbox", Security::Sandbox), ("insecure", Security::Insecure)];
    Ok(Run {
        command,
        heredocs: heredocs.to_vec(),
        mounts,
        network: mode("network", flags.string("network"), &networks)?,
        security: mode("security", flags.string("security"), &securities)?,
    })
}

fn mode<T: std::marker::Copy + Default>(
    kind: &'static str,
    value: Option<String>,
    known: &[(&str, T)],
) -> Result<T, SyntaxError> {
    let Some(value) = value else { return Ok(T::default()) };
    match known.iter().find(|(name, _)| *name == value) {
        Some((_, mode)) => Ok(*mode),
        None => {
            let near = near(&value, known.iter().map(|(name, _)| *name));
            Err(SyntaxError::Mode { kind, value, near })
        }
    }
}

fn add(statement: &Statement<'_>, heredocs: &[Heredoc]) -> Result<Add, SyntaxError> {
    const FLAGS: Known = Known {
        booleans: &["link", "keep-git-dir", "unpack"],
        strings: &["chown", "chmod", "checksum"],
        lists: &["exclude"],
    };
    let paths = sources_and_destination(statement, "ADD")?;
    let mut flags = Flags::parse(&statement.flags, &FLAGS)?;
    Ok(Add {
        sources: sources(paths, &mut flags, heredocs, "ADD")?,
        keep_git_dir: flags.boolean("keep-git-dir"),
        checksum: flags.string("checksum"),
        unpack: flags.boolean("unpack"),
    })
}

fn copy(statement: &Statement<'_>, heredocs: &[Heredoc]) -> Result<Copy, SyntaxError> {
    const FLAGS: Known =
        Known { booleans: &["link", "parents"], strings: &["from", "chown", "chmod"], lists: &["exclude"] };
    let paths = sources_and_destination(statement, "COPY")?;
    let mut flags = Flags::parse(&statement.flags, &FLAGS)?;
    Ok(Copy {
        sources: sources(paths, &mut flags, heredocs, "COPY")?,
        from: flags.string("from"),
        parents: flags.boolean("parents").unwrap_or(false),
    })
}

fn sources_and_destination(
    statement: &Statement<'_>,
    keyword: &'static str,
) -> Result<(Vec<String>, String), SyntaxError> {
    let mut paths = path_list(statement.rest)?;
    match paths.pop() {
        Some(destination) if !paths.is_empty() => Ok((paths, destination)),
        _ => Err(SyntaxError::NoDestination(keyword)),
    }
}

fn sources(
    (written, destination): (Vec<String>, String),
    flags: &mut Flags,
    heredocs: &[Heredoc],
    keyword: &'static str,
) -> Result<Sources, SyntaxError> {
    let heredoc = |word: &str| Heredoc::parse(word).ok().flatten();
    if heredoc(&destination).is_some() {
        return Err(SyntaxError::HeredocDestination(keyword));
    }
    let (mut paths, mut inlines) = (Vec::new(), Vec::new());
    for word in written {
        match heredoc(&word).and_then(|found| heredocs.iter().find(|known| known.name == found.name)) {
            Some(Heredoc { name, content, expand, chomp, .. }) => inlines.push(Inline {
                name: name.clone(),
                content: if *chomp { without_leading_tabs(content) } else { content.clone() },
                expand: *expand,
            }),
            None => paths.push(word),
        }
    }
    Ok(Sources {
        paths,
        inlines,
        destination,
        chown: flags.string("chown"),
        chmod: flags.string("chmod"),
        link: flags.boolean("link").unwrap_or(false),
        exclude: flags.list("exclude"),
    })
}

fn check_trigger(keyword: &str) -> Result<(), SyntaxError> {
    match keyword.to_ascii_uppercase().as_str() {
        "ONBUILD" => Err(SyntaxError::OnbuildChain),
        keyword @ ("MAINTAINER" | "FROM") => Err(SyntaxError::Trigger(keyword.to_owned())),
        _ => Ok(()),
    }
}

/// The trigger's text: it is read again when an image is built on this one. What is wrong with it shows now.
fn onbuild(
    statement: &Statement<'_>,
    heredocs: &[Heredoc],
    text: &str,
    escape: char,
) -> Result<String, SyntaxError> {
    // Flags belong to the trigger.
    let text = text.trim()[statement.keyword.len()..].trim_start();
    if text.is_empty() {
        return Err(SyntaxError::NoArgument("ONBUILD"));
    }
    let trigger = Statement::cut(text, escape);
    check_trigger(trigger.keyword)?;
    instruction(&trigger, heredocs, text, escape)?;
    let mut expression = text.to_owned();
    for Heredoc { content, name, .. } in heredocs {
        expression.push_str(&format!("\n{content}{name}"));
    }
    Ok(expression)
}

#[cfg(test)]
mod tests;
