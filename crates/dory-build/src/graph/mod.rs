//! Which stages a build needs, and which of them need which.

mod scope;

use std::collections::BTreeSet;
use std::sync::Arc;

use dory_dockerfile::{Dockerfile, Instruction, Lexer, LineRange, Mount};

use crate::error::{BuildError, StepError};
use crate::request::Request;

pub(crate) use scope::{PREDEFINED_ARGS, Scope, platform_args};

/// What a stage begins from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing.
    Scratch,
    /// Another stage.
    Stage(usize),
    /// An image, or a named context, by name.
    Name(String),
}

/// A Dockerfile, read, and what of it is built.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The file's name.
    pub(crate) name: String,
    /// Its text.
    pub(crate) source: Arc<str>,
    pub(crate) file: Dockerfile,
    /// Names in lower case that mean a named context and no stage, whatever the file says.
    overridden: BTreeSet<String>,
    /// What each stage begins from.
    pub(crate) bases: Vec<Base>,
    /// The platform that each stage says, expanded.
    pub(crate) platforms: Vec<Option<String>>,
    /// The global arguments.
    pub(crate) globals: Scope,
    pub(crate) target: usize,
    /// The stages that the target needs, itself included, in the file's order.
    pub(crate) needed: BTreeSet<usize>,
}

impl Plan {
    /// Reads `content` and finds out what of it has to be built.
    pub(crate) fn new(
        name: &str,
        content: &[u8],
        request: &Request,
        globals: Scope,
    ) -> Result<Self, BuildError> {
        let source: Arc<str> = String::from_utf8_lossy(content).into();
        let file = dory_dockerfile::parse(content).map_err(|error| BuildError::Parse {
            error,
            file: name.to_owned(),
            source_text: Arc::clone(&source),
        })?;
        let mut plan = Self {
            name: name.to_owned(),
            source,
            file,
            overridden: request.named_contexts.keys().map(|name| name.to_lowercase()).collect(),
            bases: Vec::new(),
            platforms: Vec::new(),
            globals,
            target: 0,
            needed: BTreeSet::new(),
        };
        plan.expand_globals(request)?;
        plan.expand_stages()?;
        plan.target = match request.target.as_deref().filter(|target| !target.is_empty()) {
            None => plan.file.stages.len() - 1,
            Some(target) => {
                plan.file.stage(target, None).ok_or_else(|| BuildError::Target(target.to_owned()))?
            }
        };
        plan.need(plan.target, &mut Vec::new())?;
        Ok(plan)
    }

    /// The stage that `name` means, among those before `before` (`None`: all).
    pub(crate) fn stage(&self, name: &str, before: Option<usize>) -> Option<usize> {
        self.file.stage(name, before).filter(|_| !self.overridden.contains(&name.to_lowercase()))
    }

    /// A step's failure with its place.
    pub(crate) fn failed(&self, instruction: &str, lines: LineRange, cause: StepError) -> BuildError {
        if matches!(cause, StepError::Cancelled) {
            return BuildError::Cancelled;
        }
        BuildError::Step {
            instruction: instruction.to_owned(),
            lines,
            file: self.name.clone(),
            source_text: Arc::clone(&self.source),
            cause: Arc::new(cause),
        }
    }

    pub(crate) fn lexer(&self) -> Lexer {
        Lexer::new(self.file.directives.escape_token())
    }

    fn expand_globals(&mut self, request: &Request) -> Result<(), BuildError> {
        for line in self.file.global_args.clone() {
            for arg in &line.value {
                let expanded = self
                    .globals
                    .declare(arg, self.lexer(), &request.build_args, None)
                    .map_err(|cause| self.failed(&line.text, line.lines, cause))?;
                let _ = expanded;
            }
        }
        Ok(())
    }

    fn expand_stages(&mut self) -> Result<(), BuildError> {
        for (index, stage) in self.file.stages.clone().iter().enumerate() {
            let expand = |text: &str| {
                self.lexer()
                    .expand(text, &self.globals)
                    .map(|expansion| expansion.text)
                    .map_err(|error| self.failed(&stage.text, stage.lines, error.into()))
            };
            let base = expand(&stage.value.base)?;
            if base.is_empty() {
                let message = format!("base name ({}) should not be blank", stage.value.base);
                return Err(self.failed(&stage.text, stage.lines, StepError::Invalid(message)));
            }
            let platform = stage.value.platform.as_deref().map(expand).transpose()?;
            let base = match self.stage(&base, Some(index)).filter(|_| base.parse::<usize>().is_err()) {
                Some(stage) => Base::Stage(stage),
                None if base == "scratch" => Base::Scratch,
                None => Base::Name(base),
            };
            self.bases.push(base);
            self.platforms.push(platform.filter(|platform| !platform.is_empty()));
        }
        Ok(())
    }

