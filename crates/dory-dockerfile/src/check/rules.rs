//! The rules' names and words.

use super::Warning;
use crate::error::LineRange;

/// Words that name something secret, in names of variables.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words that say that it is not the secret itself.
const PUBLIC: [&str; 4] = ["public", "file", "version", "path"];

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) warnings: Vec<Warning>,
}

impl Found {
    fn add(&mut self, rule: &'static str, description: &'static str, message: String, lines: LineRange) {
        self.warnings.push(Warning { rule, description, message, lines });
    }

    pub(super) fn empty_continuation(&mut self, lines: LineRange) {
        let description = "Empty continuation lines will become errors in a future release";
        self.add("NoEmptyContinuation", description, "Empty continuation line".to_owned(), lines);
    }

    pub(super) fn keyword_case(&mut self, word: &str, case: &str, lines: LineRange) {
        let description =
            "All commands within the Dockerfile should use the same casing (either upper or lower)";
        let message = format!("Command '{word}' should match the case of the command majority ({case})");
        self.add("ConsistentInstructionCasing", description, message, lines);
    }

    pub(super) fn stage_case(&mut self, name: &str, lines: LineRange) {
        let message = format!("Stage name '{name}' should be lowercase");
        self.add("StageNameCasing", "Stage names should be lowercase", message, lines);
    }

    pub(super) fn alias_case(&mut self, keyword: &str, from: &str, lines: LineRange) {
        let description = "The 'as' keyword should match the case of the 'from' keyword";
        let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
        self.add("FromAsCasing", description, message, lines);
    }

    pub(super) fn duplicate_stage(&mut self, name: &str, lines: LineRange) {
        let message = format!("Duplicate stage name {name:?}, stage names should be unique");
        self.add("DuplicateStageName", "Stage names should be unique", message, lines);
    }

    pub(super) fn reserved_stage(&mut self, name: &str, lines: LineRange) {
        let message = format!("Stage name should not use the same name as reserved stage {name:?}");
        self.add("ReservedStageName", "Reserved words should not be used as stage names", message, lines);
    }

    pub(super) fn redundant_platform(&mut self, variable: &str, lines: LineRange) {
        let description = "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the \
                           default behavior";
        let message = format!(
            "Setting platform to predefined {variable} in FROM is redundant as this is the default behavior"
        );
        self.add("RedundantTargetPlatform", description, message, lines);
    }

    pub(super) fn constant_platform(&mut self, platform: &str, lines: LineRange) {
        let description = "FROM --platform flag should not use a constant value";
        let message = format!("FROM --platform flag should not use constant value {platform:?}");
        self.add("FromPlatformFlagConstDisallowed", description, message, lines);
    }

    pub(super) fn repeated(&mut self, name: &str, lines: LineRange) {
        let description = "Multiple instructions of the same type should not be used in the same stage";
        let message = format!(
            "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        );
        self.add("MultipleInstructionsDisallowed", description, message, lines);
    }

    pub(super) fn maintainer(&mut self, lines: LineRange) {
        let description =
            "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
        let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
        self.add("MaintainerDeprecated", description, message, lines);
    }

    pub(super) fn shell_form(&mut self, name: &str, lines: LineRange) {
        let description = "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to \
                           OS signals";
        let message = format!(
            "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
        );
        self.add("JSONArgsRecommended", description, message, lines);
    }

    pub(super) fn legacy(&mut self, name: &str, lines: LineRange) {
        let description = "Legacy key/value format with whitespace separator should not be used";
        let message =
            format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        self.add("LegacyKeyValueFormat", description, message, lines);
    }

    pub(super) fn relative_workdir(&mut self, path: &str, lines: LineRange) {
        let description = "Relative workdir without an absolute workdir declared within the build can have \
                           unexpected results if the base image changes";
        let message =
            format!("Relative workdir {path:?} can have unexpected results if the base image changes");
        self.add("WorkdirRelativePath", description, message, lines);
    }

    /// Warns where a variable's name says that it is secret.
    pub(super) fn secret(&mut self, instruction: &str, name: &str, lines: LineRange) {
        let lower = name.to_lowercase();
        let words = || lower.split(['_', '-']);
        let is_secret = words().any(|word| SECRET.contains(&word));
        if is_secret && !words().any(|word| PUBLIC.contains(&word)) {
            let description = "Sensitive data should not be used in the ARG or ENV commands";
            let message =
                format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
            self.add("SecretsUsedInArgOrEnv", description, message, lines);
        }
    }

    /// Warns of addresses and capitals in `EXPOSE`.
    pub(super) fn exposed(&mut self, port: &str, lines: LineRange) {
        if port.contains(':') {
            let description = "IP address and host-port mapping should not be used in EXPOSE instruction. This will \
                               become an error in a future release";
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            );
            self.add("ExposeInvalidFormat", description, message, lines);
        }
        if let Some((_, protocol)) = port.split_once('/')
            && protocol != protocol.to_lowercase()
        {
            let description = "Protocol in EXPOSE instruction should be lowercase";
            let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.add("ExposeProtoCasing", description, message, lines);
        }
    }
}
