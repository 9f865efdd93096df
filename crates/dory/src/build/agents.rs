//! SSH agents of this machine, for `RUN --mount=type=ssh`.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use dory_build::Agents;

/// Where an agent's socket is told.
const VARIABLE: &str = "SSH_AUTH_SOCK";

/// Agents by their ids.
#[derive(Debug, Default)]
pub struct AgentPlaces(BTreeMap<String, PathBuf>);

impl AgentPlaces {
    /// Reads `--ssh`: `ID`, or `ID=SOCKET`.
    ///
    /// # Errors
    /// No agent is there, or the path is no socket: keys are an agent's to keep.
    pub fn read(words: &[String]) -> Result<Self> {
        let mut places = BTreeMap::new();
        for word in words {
            let (id, path) = match word.split_once('=') {
                Some((id, path)) => (id, PathBuf::from(path)),
                None => {
                    let path = std::env::var_os(VARIABLE);
                    (
                        word.as_str(),
                        path.with_context(|| format!("--ssh {word}: {VARIABLE} is not set"))?.into(),
                    )
                }
            };
            let metadata = path.metadata().with_context(|| format!("--ssh {word}: no such agent"))?;
            if !metadata.file_type().is_socket() {
                bail!("--ssh {word}: `{}` is no agent's socket; keys are not read", path.display());
            }
            places.insert(id.to_owned(), path);
        }
        Ok(Self(places))
    }
}

impl Agents for AgentPlaces {
    fn has(&self, id: &str) -> io::Result<bool> {
        Ok(self.0.contains_key(id))
    }

    fn connect(&self, id: &str) -> io::Result<UnixStream> {
        let path = self.0.get(id).ok_or(io::ErrorKind::NotFound)?;
        UnixStream::connect(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn agents_are_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, key) = (folder.path().join("agent"), folder.path().join("key"));
        let _listener = UnixListener::bind(&socket).unwrap();
        std::fs::write(&key, "").unwrap();
        let word = |path: &std::path::Path| vec![format!("work={}", path.display())];
        let places = AgentPlaces::read(&word(&socket)).unwrap();
        assert!(places.has("work").unwrap() && !places.has("default").unwrap());
        assert!(places.connect("work").is_ok() && places.connect("default").is_err());
        assert!(AgentPlaces::read(&word(&key)).is_err());
    }
}