    /// The stages that `index` needs directly.
    pub(crate) fn inputs(&self, index: usize) -> BTreeSet<usize> {
        let mut inputs = BTreeSet::new();
        if let Base::Stage(base) = self.bases[index] {
            inputs.insert(base);
        }
        for line in &self.file.stages[index].value.instructions {
            inputs.extend(self.sources_of(&line.value));
        }
        inputs
    }

    /// The stages that an instruction takes files from.
    fn sources_of(&self, instruction: &Instruction) -> Vec<usize> {
        let stage = |name: &String| self.stage(name, None);
        match instruction {
            Instruction::Copy(copy) => copy.from.iter().filter_map(stage).collect(),
            Instruction::Run(run) => {
                // A mount that cannot be read yet is its step's error.
                let read = |text: &String| Mount::parse(text, |value| Ok(value.to_owned())).ok()?.from;
                run.mounts.iter().filter_map(read).filter_map(|name| stage(&name)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn need(&mut self, index: usize, path: &mut Vec<usize>) -> Result<(), BuildError> {
        if path.contains(&index) {
            let stage = &self.file.stages[index];
            let name = stage.value.name.clone().unwrap_or_else(|| index.to_string());
            return Err(self.failed(&stage.text, stage.lines, StepError::Cycle(name)));
        }
        if !self.needed.insert(index) {
            return Ok(());
        }
        path.push(index);
        for input in self.inputs(index) {
            // One that was seen before, and is not on the path, leads nowhere new.
            if path.contains(&input) || !self.needed.contains(&input) {
                self.need(input, path)?;
            }
        }
        path.pop();
        Ok(())
    }

    /// Whether the target is a stage, or goes on from it.
    pub(crate) fn is_below_target(&self, index: usize) -> bool {
        let mut here = self.target;
        loop {
            match self.bases[here] {
                _ if here == index => return true,
                Base::Stage(below) => here = below,
                _ => return false,
            }
        }
    }

    /// What progress calls a stage.
    pub(crate) fn stage_name(&self, index: usize) -> String {
        let name = self.file.stages[index].value.name.clone();
        name.unwrap_or_else(|| format!("stage-{index}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(source: &str, target: Option<&str>) -> Result<Plan, BuildError> {
        let request = Request {
            target: target.map(str::to_owned),
            build_args: [("V".to_owned(), Some("2".to_owned()))].into(),
            ..Request::default()
        };
        Plan::new("Dockerfile", source.as_bytes(), &request, Scope::default())
    }

    #[test]
    fn finds_what_is_needed() {
        let source = "ARG V=1\nFROM a:$V AS one\nFROM b AS two\nFROM one AS three\nCOPY --from=two /x /\nFROM c\nRUN --mount=from=one,target=/m true\n";
        let cases: [(Option<&str>, &[usize]); 4] =
            [(None, &[0, 3]), (Some("three"), &[0, 1, 2]), (Some("two"), &[1]), (Some("0"), &[0])];
        for (target, expected) in cases {
            let plan = plan(source, target).unwrap();
            assert_eq!(plan.needed.iter().copied().collect::<Vec<_>>(), expected, "{target:?}");
            assert_eq!(plan.bases[0], Base::Name("a:2".to_owned()));
            assert_eq!(plan.bases[2], Base::Stage(0));
        }
        assert!(matches!(plan(source, Some("four")), Err(BuildError::Target(_))));
    }

    #[test]
    fn named_contexts_take_the_place_of_stages() {
        let named = [("one".to_owned(), crate::request::NamedContext::Image("x".to_owned()))];
        let request = Request { named_contexts: named.into(), ..Request::default() };
        let source = b"FROM a AS One\nFROM one AS two\nCOPY --from=ONE /x /\n";
        let plan = Plan::new("Dockerfile", source, &request, Scope::default()).unwrap();
        assert_eq!(plan.bases[1], Base::Name("one".to_owned()));
        assert_eq!(plan.needed.iter().copied().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn finds_circles() {
        let source = "FROM a AS one\nCOPY --from=two /x /\nFROM b AS two\nCOPY --from=one /y /\n";
        let error = plan(source, None).unwrap_err();
        assert_eq!(error.to_string(), "circular dependency detected on stage: two");
        assert!(error.excerpt().unwrap().contains(">>>"));
    }
}
