//! Requests and answers of one registry's endpoint, with bounds on how long silence may last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connector::{ConnectError, Connector};
use super::location::{Location, Origin, Scheme};
use super::proxy::Proxies;
use super::tls::{TlsError, TlsSettings};
use crate::auth::Secret;

/// What a request brings along. `io::Error` is the failure of what is uploaded.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Nothing.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// These bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Connections that are idle this long are closed: some registries close them after a minute without a word.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// How many redirects are followed; Go's number.
const REDIRECTS_MAX: usize = 10;
/// Who we are.
const AGENT: &str = concat!("dory/", env!("CARGO_PKG_VERSION"));

/// A request did not get its answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// Nothing came for too long.
    #[error("no answer within {} s", patience.as_secs())]
    Silent { patience: Duration },
    /// There is no connection, or it broke, or what came is no HTTP.
    #[error("{}", reason(.0))]
    Broken(hyper_util::client::legacy::Error),
    /// The connection broke, or what came is no HTTP, after the answer's head.
    #[error("{}", innermost(.0))]
    Body(hyper::Error),
    /// The request has characters that no address or header can have.
    #[error("the address or a header is malformed")]
    Malformed,
    /// An answer redirects to nowhere.
    #[error("redirected to what is no address")]
    LostRedirect,
    /// An answer redirects from an encrypted connection to a plain one.
    #[error("redirected from https to {0}")]
    Downgrade(Origin),
    /// Redirect after redirect.
    #[error("redirected more than {REDIRECTS_MAX} times")]
    EndlessRedirect,
}

impl TransportError {
    /// True where the same request may succeed a moment later.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Body(_) => true,
            Self::Broken(error) => match connect_error(error) {
                None | Some(ConnectError::Proxy { .. }) => true,
                Some(ConnectError::Dial { reason, .. }) => {
                    reason.kind() != std::io::ErrorKind::ConnectionRefused
                }
                Some(_) => false,
            },
            _ => false,
        }
    }
}

/// Our own connector's failure in hyper's.
fn connect_error(error: &hyper_util::client::legacy::Error) -> Option<&ConnectError> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        match error.downcast_ref() {
            Some(found) => return Some(found),
            None => cause = error.source(),
        }
    }
    None
}

/// hyper's own layers say nothing that the cause does not say better.
fn reason(error: &hyper_util::client::legacy::Error) -> String {
    if let Some(error) = connect_error(error) {
        return dory_types::with_causes(error);
    }
    innermost(error)
}

/// The first cause's words.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A request before it has an address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exchange {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    /// Goes to the location's own origin only.
    pub(crate) authorization: Option<Secret>,
}

impl Exchange {
    pub(crate) fn new(method: Method) -> Self {
        Self { method, ..Self::default() }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }
}

/// The connections of one endpoint, and of whomever it redirects to.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    client: Client<Connector, Body>,
    proxies: Arc<Proxies>,
    patience: Duration,
    unverified: bool,
}

