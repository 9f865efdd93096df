//! Build arguments: what is set where, and which of them are never part of a key.

use std::collections::BTreeMap;

use dory_dockerfile::{ArgDefinition, Lexer, Variables};
use dory_registry::Platform;

use crate::error::StepError;

/// Arguments that every command gets without declaring them, and that are neither in keys nor in the history
/// (docs.docker.com/reference/dockerfile, "Predefined ARGs").
pub(crate) const PREDEFINED_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The arguments that have a value, and those that are declared without one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    values: BTreeMap<String, String>,
    /// In the order in which they were declared.
    declared: Vec<String>,
}

impl Variables for Scope {
    fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

impl Scope {
    /// One with values from the start.
    pub(crate) fn with(values: BTreeMap<String, String>) -> Self {
        Self { values, declared: Vec::new() }
    }

    /// Takes an `ARG` in: what the request says, else its default, else what `globals` has. The value.
    pub(crate) fn declare(
        &mut self,
        arg: &ArgDefinition,
        lexer: Lexer,
        given: &BTreeMap<String, Option<String>>,
        around: Option<(&Scope, &dyn Variables)>,
    ) -> Result<Option<String>, StepError> {
        let default = match &arg.default {
            None => None,
            Some(text) => {
                let variables: &dyn Variables = around.map_or(self, |(_, variables)| variables);
                Some(lexer.expand(text, variables)?.text)
            }
        };
        let global = || around.and_then(|(globals, _)| globals.values.get(&arg.name).cloned());
        let value = match given.get(&arg.name) {
            Some(Some(value)) => Some(value.clone()),
            _ => default.or_else(global).or_else(|| self.values.get(&arg.name).cloned()),
        };
        match &value {
            Some(value) => {
                self.values.insert(arg.name.clone(), value.clone());
            }
            None => {
                self.values.remove(&arg.name);
            }
        }
        self.declared.retain(|name| *name != arg.name);
        self.declared.push(arg.name.clone());
        Ok(value)
    }

    /// The declared arguments that have a value, in the order of their declaration.
    pub(crate) fn declared(&self) -> impl Iterator<Item = (&str, &str)> {
        self.declared.iter().filter_map(|name| Some((name.as_str(), self.values.get(name)?.as_str())))
    }
}

/// The arguments about platforms (docs.docker.com/reference/dockerfile, "Automatic platform ARGs").
pub(crate) fn platform_args(target: &Platform, stage: &str) -> BTreeMap<String, String> {
    let build = Platform::current();
    let mut args = BTreeMap::new();
    for (prefix, platform) in [("BUILD", &build), ("TARGET", target)] {
        args.insert(format!("{prefix}PLATFORM"), platform.to_string());
        args.insert(format!("{prefix}OS"), platform.os.clone());
        args.insert(format!("{prefix}OSVERSION"), platform.os_version.clone());
        args.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        let variant = if platform.architecture == "arm64" { "" } else { platform.variant.as_str() };
        args.insert(format!("{prefix}VARIANT"), variant.to_owned());
    }
    args.insert("TARGETSTAGE".to_owned(), stage.to_owned());
    args
}
