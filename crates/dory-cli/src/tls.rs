//! TLS towards an engine, as Docker's client has it: `--tls*`, `DOCKER_TLS_VERIFY`, `DOCKER_TLS`, `DOCKER_CERT_PATH`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use dory_registry::AnyCertificate;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::flags::Arguments;

/// What the flags in front of the command say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsFlags {
    tls: Option<bool>,
    verify: Option<bool>,
    authority: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsFlags {
    /// Reads the flags.
    pub(crate) fn of(arguments: &Arguments) -> Self {
        let switch = |name| arguments.value(name).map(|value| value == "true");
        let path = |name| arguments.value(name).map(PathBuf::from);
        Self {
            tls: switch("tls"),
            verify: switch("tlsverify"),
            authority: path("tlscacert"),
            certificate: path("tlscert"),
            key: path("tlskey"),
        }
    }
}

/// How to speak TLS with an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientTls {
    /// The authority whose certificate the engine must show; `None` takes any.
    authority: Option<PathBuf>,
    /// The client's own certificate and its key.
    identity: Option<(PathBuf, PathBuf)>,
}

impl ClientTls {
    /// What flags and environment ask for; `None` for no TLS.
    ///
    /// `DOCKER_TLS_VERIFY` with any value verifies, `DOCKER_TLS` encrypts only; the files are `ca.pem`, `cert.pem` and
    /// `key.pem` in `DOCKER_CERT_PATH`, else in the client's configuration directory.
    pub(crate) fn choose(flags: &TlsFlags, variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let named = |name: &str| variable(name).filter(|value| !value.is_empty());
        let verify = flags.verify.unwrap_or_else(|| named("DOCKER_TLS_VERIFY").is_some());
        let tls = flags.tls.unwrap_or_else(|| named("DOCKER_TLS").is_some());
        if !verify && !tls {
            return None;
        }
        let directory = named("DOCKER_CERT_PATH")
            .or_else(|| named("DOCKER_CONFIG"))
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&named("HOME")?).join(".docker")))
            .unwrap_or_default();
        // A default file that is not there is not meant; one that was named must be.
        let file = |given: &Option<PathBuf>, name: &str| {
            given.clone().or_else(|| Some(directory.join(name)).filter(|path| path.exists()))
        };
        let authority = flags.authority.clone().unwrap_or_else(|| directory.join("ca.pem"));
        let identity = file(&flags.certificate, "cert.pem").zip(file(&flags.key, "key.pem"));
        Some(Self { authority: verify.then_some(authority), identity })
    }

    /// Shakes hands with the engine at `address` (`host:port`) over `stream`.
    pub(crate) async fn connect(&self, address: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone())
            .with_context(|| format!("`{host}` is no name that a certificate could be for"))?;
        let connector = TlsConnector::from(Arc::new(self.config()?));
        connector.connect(name, stream).await.context("TLS handshake failed")
    }

    fn config(&self) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match &self.authority {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates(path)?);
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .with_context(|| format!("cannot use the certificate authority `{}`", path.display()))?
            }
            // `--tls` without `--tlsverify`: the connection is encrypted, with whomever.
            None => Arc::new(AnyCertificate::new(Arc::clone(&provider))),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("no version of TLS")?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((certificate, key)) => {
                let private_key = PrivateKeyDer::from_pem_file(key)
                    .with_context(|| format!("cannot read the private key `{}`", key.display()))?;
                builder.with_client_auth_cert(certificates(certificate)?, private_key).with_context(|| {
                    format!("cannot use the certificate `{}` with its key", certificate.display())
                })
            }
        }
    }
}

/// The certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let found = read().with_context(|| format!("cannot read the certificate `{}`", path.display()))?;
    if found.is_empty() {
        bail!("no certificate in `{}`", path.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let environment = |names: &'static [&str]| {
            let path = path.clone();
            move |name: &str| match name {
                "DOCKER_CERT_PATH" => Some(path.clone().into_os_string()),
                _ => names.contains(&name).then(|| OsString::from("1")),
            }
        };
        let none = TlsFlags::default();
        assert_eq!(ClientTls::choose(&none, environment(&[])), None);
        let verified = ClientTls::choose(&none, environment(&["DOCKER_TLS_VERIFY"])).unwrap();
        assert_eq!(verified, ClientTls { authority: Some(path.join("ca.pem")), identity: None });
        let plain = ClientTls::choose(&none, environment(&["DOCKER_TLS"])).unwrap();
        assert_eq!(plain.authority, None);
        let off = TlsFlags { verify: Some(false), ..none.clone() };
        assert_eq!(ClientTls::choose(&off, environment(&["DOCKER_TLS_VERIFY"])), None);
        for file in ["cert.pem", "key.pem"] {
            std::fs::write(path.join(file), "").unwrap();
        }
        let both = ClientTls::choose(&none, environment(&["DOCKER_TLS_VERIFY"])).unwrap();
        assert_eq!(both.identity, Some((path.join("cert.pem"), path.join("key.pem"))));
        let named = TlsFlags { authority: Some("/other.pem".into()), verify: Some(true), ..none };
        let chosen = ClientTls::choose(&named, environment(&[])).unwrap();
        assert_eq!(chosen.authority, Some("/other.pem".into()));
    }
}
