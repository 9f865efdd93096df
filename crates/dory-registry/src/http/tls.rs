//! TLS settings of one registry: whom it is believed, and who we are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme};

/// Where distributions keep the authorities that the machine's owner trusts, the first that is there counts
/// (Go's crypto/x509, root_linux.go).
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names a bundle in place of the system's, as for OpenSSL and Go.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file of certificates or a key cannot be read, or has none.
    #[error("cannot use `{}`", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// An authority's certificate cannot be used.
    #[error("cannot trust the certificate in `{}`", path.display())]
    Authority {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    /// The settings contradict each other, such as a key that does not fit its certificate.
    #[error("cannot set up TLS")]
    Settings(#[source] rustls::Error),
}

/// A client's certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a registry's connections are set up with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// Authorities beside the system's, in PEM.
    pub(crate) authorities: Vec<PathBuf>,
    /// Shown to the registry itself and to nobody that it redirects to.
    pub(crate) identity: Option<ClientIdentity>,
    /// Any certificate is good.
    pub(crate) unverified: bool,
}

/// A file of certificates, and when it was written.
pub(crate) type CertificateStamp = (PathBuf, Option<SystemTime>);

impl TlsSettings {
    /// The files that these settings name, as they are now.
    pub(crate) fn stamps(&self) -> Vec<CertificateStamp> {
        let identity = self.identity.iter().flat_map(|identity| [&identity.certificate, &identity.key]);
        let files = self.authorities.iter().chain(identity);
        files
            .map(|file| (file.clone(), file.metadata().and_then(|metadata| metadata.modified()).ok()))
            .collect()
    }

    /// The settings for connections to everybody else whom the registry names: its token service, its storage.
    pub(crate) fn without_identity(&self) -> Self {
        Self { identity: None, ..self.clone() }
    }

    /// rustls' form of these settings.
    pub(crate) fn client(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Settings)?;
        let builder = if self.unverified {
            let verifier = AnyCertificate::new(Arc::clone(&provider));
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some(identity) => {
                let error = |path: &Path| {
                    let path = path.to_owned();
                    move |source| TlsError::File { path, source }
                };
                let chain = certificates(&identity.certificate)?;
                let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(error(&identity.key))?;
                let key = provider.key_provider.load_private_key(key).map_err(TlsError::Settings)?;
                let certified = CertifiedKey::new(chain, key);
                // Only the other side has to understand the certificate: OpenSSL makes clients' ones of version 1, which
                // rustls cannot read.
                if let Err(error @ rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) =
                    certified.keys_match()
                {
                    return Err(TlsError::Settings(error));
                }
                Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))))
            }
        }
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = system_roots();
        for path in &self.authorities {
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|source| TlsError::Authority { path: path.clone(), source })?;
            }
        }
        Ok(roots)
    }
}

/// The authorities that the machine trusts; Mozilla's where the machine has no list, as in an image of one file.
fn system_roots() -> RootCertStore {
    let named = std::env::var_os(BUNDLE_VARIABLE).map(PathBuf::from);
    let known = SYSTEM_BUNDLES.iter().map(PathBuf::from);
    let mut roots = RootCertStore::empty();
    for bundle in named.into_iter().chain(known) {
        if let Ok(certificates) = certificates(&bundle) {
            // Some bundles have entries that no verifier takes any more.
            roots.add_parsable_certificates(certificates);
        }
        if !roots.is_empty() {
            return roots;
        }
    }
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::File { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)
}

/// Believes every certificate: for registries that the operator called insecure, and engines that nobody asked to verify.
#[derive(Debug)]
pub struct AnyCertificate(Arc<CryptoProvider>);

impl AnyCertificate {
    /// Signatures are still checked, with what `provider` knows.
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_their_mistakes() {
        assert!(TlsSettings::default().client().is_ok());
        assert!(TlsSettings { unverified: true, ..TlsSettings::default() }.client().is_ok());
        let missing = TlsSettings { authorities: vec!["/nowhere/ca.crt".into()], ..TlsSettings::default() };
        assert_eq!(missing.client().unwrap_err().to_string(), "cannot use `/nowhere/ca.crt`");
    }
}
