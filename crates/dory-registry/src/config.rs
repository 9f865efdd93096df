//! One configuration of registries for pull, push, build and gateway: mirrors, who may be insecure, certificates,
//! proxies, limits.
//!
//! The names are those of dockerd's `daemon.json`, so that what people know applies; what dockerd has no name for (a
//! mirror of another registry than Docker Hub) stands with the registry's own entry.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::auth::DockerConfig;
use crate::http::{
    ClientIdentity, Exception, Location, Origin, Proxies, Proxy, Scheme, TlsSettings, contains,
};

/// Docker Hub's name in references, and where it really is.
pub(crate) const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";
/// Where Docker's users put a registry's certificates, a directory for each host: `*.crt` for authorities, `*.cert`
/// and `*.key` for ourselves (Docker's documentation, "Verify repository client with certificates").
const CERTIFICATES: [&str; 2] = ["/etc/dory/certs.d", "/etc/docker/certs.d"];

/// The configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A mirror is not an address.
    #[error("invalid mirror `{0}`: http://HOST[:PORT] or https://HOST[:PORT] is needed")]
    Mirror(String),
    /// A registry's name is not a host.
    #[error("invalid registry `{0}`: HOST[:PORT] is needed")]
    Registry(String),
    /// A proxy is not an address.
    #[error("invalid proxy: http://HOST:PORT or https://HOST:PORT is needed")]
    Proxy,
    /// A client's certificate has no key beside it, or the reverse.
    #[error("`{}` has no {missing} beside it", path.display())]
    Identity {
        /// What is there.
        path: PathBuf,
        /// What is not.
        missing: &'static str,
    },
}

/// Everything that is configured about registries. The default is right for most people.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Addresses that are asked before Docker Hub.
    pub registry_mirrors: Vec<String>,
    /// Hosts (`HOST[:PORT]`) and networks (`ADDRESS/PREFIX`) whose certificates are not checked, and which are spoken
    /// to without TLS where they speak none. Loopback addresses and `localhost` always are.
    pub insecure_registries: Vec<String>,
    /// Directories in place of `/etc/dory/certs.d` and `/etc/docker/certs.d`.
    pub certificate_directories: Vec<PathBuf>,
    /// In place of the environment's `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    pub proxies: ProxyConfig,
    /// How many layers of an image are downloaded at the same time.
    pub max_concurrent_downloads: usize,
    /// How many layers of an image are uploaded at the same time.
    pub max_concurrent_uploads: usize,
    /// How many times in a row a download may break without getting on.
    pub max_download_attempts: u32,
    /// How many seconds a registry may be silent.
    pub silence_timeout: u64,
    /// What is particular to single registries, by `HOST[:PORT]`.
    pub hosts: BTreeMap<String, RegistryEntry>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            certificate_directories: CERTIFICATES.iter().map(PathBuf::from).collect(),
            proxies: ProxyConfig::default(),
            max_concurrent_downloads: 6,
            max_concurrent_uploads: 5,
            max_download_attempts: 5,
            silence_timeout: 60,
            hosts: BTreeMap::new(),
        }
    }
}

/// Proxies; the same names as in `daemon.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// For registries without TLS.
    pub http_proxy: Option<String>,
    /// For registries with TLS.
    pub https_proxy: Option<String>,
    /// Who is reached directly: hosts, `.domains`, networks, separated by commas.
    pub no_proxy: Option<String>,
}

/// What is particular to one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RegistryEntry {
    /// Addresses that are asked before it.
    pub mirrors: Vec<String>,
    /// As in [`RegistryConfig::insecure_registries`].
    pub insecure: bool,
    /// An authority's certificates in PEM, believed beside the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate in PEM.
    pub client_certificate: Option<PathBuf>,
    /// Its key in PEM.
    pub client_key: Option<PathBuf>,
}

/// A place where a registry's content is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointConfig {
    /// How it may be reached, the first that answers counts.
    pub(crate) origins: Vec<Origin>,
    pub(crate) tls: TlsSettings,
    /// Credentials for the registry are not for its mirrors.
    pub(crate) mirror: bool,
}

