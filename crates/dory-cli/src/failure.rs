//! How a command ends: exit codes, and what is printed on the way.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::flags::FlagError;

/// How a command ended without a failure of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// Everything was done.
    Success,
    /// What the container's process, or a comparable answer, ended with.
    Code(u8),
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Success => Self::SUCCESS,
            ExitStatus::Code(code) => Self::from(code),
        }
    }
}

/// Exit codes of the command itself; those of containers pass through.
pub(crate) mod code {
    /// A command was understood and failed.
    pub(crate) const FAILED: u8 = 1;
    /// The engine refused to run the container, or the arguments were wrong.
    pub(crate) const ENGINE: u8 = 125;
    /// The container's program cannot be executed.
    pub(crate) const CANNOT_EXECUTE: u8 = 126;
    /// The container's program does not exist.
    pub(crate) const NOT_FOUND: u8 = 127;
    /// Added to the number of the signal that ended something.
    pub(crate) const SIGNALLED: u8 = 128;
}

/// The engine's answer to a request was an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The engine's message.
    pub(crate) message: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Error response from daemon: {}", self.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// True if the object of the request does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == 404
    }
}

/// An end with a given text and code, printed as it is.
#[derive(Debug)]
pub(crate) struct Exit {
    /// What to print on standard error; nothing if empty.
    pub(crate) text: String,
    /// The process's exit code.
    pub(crate) code: u8,
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Exit {}

/// A step that failed and what the user could do about it; added as context to the cause.
#[derive(Debug)]
pub(crate) struct Hinted {
    /// What failed.
    pub(crate) message: String,
    /// The way out, one sentence without a full stop.
    pub(crate) hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Hinted {}

/// An error with a way out.
pub(crate) fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: hint.into() }.into()
}

/// Prints why `command` (as the user called it, `dory run`) failed, and gives the exit code.
pub(crate) fn report(command: &str, error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        // The reader has seen enough: `dory logs x | head -1` did what it should.
        return ExitCode::SUCCESS;
    }
    let (text, code) = describe(command, error);
    if !text.is_empty() {
        eprintln!("{}", text.trim_end_matches('\n'));
    }
    ExitCode::from(code)
}

fn describe(command: &str, error: &anyhow::Error) -> (String, u8) {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return (exit.text.clone(), exit.code);
    }
    if let Some(flag) = error.downcast_ref::<FlagError>() {
        return (format!("{flag}\nSee '{command} --help'."), code::ENGINE);
    }
    if let Some(api) = error.downcast_ref::<ApiError>() {
        return (api.to_string(), code::FAILED);
    }
    (describe_chain("error", error), code::FAILED)
}

/// `prefix`, the error with its causes, and the way out if there is one.
pub(crate) fn describe_chain(prefix: &str, error: &anyhow::Error) -> String {
    let mut text = format!("{prefix}: {error:#}");
    if let Some(hinted) = error.downcast_ref::<Hinted>() {
        text.push_str(&format!("\n\nhint: {}", hinted.hint));
    }
    text
}

/// True where the reader of our output has gone, which is no failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
        && error.downcast_ref::<crate::client::ConnectionLost>().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn says_cause_and_hint() {
        let error = Err::<(), _>(io::Error::other("gone"))
            .context(Hinted { message: "cannot do it".into(), hint: "try again".into() })
            .unwrap_err();
        let text = "error: cannot do it: gone\n\nhint: try again";
        assert_eq!(describe("dory ps", &error), (text.to_owned(), 1));
    }

    #[test]
    fn keeps_dockers_texts_and_codes() {
        let api = ApiError { status: 404, message: "No such container: x".into() };
        assert_eq!(
            describe("dory rm", &api.into()),
            ("Error response from daemon: No such container: x".to_owned(), 1)
        );
        let flag = FlagError::UnknownLong("x".into());
        assert_eq!(
            describe("dory ps", &flag.into()),
            ("unknown flag: --x\nSee 'dory ps --help'.".to_owned(), 125)
        );
    }
}
