//! Why a build failed, in words for people, and where in the Dockerfile.

use std::sync::Arc;

use dory_dockerfile::{LineRange, ParseError, Warning};
use dory_store::StoreError;

use crate::context::ContextError;
use crate::executor::ExecuteError;
use crate::images::ImagesError;

/// A build failed; nothing got a name.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile cannot be had.
    #[error("failed to read dockerfile: {0}")]
    Dockerfile(String),
    /// The Dockerfile cannot be read. [`ParseError::excerpt`] shows where.
    #[error("{error}")]
    Parse {
        /// What is wrong.
        error: ParseError,
        /// The file's name.
        file: String,
        /// Its text.
        source_text: Arc<str>,
    },
    /// A line of the Dockerfile cannot be done.
    #[error("{cause}")]
    Step {
        /// The instruction as written.
        instruction: String,
        /// Where it is.
        lines: LineRange,
        /// The file's name.
        file: String,
        /// Its text.
        source_text: Arc<str>,
        /// Why.
        #[source]
        cause: Arc<StepError>,
    },
    /// The context cannot be had.
    #[error("{0}")]
    Context(Arc<ContextError>),
    /// The stage that was asked for does not exist.
    #[error("target stage \"{0}\" could not be found")]
    Target(String),
    /// Something was asked for that this builder cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The request contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// Something needs a grant that was not given.
    #[error("{what} is not allowed: grant it with `--allow {entitlement}`")]
    NotEntitled {
        /// What was to be done.
        what: String,
        /// The grant's name.
        entitlement: &'static str,
    },
    /// The store failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// The result could not be brought where it should go.
    #[error("failed to export to {output}: {message}")]
    Output {
        /// Which output.
        output: String,
        /// Why.
        message: String,
    },
    /// Somebody cancelled it.
    #[error("the build was cancelled")]
    Cancelled,
}

impl BuildError {
    /// The lines of the Dockerfile around what failed, numbered and marked, as `docker build` shows them.
    #[must_use]
    pub fn excerpt(&self) -> Option<String> {
        match self {
            Self::Parse { error, source_text, .. } => Some(error.excerpt(source_text)),
            Self::Step { lines, source_text, .. } => {
                let place = Warning { rule: "", description: "", message: String::new(), lines: *lines };
                Some(place.excerpt(source_text))
            }
            _ => None,
        }
    }

    /// The Dockerfile and the lines of it that failed.
    #[must_use]
    pub fn place(&self) -> Option<(&str, LineRange)> {
        match self {
            Self::Parse { error, file, .. } => Some((file, error.lines)),
            Self::Step { lines, file, .. } => Some((file, *lines)),
            _ => None,
        }
    }
}

impl From<StoreError> for BuildError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<ContextError> for BuildError {
    fn from(error: ContextError) -> Self {
        match error {
            ContextError::Cancelled => Self::Cancelled,
            error => Self::Context(Arc::new(error)),
        }
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A command ended badly.
    #[error("process \"{command}\" did not complete successfully: exit code: {exit_code}{}", if *.oom_killed { " (out of memory)" } else { "" })]
    Exit {
        /// The command, as a line.
        command: String,
        /// Its status.
        exit_code: i32,
        /// The kernel ended it because memory was short.
        oom_killed: bool,
        /// The last lines that it wrote.
        last_lines: Vec<String>,
    },
    /// A command could not be run.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A base image cannot be had.
    #[error(transparent)]
    Image(#[from] ImagesError),
    /// A context cannot be had.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A variable or quote cannot be expanded.
    #[error(transparent)]
    Expansion(#[from] dory_dockerfile::ExpansionError),
    /// The instruction is wrong, as is seen once variables have values.
    #[error(transparent)]
    Syntax(#[from] dory_dockerfile::SyntaxError),
    /// It does not change a configuration as it says.
    #[error(transparent)]
    Change(#[from] dory_store::ChangeError),
    /// A file to copy does not exist.
    #[error("failed to compute cache key: \"{path}\": not found{}", if *.ignored { " (kept out by the ignore file)".to_owned() } else { did_you_mean(.near) })]
    Missing {
        /// The path as written.
        path: String,
        /// Names in the same directory that are spelled nearly so.
        near: Vec<String>,
        /// It is there, and the ignore file keeps it out.
        ignored: bool,
        /// It is a pattern.
        pattern: bool,
    },
    /// Stages need one another in a circle.
    #[error("circular dependency detected on stage: {0}")]
    Cycle(String),
    /// A secret or agent is required, and nobody has it.
    #[error("{kind} {id}: not found")]
    NotGranted {
        /// `secret` or `ssh`.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// It needs a grant.
    #[error("{what} is not allowed: grant it with `--allow {entitlement}`")]
    NotEntitled {
        /// What was to be done.
        what: String,
        /// The grant's name.
        entitlement: &'static str,
    },
    /// Files cannot be copied.
    #[error("cannot copy `{path}`: {message}")]
    Copy {
        /// Which.
        path: String,
        /// Why.
        message: String,
    },
    /// Something cannot be downloaded, or is not what its checksum says.
    #[error("cannot fetch `{address}`: {message}")]
    Fetch {
        /// From where.
        address: String,
        /// Why not.
        message: String,
    },
    /// An instruction that this builder cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// An instruction says what cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another step that this one needs failed; its own error says why.
    #[error("{0}")]
    Input(Arc<StepError>),
    /// Somebody cancelled the build.
    #[error("the build was cancelled")]
    Cancelled,
}

fn did_you_mean(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" (did you mean {}?)", names.join(", ")) }
}
