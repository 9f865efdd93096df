//! The Dockerfile language: text in, typed stages and instructions out; expansion, ignore patterns, checks; no I/O.
//!
//! ```text
//! text ─▶ lines ─▶ statement ─▶ instruction ─▶ stages          (parse)
//!         joined,   keyword,     typed, flags
//!         heredocs  flags, rest  known
//! ```
//!
//! The language is what BuildKit's Dockerfile frontend takes (docs.docker.com/reference/dockerfile), and errors have its
//! words, because people search for them. Variables are expanded later, by whoever knows their values
//! ([`Lexer::expand`]): which are in scope depends on arguments, base images and the target.
//!
//! An existing parser crate was weighed (parse-dockerfile): it knows the grammar, but neither the quirks that decide what
//! a file means (joined lines, quotes kept until expansion, JSON that is none) nor the frontend's errors and warnings.

mod check;
mod csv;
mod error;
mod expand;
mod flags;
mod glob;
mod healthcheck;
mod heredoc;
mod ignore;
mod instruction;
mod lines;
mod mount;
mod parse;
mod statement;
mod words;

pub use check::{CheckOptions, Warning, check};
pub use csv::fields as csv_fields;
pub use error::{ExpansionError, ExpansionErrorKind, LineRange, ParseError, SyntaxError};
pub use expand::{EXPANSION_LENGTH_MAX, Expansion, Lexer, Variables};
pub use glob::{Glob, GlobError};
pub use healthcheck::Healthcheck;
pub use heredoc::{Heredoc, without_leading_tabs};
pub use ignore::{IgnoreError, IgnorePatterns, Verdict};
pub use instruction::{
    Add, ArgDefinition, CommandLine, Copy, Inline, Instruction, KeyValue, Located, Network, Run, Security,
    Sources, Stage,
};
pub use lines::{Directives, LINE_LENGTH_MAX};
pub use mount::{CacheSharing, Mount, MountType};
pub use parse::{Dockerfile, parse, parse_instruction, parse_trigger};