impl RegistryConfig {
    /// Checks what is only used later.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let hosts = self.hosts.values().flat_map(|entry| &entry.mirrors);
        self.registry_mirrors.iter().chain(hosts).try_for_each(|mirror| mirror_origin(mirror).map(drop))?;
        self.hosts.keys().try_for_each(|host| origin(Scheme::Https, host).map(drop))?;
        self.proxies().map(drop)
    }

    /// How long a registry may be silent.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.silence_timeout.max(1))
    }

    /// The mirrors of the registry `domain`, and the registry itself at the end.
    pub(crate) fn endpoints(&self, domain: &str) -> Result<Vec<EndpointConfig>, ConfigError> {
        let own = self.hosts.get(domain).map_or(&[][..], |entry| &entry.mirrors);
        let hub = if domain == HUB { &self.registry_mirrors[..] } else { &[] };
        let mut endpoints = Vec::new();
        for mirror in own.iter().chain(hub) {
            endpoints.push(self.mirror(mirror)?);
        }
        endpoints.push(self.endpoint(domain)?);
        Ok(endpoints)
    }

    /// The registry `domain` itself.
    pub(crate) fn endpoint(&self, domain: &str) -> Result<EndpointConfig, ConfigError> {
        let host = if domain == HUB { HUB_HOST } else { domain };
        let secure = origin(Scheme::Https, host)?;
        let insecure = self.is_insecure(domain, &secure.host);
        let tls = self.tls(domain, insecure)?;
        let mut origins = vec![secure];
        if insecure {
            origins.push(origin(Scheme::Http, host)?);
        }
        Ok(EndpointConfig { origins, tls, mirror: false })
    }

    fn mirror(&self, mirror: &str) -> Result<EndpointConfig, ConfigError> {
        let origin = mirror_origin(mirror)?;
        let authority = origin.authority();
        let tls = self.tls(&authority, self.is_insecure(&authority, &origin.host))?;
        Ok(EndpointConfig { origins: vec![origin], tls, mirror: true })
    }

    /// True where the operator said so of the host or of its network, and for this machine itself.
    fn is_insecure(&self, domain: &str, host: &str) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        let listed = |entry: &String| match entry.split_once('/') {
            None => entry == domain || entry == host,
            Some((network, prefix)) => match (network.parse(), prefix.parse(), address) {
                (Ok(network), Ok(prefix), Some(address)) => contains(network, prefix, address),
                _ => false,
            },
        };
        host == "localhost"
            || address.is_some_and(|address| address.is_loopback())
            || self.hosts.get(domain).is_some_and(|entry| entry.insecure)
            || self.insecure_registries.iter().any(listed)
    }

    /// The certificates of `host`, from its entry and from the directories.
    fn tls(&self, host: &str, unverified: bool) -> Result<TlsSettings, ConfigError> {
        let mut settings = TlsSettings { unverified, ..TlsSettings::default() };
        // A host's name is a directory's: never one that climbs.
        if !host.contains('/') && !host.starts_with('.') {
            for directory in &self.certificate_directories {
                add_certificates(&directory.join(host), &mut settings)?;
            }
        }
        if let Some(entry) = self.hosts.get(host) {
            settings.authorities.extend(entry.ca.clone());
            match (&entry.client_certificate, &entry.client_key) {
                (Some(certificate), Some(key)) => {
                    let (certificate, key) = (certificate.clone(), key.clone());
                    settings.identity = Some(ClientIdentity { certificate, key });
                }
                (Some(path), None) => {
                    return Err(ConfigError::Identity { path: path.clone(), missing: "key" });
                }
                (None, Some(path)) => {
                    return Err(ConfigError::Identity { path: path.clone(), missing: "certificate" });
                }
                (None, None) => {}
            }
        }
        Ok(settings)
    }

    /// The configured proxies, else the environment's.
    pub(crate) fn proxies(&self) -> Result<Proxies, ConfigError> {
        let environment = |names: [&str; 2]| {
            names.iter().find_map(|name| std::env::var(name).ok()).filter(|value| !value.is_empty())
        };
        let proxy = |configured: &Option<String>, names| {
            let text = configured.clone().or_else(|| environment(names)).filter(|text| !text.is_empty());
            text.map(|text| Proxy::parse(&text).ok_or(ConfigError::Proxy)).transpose()
        };
        let exceptions = self.proxies.no_proxy.clone().or_else(|| environment(["NO_PROXY", "no_proxy"]));
        Ok(Proxies {
            http: proxy(&self.proxies.http_proxy, ["HTTP_PROXY", "http_proxy"])?,
            https: proxy(&self.proxies.https_proxy, ["HTTPS_PROXY", "https_proxy"])?,
            exceptions: Exception::parse_list(&exceptions.unwrap_or_default()),
        })
    }
}

