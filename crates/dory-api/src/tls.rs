//! TLS for TCP listeners: Docker's `--tls` and `--tlsverify`.
//!
//! The handshake is the connection's own business, in its own task and with a limit of time: a client that stalls in it
//! holds up nobody. Only HTTP/1.1 is offered.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take. dockerd has no limit of its own; ten seconds is what Docker's clients wait.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// The files of a listener's TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has nothing of the kind in PEM form.
    #[error("cannot read the {what} `{}`", .path.display())]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A certificate authority's file has no certificate that can be one.
    #[error("cannot use the certificate authority `{}`", .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
    /// Certificate and key do not belong together, or are of a kind that is not spoken.
    #[error("cannot use the certificate `{}` with its key", .path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// How a listener speaks TLS.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration holds the private key.
        formatter.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Shows `certificate` (a chain, the engine's own first), whose key is `key`; with `clients`, only those come in who
    /// show a certificate of an authority in that file. All are PEM files.
    ///
    /// # Errors
    /// [`TlsError`], by the file that is to blame.
    pub fn load(certificate: &Path, key: &Path, clients: Option<&Path>) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let read = |what, path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Read { what, path, source }
        };
        let identity = |source| TlsError::Identity { path: certificate.to_owned(), source };
        let chain = certificates(certificate).map_err(read("certificate", certificate))?;
        let private_key = PrivateKeyDer::from_pem_file(key).map_err(read("private key", key))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(identity)?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(
                    certificates(path).map_err(read("certificate authority", path))?,
                );
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, private_key).map_err(identity)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with a client that has just connected.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsSocket> {
        let accepting = TlsAcceptor::from(Arc::clone(&self.0)).accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE_TIME, accepting).await??;
        Ok(TlsSocket { stream, ahead: Vec::new() })
    }
}

/// The certificates of a PEM file; one that has none is an error.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let found = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) }
}

/// A connection that is encrypted.
#[derive(Debug)]
pub struct TlsSocket {
    stream: TlsStream<TcpStream>,
    /// What was read to see whether the client is still there.
    ahead: Vec<u8>,
}

impl TlsSocket {
    /// As [`crate::socket::Socket::poll_end`]. What is encrypted cannot be looked at without taking it.
    pub(crate) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if !self.ahead.is_empty() {
            return Poll::Ready(false);
        }
        let mut bytes = [0; 1024];
        let mut buffer = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
            Ok(()) => {
                self.ahead.extend(buffer.filled());
                Poll::Ready(self.ahead.is_empty())
            }
            Err(_) => Poll::Ready(true),
        }
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if socket.ahead.is_empty() {
            return match ready!(Pin::new(&mut socket.stream).poll_read(context, buffer)) {
                // The client closed its connection without TLS's word for it: Docker's clients may, when they are done.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                result => Poll::Ready(result),
            };
        }
        let length = socket.ahead.len().min(buffer.remaining());
        buffer.put_slice(&socket.ahead[..length]);
        socket.ahead.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("empty"), "").unwrap();
        for file in ["absent", "empty"] {
            let error = ServerTls::load(&path(file), &path(file), None).unwrap_err();
            assert!(error.to_string().contains(file), "{error}");
        }
    }
}
