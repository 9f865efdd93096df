//! `~/.docker/config.json`: what `docker login` left, in the file itself or with a credential helper.
//!
//! Source: Docker CLI's "docker login" reference, "Credential stores" and "Credential helpers". What else stands in
//! the file is kept as it is.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Map, Value};

use super::credentials::{AuthConfig, STANDARD};
use super::helper::{Helper, HelperError, entry};
use super::{Credentials, Secret};

/// Docker Hub's name in the file.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Docker Hub's names in references and on command lines.
const HUB_NAMES: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not JSON of the right shape.
    #[error("malformed `{}`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// It cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A helper that it names failed.
    #[error(transparent)]
    Helper(#[from] HelperError),
}

/// The file's content. Methods that may run a helper block.
#[derive(Debug, Clone, Default)]
pub struct DockerConfig {
    path: PathBuf,
    root: Map<String, Value>,
}

impl DockerConfig {
    /// Where Docker's client has it: `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`.
    pub fn default_path() -> PathBuf {
        let directory =
            std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker");
        directory.unwrap_or_else(home).join("config.json")
    }

    /// Reads `path`; one that is not there is an empty one.
    ///
    /// # Errors
    /// [`DockerConfigError::Read`] and [`DockerConfigError::Malformed`].
    pub fn load(path: &Path) -> Result<Self, DockerConfigError> {
        let path = path.to_owned();
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(root) => Ok(Self { path, root }),
                Err(source) => Err(DockerConfigError::Malformed { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { path, root: Map::new() }),
            Err(source) => Err(DockerConfigError::Read { path, source }),
        }
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key of `registry` in the file: its host, or Docker Hub's historical address.
    pub fn key(registry: &str) -> &str {
        let host = host(registry);
        if HUB_NAMES.contains(&host) { HUB_KEY } else { host }
    }

    /// What is kept for `registry`, a host with or without a port; [`Credentials::Anonymous`] for nothing.
    ///
    /// # Errors
    /// [`DockerConfigError::Helper`].
    pub fn credentials(&self, registry: &str) -> Result<Credentials, DockerConfigError> {
        let key = Self::key(registry);
        if let Some(helper) = self.helper(key)?
            && let Some(credentials) = helper.get(key)?
        {
            return Ok(credentials);
        }
        let Some(auths) = self.root.get("auths").and_then(Value::as_object) else {
            return Ok(Credentials::Anonymous);
        };
        // Older clients wrote whole addresses.
        let found = auths
            .get(key)
            .or_else(|| auths.iter().find(|(name, _)| Self::key(name) == key).map(|(_, entry)| entry));
        let config: Option<AuthConfig> = found.and_then(|entry| serde_json::from_value(entry.clone()).ok());
        Ok(config.map(AuthConfig::credentials).unwrap_or_default())
    }

    /// The helper for `key`: its own one, or the one for all.
    fn helper(&self, key: &str) -> Result<Option<Helper>, HelperError> {
        let own = self
            .root
            .get("credHelpers")
            .and_then(|helpers| helpers.get(key).or_else(|| helpers.get(host(key))));
        let name = own.or_else(|| self.root.get("credsStore")).and_then(Value::as_str);
        name.filter(|name| !name.is_empty()).map(Helper::new).transpose()
    }

    /// True where [`Self::store`] would write the password itself into the file.
    pub fn stores_plainly(&self, registry: &str) -> bool {
        !matches!(self.helper(Self::key(registry)), Ok(Some(_)))
    }

    /// Keeps `credentials` for `registry`, and writes the file.
    ///
    /// # Errors
    /// [`DockerConfigError::Helper`] and [`DockerConfigError::Write`].
    pub fn store(&mut self, registry: &str, credentials: &Credentials) -> Result<(), DockerConfigError> {
        let key = Self::key(registry).to_owned();
        let mut object = Map::new();
        match (self.helper(&key)?, entry(credentials)) {
            (_, None) => {}
            // An empty entry tells clients that there is something with the helper.
            (Some(helper), Some((username, secret))) => helper.store(&key, username, secret)?,
            (None, Some((username, secret))) => match credentials {
                Credentials::Basic { .. } => {
                    let text = format!("{username}:{}", secret.expose());
                    object.insert("auth".to_owned(), STANDARD.encode(text).into());
                }
                _ => {
                    object.insert("identitytoken".to_owned(), secret.expose().into());
                }
            },
        }
        self.auths().insert(key, Value::Object(object));
        self.write()
    }

    /// Keeps an identity token in place of `username`'s password, as Docker's client does.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub fn store_identity(
        &mut self,
        registry: &str,
        username: &str,
        token: &Secret,
    ) -> Result<(), DockerConfigError> {
        self.store(registry, &Credentials::IdentityToken(token.clone()))?;
        let key = Self::key(registry).to_owned();
        if self.stores_plainly(registry)
            && let Some(object) = self.auths().get_mut(&key).and_then(Value::as_object_mut)
        {
            object.insert("auth".to_owned(), STANDARD.encode(format!("{username}:")).into());
            return self.write();
        }
        Ok(())
    }

