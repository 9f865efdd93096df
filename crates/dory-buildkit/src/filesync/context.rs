//! A build context that a client's session has.

use std::os::fd::AsFd;
use std::sync::Arc;

use dory_build::context::{Context, ContextError, ContextTree, Need};
use dory_build::{Cancel, TransferProgress};
use tokio::runtime::Handle;

use super::directories::ContextDirectories;
use super::packet::PacketStream;
use super::receive::{ReceiveError, receive};
use crate::session::Session;

const DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// The line of progress, in BuildKit's words.
const LINE: &str = "transferring";
/// Bytes between two lines of progress, so that 100,000 files are not 100,000 lines.
const REPORT: u64 = 256 << 10;

/// A directory of a client, by the name that the client serves it under (`context`, `dockerfile`, or a name of its own).
#[derive(Debug)]
pub struct SessionContext {
    session: Arc<Session>,
    name: String,
    directories: ContextDirectories,
    runtime: Handle,
}

impl SessionContext {
    /// The directory `name` of `session`, received into one of `directories`.
    pub fn new(session: Arc<Session>, name: &str, directories: ContextDirectories, runtime: Handle) -> Self {
        Self { session, name: name.to_owned(), directories, runtime }
    }

    /// What the client calls the directory in every build. Nothing where it does not say.
    fn identity(&self) -> Option<String> {
        let key = self.session.shared_key();
        (!key.is_empty()).then(|| format!("{}:{key}", self.name))
    }
}

impl Context for SessionContext {
    fn open(
        &self,
        need: &Need,
        progress: &TransferProgress<'_>,
        cancel: &Cancel,
    ) -> Result<ContextTree, ContextError> {
        let refused = |status: crate::grpc::Status| ContextError::Client(status.message().to_owned());
        let channel = self.session.channel(DIFF_COPY).map_err(refused)?;
        let metadata = metadata(&self.name, need);
        let pairs: Vec<_> = metadata.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let call = channel.stream(DIFF_COPY, &pairs).map_err(refused)?;
        let mut stream = PacketStream::new(call, self.runtime.clone(), cancel.clone());

        let identity = self.identity();
        let (lease, root) = self
            .directories
            .take(identity.as_deref().unwrap_or_default())
            .map_err(|source| ContextError::Read { path: self.name.clone().into(), source })?;
        let line = format!("{LINE} {}:", self.name);
        let mut reported = 0;
        let mut report = |bytes: u64| {
            if reported == 0 || bytes >= reported + REPORT {
                reported = bytes;
                progress(&line, bytes, 0, false);
            }
        };
        let received =
            receive(root.as_fd(), &mut stream, &mut report).map_err(|error| failed(error, cancel))?;
        progress(&line, received.bytes, 0, true);
        if let Err(error) = stream.finish() {
            tracing::debug!(error = %error, "A transfer of files ended oddly");
        }
        let identity = identity.map(|_| lease.path().to_string_lossy().into_owned());
        Ok(ContextTree { root, identity, keep: Some(Box::new(lease)) })
    }

    fn name(&self) -> String {
        match self.name.as_str() {
            "context" => "build context".to_owned(),
            name => name.to_owned(),
        }
    }
}

fn failed(error: ReceiveError, cancel: &Cancel) -> ContextError {
    if cancel.is_cancelled() {
        return ContextError::Cancelled;
    }
    match error {
        ReceiveError::Write { path, source } => ContextError::Read { path: path.into(), source },
        ReceiveError::Connection(source) => ContextError::Client(source.to_string()),
        ReceiveError::Sender(message) => ContextError::Client(message),
        error => ContextError::Client(error.to_string()),
    }
}

/// What to send, as metadata of the call: BuildKit's filesync.go, with its way of writing what is not ASCII.
fn metadata(name: &str, need: &Need) -> Vec<(&'static str, String)> {
    let mut pairs = vec![("dir-name", name.to_owned())];
    for (key, encoded_key, values) in [
        ("followpaths", "followpaths-encoded", &need.paths),
        ("exclude-patterns", "exclude-patterns-encoded", &need.ignore),
    ] {
        let is_encoded = values.iter().any(|value| !value.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        for value in values {
            pairs.push((key, if is_encoded { query_escape(value) } else { value.clone() }));
        }
        if is_encoded {
            pairs.push((encoded_key, "1".to_owned()));
        }
    }
    pairs
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => escaped.push('+'),
            b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_become_metadata() {
        let need =
            Need { paths: vec!["src".to_owned(), "Größe x".to_owned()], ignore: vec!["*.o".to_owned()] };
        let expected = [
            ("dir-name", "context"),
            ("followpaths", "src"),
            ("followpaths", "Gr%C3%B6%C3%9Fe+x"),
            ("followpaths-encoded", "1"),
            ("exclude-patterns", "*.o"),
        ];
        let found = metadata("context", &need);
        assert_eq!(found.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), expected);
    }
}
