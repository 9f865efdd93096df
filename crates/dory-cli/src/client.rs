//! The engine's API from the outside: HTTP/1.1 over a unix or TCP socket, streams and hijacked connections.
//!
//! Paths carry no version prefix: the engine then speaks its newest version, every field that we read exists since
//! API 1.24, and the round trip of a negotiation is saved.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use dory_registry::Secret;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::endpoint::{Address, Target};
use crate::failure::{ApiError, Hinted};

/// Starts an engine when none is reachable; the binary knows how.
pub trait EngineStarter {
    /// Starts an engine that goes away when it is idle and nothing runs, and returns the unix socket that it answers
    /// on.
    ///
    /// # Errors
    /// Whatever kept the engine from starting; the chain is shown to the user.
    fn start(&self) -> Result<PathBuf>;
}

/// The connection broke in the middle of a request or an answer.
#[derive(Debug)]
pub(crate) struct ConnectionLost;

impl fmt::Display for ConnectionLost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the connection to the engine was lost")
    }
}

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A connection that both sides now use as plain byte streams.
pub(crate) type Hijacked = TokioIo<Upgraded>;

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Speaks to one engine; connects when the first request is made.
pub(crate) struct Client<'s> {
    target: Target,
    starter: Option<&'s dyn EngineStarter>,
    address: OnceCell<Address>,
}

impl fmt::Debug for Client<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("target", &self.target).finish_non_exhaustive()
    }
}

impl<'s> Client<'s> {
    /// A client for `target`, which may use `starter` where nothing was named and nothing answers.
    pub(crate) fn new(target: Target, starter: Option<&'s dyn EngineStarter>) -> Self {
        Self { target, starter, address: OnceCell::new() }
    }

    /// Asks for `path` and reads the answer as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(Method::GET, path, empty()).await
    }

    /// Asks for `path` and returns the answer while it is still being written.
    pub(crate) async fn get_stream(&self, path: &str) -> Result<Response<Incoming>> {
        self.send(Method::GET, path, empty()).await
    }

    /// Posts nothing to `path` and ignores the answer's content.
    pub(crate) async fn post(&self, path: &str) -> Result<()> {
        collect(self.send(Method::POST, path, empty()).await?).await.map(drop)
    }

    /// Posts nothing to `path` and reads the answer as JSON.
    pub(crate) async fn post_for<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(Method::POST, path, empty()).await
    }

    /// Posts `value` to `path` and ignores the answer's content.
    pub(crate) async fn post_body(&self, path: &str, value: &impl Serialize) -> Result<()> {
        collect(self.send(Method::POST, path, json_body(value)?).await?).await.map(drop)
    }

    /// Posts `value` to `path` and reads the answer as JSON.
    pub(crate) async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        value: &impl Serialize,
    ) -> Result<T> {
        self.json(Method::POST, path, json_body(value)?).await
    }

    /// Posts `body` to `path` and returns the answer while it is still being written.
    pub(crate) async fn post_stream(&self, path: &str, body: Body) -> Result<Response<Incoming>> {
        self.send(Method::POST, path, body).await
    }

    /// Puts `body` to `path` and ignores the answer's content.
    pub(crate) async fn put_stream(&self, path: &str, body: Body) -> Result<()> {
        collect(self.send(Method::PUT, path, body).await?).await.map(drop)
    }

    /// Asks for the headers of `path` alone.
    pub(crate) async fn head(&self, path: &str) -> Result<http::HeaderMap> {
        Ok(self.send(Method::HEAD, path, empty()).await?.into_parts().0.headers)
    }

    /// As [`Self::post_stream`], with credentials for a registry.
    pub(crate) async fn post_with_auth(
        &self,
        path: &str,
        body: Body,
        credentials: &Secret,
    ) -> Result<Response<Incoming>> {
        check(self.exchange(authorised(request(Method::POST, path, body)?, credentials)?).await?).await
    }

    /// As [`Self::get`], with credentials for a registry.
    pub(crate) async fn get_with_auth<T: DeserializeOwned>(
        &self,
        path: &str,
        credentials: &Secret,
    ) -> Result<T> {
        let request = authorised(request(Method::GET, path, empty())?, credentials)?;
        decode(path, &collect(check(self.exchange(request).await?).await?).await?)
    }

    /// Deletes `path` and reads the answer as JSON; `Null` where it is empty.
    pub(crate) async fn delete(&self, path: &str) -> Result<serde_json::Value> {
        let bytes = collect(self.send(Method::DELETE, path, empty()).await?).await?;
        if bytes.is_empty() { Ok(serde_json::Value::Null) } else { decode(path, &bytes) }
    }

    /// Posts `body` to `path` and takes the connection over.
    pub(crate) async fn hijack(&self, path: &str, value: Option<&impl Serialize>) -> Result<Hijacked> {
        let body = value.map_or_else(|| Ok(empty()), json_body)?;
        let mut request = request(Method::POST, path, body)?;
        request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("tcp"));
        let response = self.exchange(request).await?;
        let response = check(response).await?;
        anyhow::ensure!(
            response.status() == StatusCode::SWITCHING_PROTOCOLS,
            "the engine answered `{}` where it should have handed the connection over",
            response.status()
        );
        let upgraded = hyper::upgrade::on(response).await.context("cannot take the connection over")?;
        Ok(TokioIo::new(upgraded))
    }

    /// A raw connection to the engine, for `dial-stdio`.
    pub(crate) async fn dial(&self) -> Result<impl AsyncRead + AsyncWrite + use<>> {
        self.connect().await
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> Result<T> {
        let bytes = collect(self.send(method, path, body).await?).await?;
        decode(path, &bytes)
    }

    async fn send(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>> {
        let response = self.exchange(request(method, path, body)?).await?;
        check(response).await
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.context(ConnectionLost)?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.context(ConnectionLost)
    }

    /// Connects to the engine, starting one where that is allowed and needed.
    async fn connect(&self) -> Result<Box<dyn Connection>> {
        if let Some(address) = self.address.get() {
            return connect_to(address).await.with_context(|| unreachable_engine(address));
        }
        let (address, stream) = match &self.target {
            Target::Named(address) => {
                (address.clone(), connect_to(address).await.with_context(|| unreachable_engine(address))?)
            }
            Target::Search(places) => self.search(places).await?,
        };
        // Set once only: a second request that raced with this one found the same engine.
        let _ = self.address.set(address);
        Ok(stream)
    }

    async fn search(&self, places: &[Address]) -> Result<(Address, Box<dyn Connection>)> {
        let mut failure = None;
        for address in places {
            match connect_to(address).await {
                Ok(stream) => return Ok((address.clone(), stream)),
                // A socket that may not be opened says more than one that is not there.
                Err(error) if failure.is_none() || is_refusal(&error) => {
                    failure = Some((address, error));
                }
                Err(_) => {}
            }
        }
        if let Some(starter) = self.starter {
            let address = Address::Unix(starter.start().context("cannot start an engine")?);
            let stream = connect_to(&address).await.with_context(|| unreachable_engine(&address))?;
            return Ok((address, stream));
        }
        match failure {
            Some((address, error)) => Err(error).with_context(|| unreachable_engine(address)),
            None => anyhow::bail!("no place to look for an engine is known"),
        }
    }
}

/// True where a socket is there and may not be opened.
fn is_refusal(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn unreachable_engine(address: &Address) -> Hinted {
    Hinted {
        message: format!("cannot connect to the engine at {address}"),
        hint: "is `dory serve` running? name another engine with `-H` or `DORY_HOST`".to_owned(),
    }
}

async fn connect_to(address: &Address) -> Result<Box<dyn Connection>> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(address) => Ok(Box::new(connect_tcp(address).await?)),
        Address::Tls(address, tls) => {
            let stream = connect_tcp(address).await?;
            Ok(Box::new(tls.connect(address, stream).await?))
        }
    }
}

async fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    let attempt = tokio::time::timeout(Duration::from_secs(10), TcpStream::connect(address)).await;
    let stream = attempt.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A body of nothing.
pub(crate) fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

fn json_body(value: &impl Serialize) -> Result<Body> {
    let bytes = serde_json::to_vec(value).context("cannot encode the request")?;
    Ok(Full::from(bytes).map_err(|never| match never {}).boxed_unsync())
}

fn request(method: Method, path: &str, body: Body) -> Result<Request<Body>> {
    let exact = hyper::body::Body::size_hint(&body).exact();
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "dory")
        .header(header::USER_AGENT, concat!("dory/", env!("CARGO_PKG_VERSION")));
    // dockerd refuses a body without a type, and a type without a body.
    builder = match exact {
        Some(0) => builder,
        Some(_) => builder.header(header::CONTENT_TYPE, "application/json"),
        None => builder.header(header::CONTENT_TYPE, "application/x-tar"),
    };
    builder.body(body).with_context(|| format!("cannot make a request for `{path}`"))
}

/// The request with `X-Registry-Auth` (API 1.51, "Authentication").
fn authorised(mut request: Request<Body>, credentials: &Secret) -> Result<Request<Body>> {
    let value = header::HeaderValue::from_str(credentials.expose()).context("cannot send the credentials")?;
    request.headers_mut().insert("x-registry-auth", value);
    Ok(request)
}

/// Turns an answer with an error status into [`ApiError`].
async fn check(response: Response<Incoming>) -> Result<Response<Incoming>> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(response);
    }
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let body = collect(response).await?;
    let message = match serde_json::from_slice::<Message>(&body) {
        Ok(parsed) => parsed.message,
        Err(_) if body.is_empty() => status.to_string(),
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    Err(ApiError { status: status.as_u16(), message }.into())
}

async fn collect(response: Response<Incoming>) -> Result<Bytes> {
    Ok(response.into_body().collect().await.context(ConnectionLost)?.to_bytes())
}

fn decode<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .with_context(|| format!("cannot understand the engine's answer to `{path}`"))
}

/// Builds a path with a query, escaping what needs it.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    text: String,
    has_query: bool,
}

impl Path {
    /// The path that `segments` make: fixed ones and names that the user gave.
    pub(crate) fn new(segments: &[&str]) -> Self {
        let mut text = String::new();
        for segment in segments {
            text.push('/');
            escape(&mut text, segment, b"-_.~:@/");
        }
        Self { text, has_query: false }
    }

    /// Adds `name=value`.
    pub(crate) fn query(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.push_str(name);
        self.text.push('=');
        escape(&mut self.text, &value.to_string(), b"-_.~:@/,");
        self
    }

    /// Adds `name=1` if `on`.
    pub(crate) fn flag(self, name: &str, on: bool) -> Self {
        if on { self.query(name, 1) } else { self }
    }

    /// Adds `name=value` unless the value is empty.
    pub(crate) fn optional(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.query(name, value) }
    }

    /// The finished text.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

fn escape(target: &mut String, text: &str, plain: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            target.push(char::from(byte));
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests;
