//! The calling side: calls over one connection that the other side has opened for us.

use std::io;
use std::pin::Pin;

use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;

use super::message::{Messages, Outgoing, Sender, broken};
use super::status::{Code, Status};
use super::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, WINDOW};

type Answered = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Status>> + Send>>;

/// A connection to call on; cheap to clone.
#[derive(Debug, Clone)]
pub struct Channel {
    requests: SendRequest<Outgoing>,
    /// Callers may be threads of their own.
    runtime: Handle,
}

impl Channel {
    /// Speaks HTTP/2 on `stream`. The second value drives the connection and completes at its end.
    ///
    /// # Errors
    /// A handshake that failed.
    pub async fn open<Stream>(
        stream: Stream,
    ) -> io::Result<(Self, impl Future<Output = io::Result<()>> + Send)>
    where
        Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok((Self { requests, runtime: Handle::current() }, async {
            connection.await.map_err(io::Error::other)
        }))
    }

    /// Calls `method` with one message, for one message.
    ///
    /// # Errors
    /// The status that the other side ends the call with, or a broken connection.
    pub async fn unary<Q, A>(&self, method: &str, question: &Q) -> Result<A, Status>
    where
        Q: Message,
        A: Message + Default,
    {
        let answered = self.request(method, &[], Outgoing::request_of(question))?;
        let mut answers = Answers { state: State::Asked(answered) };
        let answer = answers.next().await?;
        answer.ok_or_else(|| Status::new(Code::Internal, format!("`{method}` was answered with nothing")))
    }

    /// Opens a call of `method` whose messages go both ways as they like. Does not wait for the other side.
    ///
    /// # Errors
    /// Metadata that is no header.
    pub fn stream(&self, method: &str, metadata: &[(&str, &str)]) -> Result<(Sender, Answers), Status> {
        let (sender, body) = Outgoing::request();
        let answered = self.request(method, metadata, body)?;
        // Under way from now on: what is sent before anybody waits for an answer would fill its queue and stop.
        let answered = self.runtime.spawn(answered);
        let answered =
            async { answered.await.unwrap_or_else(|error| Err(Status::unknown(error.to_string()))) };
        Ok((sender, Answers { state: State::Asked(Box::pin(answered)) }))
    }

    fn request(&self, method: &str, metadata: &[(&str, &str)], body: Outgoing) -> Result<Answered, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        for (name, value) in metadata {
            let pair = (http::HeaderName::try_from(*name), HeaderValue::from_str(value));
            let (Ok(name), Ok(value)) = pair else {
                return Err(Status::invalid(format!("`{name}` with `{value}` is no header")));
            };
            headers.append(name, value);
        }
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.headers_mut() = headers;
        *request.uri_mut() = format!("http://localhost{method}")
            .parse()
            .map_err(|_| Status::invalid(format!("`{method}` is no method")))?;
        let mut requests = self.requests.clone();
        Ok(Box::pin(async move {
            requests.ready().await.map_err(|error| broken(&error))?;
            requests.send_request(request).await.map_err(|error| broken(&error))
        }))
    }
}

/// Where a call is.
enum State {
    Asked(Answered),
    Answering(Messages),
    Ended,
}

/// The messages that a call is answered with.
pub struct Answers {
    state: State,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl Answers {
    /// The next message; nothing where the call ended well.
    ///
    /// # Errors
    /// The status that the other side ended the call with, or a broken connection.
    pub async fn next<T: Message + Default>(&mut self) -> Result<Option<T>, Status> {
        loop {
            match &mut self.state {
                State::Ended => return Ok(None),
                State::Asked(answered) => {
                    let answered = answered.await;
                    self.state = State::Ended;
                    self.state = begin(answered?)?;
                }
                State::Answering(messages) => match messages.next().await {
                    Ok(Some(message)) => return Ok(Some(message)),
                    Ok(None) => {
                        let end = messages.trailers().and_then(Status::from_headers);
                        self.state = State::Ended;
                        return match end {
                            Some(end) => end.map(|()| None),
                            None => Err(Status::new(Code::Internal, "the call ended without a status")),
                        };
                    }
                    Err(status) => {
                        self.state = State::Ended;
                        return Err(status);
                    }
                },
            }
        }
    }
}

/// What the head of an answer says.
fn begin(response: Response<Incoming>) -> Result<State, Status> {
    if let Some(end) = Status::from_headers(response.headers()) {
        return end.map(|()| State::Ended);
    }
    match response.status() {
        StatusCode::OK => Ok(State::Answering(Messages::new(response.into_body()))),
        status => Err(Status::new(Code::Unavailable, format!("the call was answered with HTTP {status}"))),
    }
}

/// Bytes that go to the other side in one message: gRPC's default limit is 4 MiB.
pub const CHUNK: usize = 1 << 20;
