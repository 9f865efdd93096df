//! Warnings of one build: those of the file, and those that need what a stage begins from.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use dory_dockerfile::{
    ArgDefinition, CheckOptions, Instruction, Lexer, LineRange, Located, Variables, Warning,
};
use dory_types::Digest;

use super::Teller;
use crate::error::BuildError;
use crate::graph::Plan;

const UNDEFINED: &str = "UndefinedVar";
const UNDEFINED_DESCRIPTION: &str = "Variables should be defined before their use";

/// What was warned of.
#[derive(Debug)]
pub(crate) struct Checks {
    options: CheckOptions,
    /// The vertex that brought the Dockerfile, which warnings are of.
    vertex: Digest,
    /// Stages are solved for each platform; a warning is told once.
    told: Mutex<BTreeSet<(u32, &'static str, String)>>,
}

impl Checks {
    pub(crate) fn new(options: CheckOptions, vertex: Digest) -> Self {
        Self { options, vertex, told: Mutex::default() }
    }

    /// Tells a warning.
    pub(crate) fn warn(&self, warning: Warning, plan: &Plan, teller: &Teller) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert((warning.lines.first, warning.rule, warning.message.clone())) {
            drop(told);
            teller.warn(self.vertex, warning, &plan.name, &plan.source);
        }
    }

    /// Fails where there was a warning and the file wants none.
    pub(crate) fn verdict(&self) -> Result<(), BuildError> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.options.error || told.is_empty() {
            return Ok(());
        }
        let rules: BTreeSet<&str> = told.iter().map(|(_, rule, _)| *rule).collect();
        let rules: Vec<&str> = rules.into_iter().collect();
        Err(BuildError::Invalid(format!("lint violation found for rules: {}", rules.join(", "))))
    }

    /// Warns of variables that nothing has defined where an instruction uses them.
    pub(super) fn undefined(
        &self,
        line: &Located<Instruction>,
        lexer: Lexer,
        variables: &dyn Variables,
        plan: &Plan,
        teller: &Teller,
    ) {
        if !self.options.asks(UNDEFINED) {
            return;
        }
        for name in undefined(&line.value, lexer, variables) {
            let message = format!("Usage of undefined variable '${name}'");
            let LineRange { first, last } = line.lines;
            let lines = LineRange { first, last };
            let warning = Warning { rule: UNDEFINED, description: UNDEFINED_DESCRIPTION, message, lines };
            self.warn(warning, plan, teller);
        }
    }
}

/// The variables of an instruction that have no value.
fn undefined(instruction: &Instruction, lexer: Lexer, variables: &dyn Variables) -> BTreeSet<String> {
    let expanded = words(instruction).into_iter().filter_map(|word| lexer.expand(word, variables).ok());
    expanded.flat_map(|expansion| expansion.unmatched).collect()
}

/// The words of an instruction that have variables.
fn words(instruction: &Instruction) -> Vec<&str> {
    match instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            pairs.iter().flat_map(|pair| [pair.key.as_str(), pair.value.as_str()]).collect()
        }
        Instruction::Arg(definitions) => {
            definitions.iter().filter_map(|ArgDefinition { default, .. }| default.as_deref()).collect()
        }
        Instruction::Workdir(word) | Instruction::User(word) | Instruction::StopSignal(word) => vec![word],
        Instruction::Expose(words) | Instruction::Volume(words) => words.iter().map(String::as_str).collect(),
        Instruction::Copy(copy) => files(&copy.sources),
        Instruction::Add(add) => files(&add.sources),
        _ => Vec::new(),
    }
}

fn files(sources: &dory_dockerfile::Sources) -> Vec<&str> {
    let words = sources.paths.iter().chain([&sources.destination]);
    words.chain([&sources.chown, &sources.chmod].into_iter().flatten()).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_nothing_defines() {
        let known = std::collections::BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in [
            ("ENV X=$A Y=$B", &["B"][..]),
            ("COPY $A ${C} /$D/", &["C", "D"]),
            ("RUN echo $E", &[]),
            ("WORKDIR /$A", &[]),
            ("ARG X=$F", &["F"]),
        ] {
            let line = dory_dockerfile::parse_trigger(text).unwrap();
            let found = undefined(&line.value, Lexer::new('\\'), &known);
            assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
