//! Warnings: what is allowed and yet likely wrong; the rules and words of `docker build --check`
//! (docs.docker.com/reference/build-checks).
//!
//! Rules that need more than the file (`UndefinedVar`, which needs the base image's environment, `CopyIgnoredFile`,
//! which needs the context) are the builder's; it makes its [`Warning`]s here all the same.

use std::fmt;

use crate::error::{LineRange, excerpt};
use crate::instruction::{CommandLine, Instruction, Located, Stage};
use crate::parse::Dockerfile;

mod rules;

/// A warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule's name.
    pub rule: &'static str,
    /// What the rule is about.
    pub description: &'static str,
    /// What it found.
    pub message: String,
    /// Where.
    pub lines: LineRange,
}

impl Warning {
    /// Where the rule is explained.
    #[must_use]
    pub fn url(&self) -> String {
        let mut words = String::new();
        let mut before = 'A';
        for c in self.rule.chars() {
            if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
                words.push('-');
            }
            words.push(c.to_ascii_lowercase());
            before = c;
        }
        // An abbreviation is a word of its own.
        let words = words.replace("jsonargs", "json-args");
        format!("https://docs.docker.com/go/dockerfile/rule/{words}/")
    }

    /// The lines around it, numbered and marked; `source` is the file.
    #[must_use]
    pub fn excerpt(&self, source: &str) -> String {
        excerpt(source, self.lines, None)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} (line {})", self.rule, self.message, self.lines.first)
    }
}

/// The `check` directive or the build argument `BUILDKIT_DOCKERFILE_CHECK`: `skip=RULE,RULE;error=true`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Rules that are not asked.
    pub skip: Vec<String>,
    /// No rule is asked.
    pub skip_all: bool,
    /// A warning fails the build.
    pub error: bool,
}

impl CheckOptions {
    /// Reads the options.
    ///
    /// # Errors
    /// The option or value that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let (key, value) =
                option.split_once('=').ok_or_else(|| format!("invalid check option {option:?}"))?;
            match (key.trim(), value.trim()) {
                ("skip", "all") => options.skip_all = true,
                ("skip", rules) => options.skip.extend(rules.split(',').map(|rule| rule.trim().to_owned())),
                ("error", "true") => options.error = true,
                ("error", "false") => options.error = false,
                // Experimental rules do not exist here.
                ("experimental", _) => {}
                _ => return Err(format!("invalid check option {option:?}")),
            }
        }
        Ok(options)
    }

    /// Whether a rule is asked.
    #[must_use]
    pub fn asks(&self, rule: &str) -> bool {
        !self.skip_all && !self.skip.iter().any(|skipped| skipped.eq_ignore_ascii_case(rule))
    }
}

/// What is likely wrong with a file, in the order of its lines.
#[must_use]
pub fn check(file: &Dockerfile, options: &CheckOptions) -> Vec<Warning> {
    let mut found = rules::Found::default();
    file.empty_continuations.iter().for_each(|&lines| found.empty_continuation(lines));
    keyword_case(file, &mut found);
    let mut names: Vec<&str> = Vec::new();
    for stage in &file.stages {
        stage_name(stage, &names, &mut found);
        names.extend(stage.value.name.as_deref());
        platform(stage, &mut found);
        repeated(&stage.value, &mut found);
        stage.value.instructions.iter().for_each(|line| instruction(line, &mut found));
        relative_workdir(&stage.value, &mut found);
    }
    for line in &file.global_args {
        line.value.iter().for_each(|arg| found.secret("ARG", &arg.name, line.lines));
    }
    let mut warnings = found.warnings;
    warnings.retain(|warning| options.asks(warning.rule));
    warnings.sort_by_key(|warning| warning.lines.first);
    warnings
}

/// All keywords in capitals, or all in small letters: what most of them are.
fn keyword_case(file: &Dockerfile, found: &mut rules::Found) {
    let args = file.global_args.iter().map(|line| (line.keyword.as_str(), line.lines));
    let stages = file.stages.iter().flat_map(|stage| {
        let inside = stage.value.instructions.iter().map(|line| (line.keyword.as_str(), line.lines));
        std::iter::once((stage.keyword.as_str(), stage.lines)).chain(inside)
    });
    let all: Vec<_> = args.chain(stages).collect();
    let is_lower = |word: &str| word == word.to_lowercase();
    let is_upper = |word: &str| word == word.to_uppercase();
    let lower = all.iter().filter(|(word, _)| is_lower(word)).count();
    let upper = all.iter().filter(|(word, _)| is_upper(word)).count();
    let (right, case): (&dyn Fn(&str) -> bool, _) =
        if lower > upper { (&is_lower, "lowercase") } else { (&is_upper, "uppercase") };
    for (word, lines) in all.into_iter().filter(|(word, _)| !right(word)) {
        found.keyword_case(word, case, lines);
    }
}

fn stage_name(stage: &Located<Stage>, before: &[&str], found: &mut rules::Found) {
    let Some((keyword, written)) = &stage.value.alias else { return };
    let name = written.to_lowercase();
    if *written != name {
        found.stage_case(written, stage.lines);
    }
    let from = stage.keyword.as_str();
    let fits = if from == from.to_lowercase() {
        *keyword == keyword.to_lowercase()
    } else {
        from != from.to_uppercase() || *keyword == keyword.to_uppercase()
    };
    if !fits {
        found.alias_case(keyword, from, stage.lines);
    }
    if before.contains(&name.as_str()) {
        found.duplicate_stage(written, stage.lines);
    }
    if matches!(name.as_str(), "scratch" | "context") {
        found.reserved_stage(&name, stage.lines);
    }
}

