//! Credential helpers: programs `docker-credential-NAME` that keep passwords elsewhere.
//!
//! Protocol: github.com/docker/docker-credential-helpers, README "Development": the verb as argument, the server's
//! address or a JSON object on standard input, a JSON object or a sentence on standard output.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Credentials, Secret};

/// What programs' names begin with.
const PREFIX: &str = "docker-credential-";
/// The longest answer that is read, in bytes.
const ANSWER_LENGTH_MAX: u64 = 1 << 20;
/// What a helper says that has nothing for a server.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user's name that stands for an identity token.
const TOKEN_USER: &str = "<token>";

/// A helper did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The name in `config.json` is no program's.
    #[error("invalid credential helper `{0}`")]
    Name(String),
    /// It cannot be run.
    #[error("cannot run `{program}`")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It refused.
    #[error("`{program} {verb}` failed: {message}")]
    Failed {
        /// The program.
        program: String,
        /// What it was asked.
        verb: &'static str,
        /// What it said.
        message: String,
    },
    /// Its answer has not the form of one.
    #[error("`{program}` gave a malformed answer")]
    Answer {
        /// The program.
        program: String,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
}

/// What helpers take and give.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(rename = "ServerURL", default)]
    server: &'a str,
    username: std::borrow::Cow<'a, str>,
    secret: std::borrow::Cow<'a, str>,
}

/// One helper.
#[derive(Debug)]
pub(super) struct Helper {
    program: String,
}

impl Helper {
    /// The helper that `config.json` calls `name`.
    pub(super) fn new(name: &str) -> Result<Self, HelperError> {
        // A part of a program's name, and never a path.
        let valid =
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if name.is_empty() || !valid {
            return Err(HelperError::Name(name.to_owned()));
        }
        Ok(Self { program: format!("{PREFIX}{name}") })
    }

    /// What it has for `server`; `None` for nothing.
    pub(super) fn get(&self, server: &str) -> Result<Option<Credentials>, HelperError> {
        let answer = match self.call("get", server) {
            Err(HelperError::Failed { message, .. }) if message.contains(NOT_FOUND) => return Ok(None),
            answer => answer?,
        };
        let entry: Entry<'_> = serde_json::from_str(&answer)
            .map_err(|source| HelperError::Answer { program: self.program.clone(), source })?;
        let secret = Secret::new(entry.secret);
        Ok(Some(match entry.username.as_ref() {
            TOKEN_USER => Credentials::IdentityToken(secret),
            username => Credentials::Basic { username: username.to_owned(), password: secret },
        }))
    }

    /// Has it keep a name and a password, or an identity token.
    pub(super) fn store(&self, server: &str, username: &str, secret: &Secret) -> Result<(), HelperError> {
        let entry = Entry { server, username: username.into(), secret: secret.expose().into() };
        let text = serde_json::to_string(&entry)
            .map_err(|source| HelperError::Answer { program: self.program.clone(), source })?;
        self.call("store", &text).map(drop)
    }

    /// Has it forget what it has for `server`.
    pub(super) fn erase(&self, server: &str) -> Result<(), HelperError> {
        match self.call("erase", server) {
            Err(HelperError::Failed { message, .. }) if message.contains(NOT_FOUND) => Ok(()),
            result => result.map(drop),
        }
    }

    fn call(&self, verb: &'static str, input: &str) -> Result<String, HelperError> {
        let error = |source| HelperError::Run { program: self.program.clone(), source };
        let mut child = Command::new(&self.program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(error)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that answers without reading is none the worse for it.
            match stdin.write_all(input.as_bytes()) {
                Err(broken) if broken.kind() != io::ErrorKind::BrokenPipe => return Err(error(broken)),
                _ => {}
            }
        }
        let mut answer = String::new();
        let read = match child.stdout.take() {
            Some(stdout) => stdout.take(ANSWER_LENGTH_MAX).read_to_string(&mut answer).map(drop),
            None => Ok(()),
        };
        let status = child.wait().map_err(error)?;
        read.map_err(error)?;
        if status.success() {
            return Ok(answer);
        }
        let message = match answer.trim() {
            "" => status.to_string(),
            message => message.to_owned(),
        };
        Err(HelperError::Failed { program: self.program.clone(), verb, message })
    }
}

/// The user's name under which a helper keeps `credentials`, and the secret; `None` where there is nothing to keep.
pub(super) fn entry(credentials: &Credentials) -> Option<(&str, &Secret)> {
    match credentials {
        Credentials::Anonymous => None,
        Credentials::Basic { username, password } => Some((username, password)),
        Credentials::IdentityToken(token) | Credentials::RegistryToken(token) => Some((TOKEN_USER, token)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        for wrong in ["", "../x", "a b", "/bin/sh", "a;b"] {
            assert!(Helper::new(wrong).is_err(), "{wrong}");
        }
        let missing = Helper::new("is-not-there").unwrap();
        let error = missing.get("r.example").unwrap_err();
        assert_eq!(error.to_string(), "cannot run `docker-credential-is-not-there`");
    }
}
