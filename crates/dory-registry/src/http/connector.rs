//! Connections: names resolved, through a proxy where one is set, with TLS where the address says so.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::location::{Location, Origin, Scheme};
use super::proxy::{Proxies, Proxy};
use super::resolve::{ResolveError, resolve};

/// How long one address may take to accept a connection, and a TLS handshake to finish.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer of a proxy to `CONNECT`, in bytes.
const TUNNEL_ANSWER_MAX: usize = 16 << 10;

/// No connection could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The name has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No address accepted; the last one's failure. Worded as Go does, whose words clients look for.
    #[error("dial tcp {address}: connect: {}", words(reason))]
    Dial { address: SocketAddr, reason: io::Error },
    /// The other end does not speak TLS, or is not whom it should be.
    #[error("tls")]
    Tls(#[source] io::Error),
    /// The host's name cannot stand in a certificate.
    #[error("tls: invalid server name `{0}`")]
    ServerName(String),
    /// The proxy did not make a tunnel.
    #[error("proxy {proxy}: {answer}")]
    Tunnel { proxy: Origin, answer: String },
    /// The proxy's connection broke.
    #[error("proxy {proxy}")]
    Proxy {
        proxy: Origin,
        #[source]
        source: io::Error,
    },
    /// hyper asked for something that is no address.
    #[error("invalid address `{0}`")]
    Address(Uri),
}

/// The kernel's words without Rust's additions: what people search for.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        _ => error.to_string(),
    }
}

/// Makes the connections of one registry.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    settings: Arc<Settings>,
}

#[derive(Debug)]
struct Settings {
    proxies: Arc<Proxies>,
    /// With the client's certificate, for this origin only.
    own: Arc<ClientConfig>,
    own_origin: Origin,
    others: Arc<ClientConfig>,
}

impl Connector {
    pub(super) fn new(
        proxies: Arc<Proxies>,
        own_origin: Origin,
        own: ClientConfig,
        others: ClientConfig,
    ) -> Self {
        let settings = Settings { proxies, own: Arc::new(own), own_origin, others: Arc::new(others) };
        Self { settings: Arc::new(settings) }
    }

    async fn connect(&self, uri: &Uri) -> Result<Stream, ConnectError> {
        let origin =
            Location::parse(&uri.to_string()).ok_or_else(|| ConnectError::Address(uri.clone()))?.origin;
        let Settings { proxies, own, own_origin, others } = &*self.settings;
        let tls = if origin == *own_origin { own } else { others };
        match (proxies.choose(&origin), origin.scheme) {
            (None, Scheme::Http) => Ok(Stream::new(dial(&origin).await?, false)),
            (None, Scheme::Https) => {
                Ok(Stream::new(handshake(dial(&origin).await?, &origin, tls).await?, false))
            }
            (Some(proxy), Scheme::Http) => Ok(Stream::new(self.reach(proxy).await?, true)),
            (Some(proxy), Scheme::Https) => {
                let stream = tunnel(self.reach(proxy).await?, proxy, &origin).await?;
                Ok(Stream::new(handshake(stream, &origin, tls).await?, false))
            }
        }
    }

    /// A connection to the proxy itself.
    async fn reach(&self, proxy: &Proxy) -> Result<Box<dyn Io>, ConnectError> {
        let stream = dial(&proxy.origin).await?;
        match proxy.origin.scheme {
            Scheme::Http => Ok(stream),
            Scheme::Https => handshake(stream, &proxy.origin, &self.settings.others).await,
        }
    }
}

/// Tries the host's addresses one after the other.
async fn dial(origin: &Origin) -> Result<Box<dyn Io>, ConnectError> {
    let mut failure = None;
    for address in resolve(&origin.host).await? {
        match dial_address(address, origin.port).await {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| ResolveError::NoSuchHost(origin.host.clone()).into()))
}

async fn dial_address(address: IpAddr, port: u16) -> Result<TcpStream, ConnectError> {
    let address = SocketAddr::new(address, port);
    let stream = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|reason| ConnectError::Dial { address, reason })?;
    // Requests are written at once: Nagle's algorithm would only hold back their ends.
    stream.set_nodelay(true).map_err(|reason| ConnectError::Dial { address, reason })?;
    Ok(stream)
}

async fn handshake(
    stream: Box<dyn Io>,
    origin: &Origin,
    tls: &Arc<ClientConfig>,
) -> Result<Box<dyn Io>, ConnectError> {
    let name = ServerName::try_from(origin.host.clone())
        .map_err(|_| ConnectError::ServerName(origin.host.clone()))?;
    let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
    let stream = tokio::time::timeout(CONNECT_PATIENCE, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(ConnectError::Tls)?;
    Ok(Box::new(stream))
}

/// Has the proxy connect to `origin` (RFC 9110, section 9.3.6).
async fn tunnel(
    mut stream: Box<dyn Io>,
    proxy: &Proxy,
    origin: &Origin,
) -> Result<Box<dyn Io>, ConnectError> {
    let host = if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    let mut request =
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n", port = origin.port);
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {}\r\n", authorization.expose()));
    }
    request.push_str("\r\n");
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Byte by byte: what follows the head belongs to the tunnel.
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < TUNNEL_ANSWER_MAX {
            answer.push(stream.read_u8().await?);
        }
        Ok(answer)
    };
    let answer = tokio::time::timeout(CONNECT_PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| ConnectError::Proxy { proxy: proxy.origin.clone(), source })?;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    if line.split_ascii_whitespace().nth(1).is_some_and(|status| status.len() == 3 && status.starts_with('2'))
    {
        return Ok(stream);
    }
    Err(ConnectError::Tunnel { proxy: proxy.origin.clone(), answer: line.chars().take(100).collect() })
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&uri).await })
    }
}

/// What TCP and TLS have in common.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection as hyper wants it.
pub(super) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    /// Requests go to a proxy, which wants whole addresses.
    proxied: bool,
}

impl Stream {
    fn new(io: Box<dyn Io>, proxied: bool) -> Self {
        Self { io: TokioIo::new(io), proxied }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}
