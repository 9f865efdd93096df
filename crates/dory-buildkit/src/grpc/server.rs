//! The serving side: one HTTP/2 connection, many calls.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::message::{Messages, Outgoing, Sender};
use super::status::Status;
use super::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, WINDOW};

/// What a service's call returns.
pub type Answer = Pin<Box<dyn Future<Output = Result<Reply, Status>> + Send>>;

/// One call that came in.
#[derive(Debug)]
pub struct Call {
    method: String,
    metadata: HeaderMap,
    messages: Messages,
}

impl Call {
    /// `/package.Service/Method`.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// All metadata.
    pub fn headers(&self) -> &HeaderMap {
        &self.metadata
    }

    /// A text among the metadata.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.get(name)?.to_str().ok()
    }

    /// The messages, one after the other.
    pub fn messages(&mut self) -> &mut Messages {
        &mut self.messages
    }

    /// The only message of a call that has one.
    ///
    /// # Errors
    /// As [`Messages::next`], and no message at all.
    pub async fn message<T: Message + Default>(mut self) -> Result<T, Status> {
        self.messages.next().await?.ok_or_else(|| Status::invalid("the call has no message"))
    }
}

/// What a call is answered with.
#[derive(Debug)]
pub struct Reply(Outgoing);

impl Reply {
    /// One message.
    pub fn of(message: &impl Message) -> Self {
        Self(Outgoing::answer_of(message))
    }

    /// Messages as `send` sends them, in a task of its own; the stream ends as `send` does.
    pub fn stream<Fill, Sent>(send: Fill) -> Self
    where
        Fill: FnOnce(Sender) -> Sent,
        Sent: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let (sender, body) = Outgoing::answer();
        let sent = send(sender.clone());
        tokio::spawn(async move {
            if let Err(status) = sent.await {
                sender.fail(status).await;
            }
        });
        Self(body)
    }
}

/// Answers calls. Dropping the future means that the client does not want the answer any more.
pub trait Service: Send + Sync + 'static {
    /// Answers `call`.
    fn call(self: Arc<Self>, call: Call) -> Answer;
}

/// Serves calls on `stream` until the client closes it.
///
/// # Errors
/// What breaks the connection.
pub async fn serve<S, Stream>(stream: Stream, service: Arc<S>) -> io::Result<()>
where
    S: Service,
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(answer(service, request).await) }
    });
    connection_builder().serve_connection(TokioIo::new(stream), answer).await.map_err(io::Error::other)
}

/// A server of HTTP/2 as calls need it.
pub fn connection_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}

/// Whether a request is a call of gRPC's.
pub fn is_call<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("application/grpc"))
}

/// Answers one HTTP/2 request that is a call.
pub async fn answer<S: Service>(service: Arc<S>, request: Request<Incoming>) -> Response<Outgoing> {
    let (head, body) = request.into_parts();
    let method = head.uri.path().to_owned();
    let call = Call { method, metadata: head.headers, messages: Messages::new(body) };
    let body = match service.call(call).await {
        Ok(Reply(body)) => body,
        Err(status) => Outgoing::failure(status),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
