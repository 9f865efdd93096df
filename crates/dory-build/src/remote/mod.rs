//! What comes from addresses: files of `ADD`, contexts, repositories.

mod context;
mod file;

use std::sync::Arc;

use base64::Engine as _;

pub use context::RemoteContext;
pub(crate) use file::{Fetched, FileAddress, Validators};

use crate::grant::Secrets;

/// Names of secrets that open repositories: a token, or a whole header (docs.docker.com, "Git authentication for remote
/// contexts").
pub(crate) const TOKEN_SECRET: &str = "GIT_AUTH_TOKEN";
pub(crate) const HEADER_SECRET: &str = "GIT_AUTH_HEADER";

/// The `Authorization` that repositories at `host` want, where a secret has it.
pub(crate) fn authorization(secrets: Option<&Arc<dyn Secrets>>, host: &str) -> Option<String> {
    let secrets = secrets?;
    let find = |name: &str| {
        let found = [format!("{name}.{host}"), name.to_owned()];
        let found = found.iter().find_map(|id| secrets.secret(id).ok().flatten());
        found.map(|value| String::from_utf8_lossy(&value).trim().to_owned())
    };
    if let Some(token) = find(TOKEN_SECRET) {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
        return Some(format!("basic {pair}"));
    }
    find(HEADER_SECRET)
}

/// Whether a word is an address that is fetched, and no path.
pub(crate) fn is_address(word: &str) -> bool {
    ["http://", "https://", "git@", "git://", "ssh://"].iter().any(|scheme| word.starts_with(scheme))
}