fn platform(stage: &Located<Stage>, found: &mut rules::Found) {
    match stage.value.platform.as_deref() {
        Some(variable @ ("$TARGETPLATFORM" | "${TARGETPLATFORM}")) => {
            found.redundant_platform(variable, stage.lines)
        }
        Some(constant) if !constant.contains('$') => found.constant_platform(constant, stage.lines),
        _ => {}
    }
}

/// Of these only the last in a stage counts.
fn repeated(stage: &Stage, found: &mut rules::Found) {
    for name in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
        let mut lines: Vec<_> = stage
            .instructions
            .iter()
            .filter(|line| line.value.name() == name)
            .map(|line| line.lines)
            .collect();
        lines.pop();
        lines.into_iter().for_each(|lines| found.repeated(name, lines));
    }
}

fn instruction(line: &Located<Instruction>, found: &mut rules::Found) {
    match &line.value {
        Instruction::Maintainer(_) => found.maintainer(line.lines),
        Instruction::Cmd(command) => shell_form(command, "CMD", line.lines, found),
        Instruction::Entrypoint(command) => shell_form(command, "ENTRYPOINT", line.lines, found),
        Instruction::Env(pairs) => {
            pairs.iter().for_each(|pair| found.secret("ENV", &pair.key, line.lines));
            if pairs.iter().any(|pair| pair.legacy) {
                found.legacy("ENV", line.lines);
            }
        }
        Instruction::Label(pairs) if pairs.iter().any(|pair| pair.legacy) => {
            found.legacy("LABEL", line.lines)
        }
        Instruction::Arg(args) => args.iter().for_each(|arg| found.secret("ARG", &arg.name, line.lines)),
        Instruction::Expose(ports) => ports.iter().for_each(|port| found.exposed(port, line.lines)),
        _ => {}
    }
}

fn shell_form(command: &CommandLine, name: &'static str, lines: LineRange, found: &mut rules::Found) {
    if command.shell && !command.words.is_empty() {
        found.shell_form(name, lines);
    }
}

/// A relative path means something only where an absolute one came before it.
fn relative_workdir(stage: &Stage, found: &mut rules::Found) {
    for line in &stage.instructions {
        match &line.value {
            Instruction::Workdir(path) if path.starts_with(['/', '$']) => return,
            Instruction::Workdir(path) => found.relative_workdir(path, line.lines),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn rules(source: &str) -> Vec<&'static str> {
        let file = parse(source.as_bytes()).expect(source);
        check(&file, &CheckOptions::default()).into_iter().map(|warning| warning.rule).collect()
    }

    #[test]
    fn finds() {
        for (source, expected) in [
            ("FROM a\nRUN x\nCMD [\"x\"]", &[][..]),
            ("FROM a AS Build\nRUN x", &["StageNameCasing"]),
            ("FROM a as b\nRUN x", &["FromAsCasing"]),
            ("from a as b\nrun x", &[]),
            ("FROM a\nrun x\nRUN y", &["ConsistentInstructionCasing"]),
            ("FROM a AS b\nFROM c AS b\n", &["DuplicateStageName"]),
            ("FROM a AS scratch\n", &["ReservedStageName"]),
            ("FROM a\nCMD x", &["JSONArgsRecommended"]),
            ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]", &["MultipleInstructionsDisallowed"]),
            ("FROM a\nMAINTAINER x", &["MaintainerDeprecated"]),
            ("FROM a\nWORKDIR b\nWORKDIR /c\nWORKDIR d", &["WorkdirRelativePath"]),
            ("FROM a\nENV x y", &["LegacyKeyValueFormat"]),
            (
                "FROM a\nENV API_TOKEN=x\nARG PASSWORD\nARG tokenizer",
                &["SecretsUsedInArgOrEnv", "SecretsUsedInArgOrEnv"],
            ),
            ("FROM --platform=$TARGETPLATFORM a\n", &["RedundantTargetPlatform"]),
            ("FROM --platform=linux/amd64 a\n", &["FromPlatformFlagConstDisallowed"]),
            ("FROM a\nEXPOSE 80/TCP 127.0.0.1:80:80", &["ExposeInvalidFormat", "ExposeProtoCasing"]),
            ("FROM a\nRUN x \\\n\n  y", &["NoEmptyContinuation"]),
        ] {
            assert_eq!(rules(source), expected, "{source}");
        }
    }

    #[test]
    fn can_be_told_not_to() {
        let file = parse(b"FROM a\nMAINTAINER x\nCMD x").expect("well formed");
        let count = |text| check(&file, &CheckOptions::parse(text).expect(text)).len();
        assert_eq!((count(""), count("skip=MaintainerDeprecated"), count("skip=all;error=true")), (2, 1, 0));
        assert!(CheckOptions::parse("skip=A,B;error=true").expect("well formed").error);
        assert_eq!(CheckOptions::parse("foo=1"), Err("invalid check option \"foo=1\"".to_owned()));
    }

    #[test]
    fn says_where_to_read_on() {
        let warning =
            |rule| Warning { rule, description: "", message: String::new(), lines: LineRange::default() };
        for (rule, word) in
            [("StageNameCasing", "stage-name-casing"), ("JSONArgsRecommended", "json-args-recommended")]
        {
            assert_eq!(warning(rule).url(), format!("https://docs.docker.com/go/dockerfile/rule/{word}/"));
        }
    }
}