impl Transport {
    /// For `origin`, with `patience` as the longest silence.
    pub(crate) fn new(
        origin: &Origin,
        tls: &TlsSettings,
        proxies: Arc<Proxies>,
        patience: Duration,
    ) -> Result<Self, TlsError> {
        let connector = Connector::new(
            Arc::clone(&proxies),
            origin.clone(),
            tls.client()?,
            tls.without_identity().client()?,
        );
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { client, proxies, patience, unverified: tls.unverified })
    }

    /// Sends one request and waits for the head of its answer; redirects are answers like others.
    ///
    /// The wait for the head is bounded from the moment on at which the body has been taken, which is for the caller
    /// to bound.
    pub(crate) async fn send(
        &self,
        exchange: &Exchange,
        location: &Location,
        body: Body,
    ) -> Result<Response<Incoming>, TransportError> {
        let request = self.request(exchange, location, body).ok_or(TransportError::Malformed)?;
        self.client.request(request).await.map_err(TransportError::Broken)
    }

    /// Sends one request whose body counts in `taken` what went out of it; silence is what lasts too long without that
    /// count going on, however long the whole takes.
    pub(crate) async fn send_watched(
        &self,
        exchange: &Exchange,
        location: &Location,
        body: Body,
        taken: &AtomicU64,
    ) -> Result<Response<Incoming>, TransportError> {
        let mut sending = std::pin::pin!(self.send(exchange, location, body));
        let mut before = None;
        loop {
            if let Ok(result) = tokio::time::timeout(self.patience, &mut sending).await {
                return result;
            }
            let now = taken.load(Ordering::Relaxed);
            if before.replace(now) == Some(now) || now == 0 {
                return Err(TransportError::Silent { patience: self.patience });
            }
        }
    }

    /// Sends one request without a body.
    pub(crate) async fn ask(
        &self,
        exchange: &Exchange,
        location: &Location,
    ) -> Result<Response<Incoming>, TransportError> {
        self.bounded(self.send(exchange, location, empty())).await
    }

    /// Waits for `work` no longer than silence may last.
    pub(crate) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        let silent = |_| Err(TransportError::Silent { patience: self.patience });
        tokio::time::timeout(self.patience, work).await.unwrap_or_else(silent)
    }

    /// Sends a request without a body and follows where its answers lead; the last answer and where it came from.
    ///
    /// What belongs to the first origin, the credential above all, goes to no other one.
    pub(crate) async fn follow(
        &self,
        exchange: &Exchange,
        location: &Location,
    ) -> Result<(Response<Incoming>, Location), TransportError> {
        let mut here = location.clone();
        let mut exchange = exchange.clone();
        for _ in 0..REDIRECTS_MAX {
            let response = self.ask(&exchange, &here).await?;
            if !is_redirect(response.status()) {
                return Ok((response, here));
            }
            let reference = response.headers().get(http::header::LOCATION);
            let next = reference
                .and_then(|reference| here.join(reference.to_str().ok()?))
                .ok_or(TransportError::LostRedirect)?;
            let downgrade = here.origin.scheme == Scheme::Https && next.origin.scheme == Scheme::Http;
            if downgrade && !self.unverified {
                return Err(TransportError::Downgrade(next.origin));
            }
            if next.origin != here.origin {
                // Even if a later answer leads back: who sent us here chose what is asked there.
                exchange.authorization = None;
            }
            here = next;
        }
        Err(TransportError::EndlessRedirect)
    }

    /// Reads a whole body; `None` where it is longer than `limit` bytes. Silence is bounded, the whole time is not.
    pub(crate) async fn read(&self, mut body: Incoming, limit: u64) -> Result<Option<Bytes>, TransportError> {
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.piece(&mut body).await? {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(bytes.freeze()))
    }

    /// The next piece of a body; `None` at its end.
    pub(crate) async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, TransportError> {
        loop {
            let frame = match tokio::time::timeout(self.patience, body.frame()).await {
                Err(_) => return Err(TransportError::Silent { patience: self.patience }),
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.map_err(TransportError::Body)?,
            };
            // Trailers say nothing that anybody here needs.
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
    }

    fn request(&self, exchange: &Exchange, location: &Location, body: Body) -> Option<Request<Body>> {
        let mut request = Request::new(body);
        *request.method_mut() = exchange.method.clone();
        *request.uri_mut() = location.uri()?;
        let headers = request.headers_mut();
        *headers = exchange.headers.clone();
        headers.insert(HOST, HeaderValue::from_str(&location.origin.authority()).ok()?);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(authorization) = &exchange.authorization {
            headers.insert(AUTHORIZATION, authorization.header()?);
        }
        // A tunnel's own request carries the proxy's credential; a plain request carries it itself.
        if location.origin.scheme == Scheme::Http
            && let Some(proxy) = self.proxies.choose(&location.origin)
            && let Some(authorization) = &proxy.authorization
        {
            headers.insert(http::header::PROXY_AUTHORIZATION, authorization.header()?);
        }
        Some(request)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    )
}