    /// Forgets what is kept for `registry`; false where there was nothing.
    ///
    /// # Errors
    /// [`DockerConfigError::Helper`] and [`DockerConfigError::Write`].
    pub fn erase(&mut self, registry: &str) -> Result<bool, DockerConfigError> {
        let key = Self::key(registry).to_owned();
        let names: Vec<_> = self.auths().keys().filter(|name| Self::key(name) == key).cloned().collect();
        if let Some(helper) = self.helper(&key)? {
            helper.erase(&key)?;
        }
        if names.is_empty() {
            return Ok(false);
        }
        for name in names {
            self.auths().remove(&name);
        }
        self.write()?;
        Ok(true)
    }

    fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.root.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if !auths.is_object() {
            *auths = Value::Object(Map::new());
        }
        auths.as_object_mut().expect("it was just made an object")
    }

    /// Replaces the file: readers see the old one or the new one. A symbolic link stays one.
    fn write(&self) -> Result<(), DockerConfigError> {
        let error = |source| DockerConfigError::Write { path: self.path.clone(), source };
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = path.parent().unwrap_or(Path::new("."));
        std::os::unix::fs::DirBuilderExt::mode(fs::DirBuilder::new().recursive(true), 0o700)
            .create(directory)
            .map_err(error)?;
        let temporary = directory.join(format!("config.json.{}", std::process::id()));
        let write = || {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
            let mut serializer = serde_json::Serializer::with_formatter(&mut file, formatter);
            serde::Serialize::serialize(&self.root, &mut serializer).map_err(io::Error::from)?;
            file.flush()?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| {
            // Without its name it is only clutter.
            let _ = fs::remove_file(&temporary);
            error(source)
        })
    }
}

/// The host in what somebody called a registry: `https://r.example/v1/` is `r.example`.
fn host(registry: &str) -> &str {
    let rest =
        registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    rest.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credentials {
        Credentials::Basic { username: username.to_owned(), password: Secret::new(password) }
    }

    #[test]
    fn keys() {
        for (registry, key) in [
            ("docker.io", HUB_KEY),
            ("https://index.docker.io/v1/", HUB_KEY),
            ("registry-1.docker.io", HUB_KEY),
            ("https://r.example:5000/v2/", "r.example:5000"),
            ("localhost:5000", "localhost:5000"),
        ] {
            assert_eq!(DockerConfig::key(registry), key);
        }
    }

    #[test]
    fn keeps_finds_and_forgets() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/config.json");
        let mut config = DockerConfig::load(&path).unwrap();
        config.store("r.example:5000", &basic("u", "p:q")).unwrap();
        config.store_identity("docker.io", "u", &Secret::new("t")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\t\"auths\": {"), "{text}");
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap()) & 0o777, 0o600);
        let mut config = DockerConfig::load(&path).unwrap();
        assert_eq!(config.credentials("r.example:5000").unwrap(), basic("u", "p:q"));
        assert_eq!(config.credentials("docker.io").unwrap(), Credentials::IdentityToken(Secret::new("t")));
        assert_eq!(config.credentials("r.example").unwrap(), Credentials::Anonymous);
        assert!(config.erase("r.example:5000").unwrap() && !config.erase("r.example:5000").unwrap());
        assert_eq!(config.credentials("r.example:5000").unwrap(), Credentials::Anonymous);
    }

    #[test]
    fn what_old_clients_and_others_wrote() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(
            &path,
            r#"{"auths":{"https://r.example/v1/":{"auth":"dTpw"},"broken.example":{"auth":5}},"psFormat":"x",
               "credHelpers":{"helped.example":"is-not-there"}}"#,
        )
        .unwrap();
        let mut config = DockerConfig::load(&path).unwrap();
        assert_eq!(config.credentials("r.example").unwrap(), basic("u", "p"));
        assert_eq!(config.credentials("broken.example").unwrap(), Credentials::Anonymous);
        assert!(config.credentials("helped.example").is_err() && !config.stores_plainly("helped.example"));
        config.store("r.example", &basic("v", "w")).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("psFormat"));
        fs::write(&path, "[").unwrap();
        assert!(matches!(DockerConfig::load(&path), Err(DockerConfigError::Malformed { .. })));
    }
}