/// The registry that `docker login` without a name means, and the host that an address on its command line means.
pub(crate) fn login_domain(address: &str) -> String {
    let host =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    let host = host.split('/').next().unwrap_or_default();
    let hub = host.is_empty() || DockerConfig::key(host) == DockerConfig::key(HUB);
    if hub { HUB.to_owned() } else { host.to_owned() }
}

fn origin(scheme: Scheme, host: &str) -> Result<Origin, ConfigError> {
    let invalid = || ConfigError::Registry(host.to_owned());
    if host.contains('/') {
        return Err(invalid());
    }
    Origin::new(scheme, host).ok_or_else(invalid)
}

fn mirror_origin(mirror: &str) -> Result<Origin, ConfigError> {
    let location = Location::parse(mirror).filter(|location| location.target() == "/");
    location.map(|location| location.origin).ok_or_else(|| ConfigError::Mirror(mirror.to_owned()))
}

/// Adds what `directory` has; one that is not there has nothing.
fn add_certificates(directory: &Path, settings: &mut TlsSettings) -> Result<(), ConfigError> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in &paths {
        let other = |extension| path.with_extension(extension);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => settings.authorities.push(path.clone()),
            Some("cert") => {
                let key = other("key");
                if !paths.contains(&key) {
                    return Err(ConfigError::Identity { path: path.clone(), missing: "key" });
                }
                settings.identity = Some(ClientIdentity { certificate: path.clone(), key });
            }
            Some("key") if !paths.contains(&other("cert")) => {
                return Err(ConfigError::Identity { path: path.clone(), missing: "certificate" });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> RegistryConfig {
        let config: RegistryConfig = toml::from_str(text).unwrap();
        config.validate().unwrap();
        config
    }

    fn origins(config: &RegistryConfig, domain: &str) -> Vec<String> {
        let endpoints = config.endpoints(domain).unwrap();
        endpoints.iter().flat_map(|endpoint| &endpoint.origins).map(Origin::to_string).collect()
    }

    #[test]
    fn endpoints_in_their_order() {
        let config = config(
            "registry-mirrors = ['http://mirror.example:5000']\n\
             insecure-registries = ['plain.example', '10.0.0.0/8']\n\
             [hosts.'r.example']\nmirrors = ['https://near.example/']\n",
        );
        for (domain, expected) in [
            ("docker.io", &["http://mirror.example:5000", "https://registry-1.docker.io"][..]),
            ("r.example", &["https://near.example", "https://r.example"]),
            ("plain.example", &["https://plain.example", "http://plain.example"]),
            ("10.1.2.3:5000", &["https://10.1.2.3:5000", "http://10.1.2.3:5000"]),
            ("11.1.2.3:5000", &["https://11.1.2.3:5000"]),
            ("localhost:5000", &["https://localhost:5000", "http://localhost:5000"]),
            ("127.0.0.2", &["https://127.0.0.2", "http://127.0.0.2"]),
        ] {
            assert_eq!(origins(&config, domain), expected, "{domain}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("registry-mirrors = ['mirror.example']", "invalid mirror `mirror.example`"),
            ("registry-mirrors = ['https://mirror.example/path']", "invalid mirror"),
            ("[hosts.'a/b']", "invalid registry `a/b`"),
            ("[proxies]\nhttp-proxy = 'socks5://x'", "invalid proxy"),
        ] {
            let config: RegistryConfig = toml::from_str(text).unwrap();
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        assert!(toml::from_str::<RegistryConfig>("mirror = []").is_err());
    }

    #[test]
    fn directories_of_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let host = directory.path().join("r.example:5000");
        std::fs::create_dir(&host).unwrap();
        for name in ["ca.crt", "me.cert", "me.key", "notes.txt"] {
            std::fs::write(host.join(name), "").unwrap();
        }
        let config = RegistryConfig {
            certificate_directories: vec![directory.path().to_owned()],
            ..RegistryConfig::default()
        };
        let tls = config.endpoint("r.example:5000").unwrap().tls;
        assert_eq!(tls.authorities, [host.join("ca.crt")]);
        assert_eq!(tls.identity.unwrap().key, host.join("me.key"));
        std::fs::remove_file(host.join("me.key")).unwrap();
        assert!(matches!(config.endpoint("r.example:5000"), Err(ConfigError::Identity { .. })));
    }

    #[test]
    fn what_login_means() {
        for (address, domain) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("http://localhost:5000/v2/", "localhost:5000"),
            ("r.example", "r.example"),
        ] {
            assert_eq!(login_domain(address), domain);
        }
    }
}
