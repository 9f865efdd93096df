//! Files of git repositories, over git's smart HTTP protocol, version 2, without any program and without a repository.
//!
//! ```text
//!  address ─▶ ls-refs ─▶ commit ─▶ fetch (one commit deep) ─▶ pack ─▶ files in a directory
//! ```
//!
//! Everything that a server sends is foreign: lengths are bounded, objects have the ids of their content, and names of
//! files are single components. A library that does all of git would weigh more than the builder does.
//!
//! Formats: git's `gitprotocol-v2`, `gitprotocol-http`, `gitformat-pack` and `gitmodules` manuals.

mod address;
mod checkout;
mod object;
mod pack;
mod protocol;

use std::io;

pub(crate) use address::GitAddress;
pub(crate) use checkout::Checkout;
pub(crate) use object::ObjectId;
pub(crate) use protocol::GitServer;

use crate::web::WebError;

/// Files of a repository cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    #[error("git over `{0}` is not supported: use http or https")]
    Scheme(String),
    #[error("cannot ask the git server")]
    Web(#[from] WebError),
    #[error("the git server answers with status {status}{}", if matches!(.status, 401 | 403 | 404) { " (a private repository needs the secret GIT_AUTH_TOKEN)" } else { "" })]
    Status { status: u16 },
    #[error("the git server does not speak version 2 of git's protocol")]
    Version,
    #[error("the repository's objects are named by `{0}`, which is not supported")]
    ObjectFormat(String),
    #[error("malformed answer of the git server: {0}")]
    Protocol(&'static str),
    #[error("git server: {0}")]
    Remote(String),
    #[error("cannot receive from the git server")]
    Receive(#[source] io::Error),
    #[error("repository does not contain ref {0}")]
    Reference(String),
    #[error("the commit is {found}, not {expected}")]
    Checksum { expected: String, found: String },
    #[error("malformed pack: {0}")]
    Pack(&'static str),
    #[error("the pack has no object {0}")]
    Missing(ObjectId),
    #[error("malformed object {id}: {reason}")]
    Object { id: ObjectId, reason: &'static str },
    #[error("the repository has no directory `{0}`")]
    Directory(String),
    #[error("the submodule `{0}` has no address in .gitmodules")]
    Submodule(String),
    #[error("submodules lead to submodules more than {0} deep")]
    TooDeep(usize),
    #[error("cannot write `{path}`")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the build was cancelled")]
    Cancelled,
}
