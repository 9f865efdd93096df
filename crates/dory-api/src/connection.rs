//! Drives one connection: requests through hyper until it ends or a handler hijacks it.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use crate::dispatch::Dispatcher;
use crate::hijack::{Hijack, Tunnel};
use crate::http2;
use crate::preface::{self, Protocol};
use crate::socket::{SharedSocket, Socket};

/// How long a client may take to send a request's head; also the longest idle time of a connection. dockerd's own
/// value: shorter ones break clients that keep connections in a pool and POST on them.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);
/// Most bytes that hyper buffers per direction; also the limit of a request's head (431 beyond it).
const BUFFER_LIMIT: usize = 128 << 10;

/// Marks a response whose body has no end of its own (logs, events, stats, wait): it ends with its client.
///
/// hyper does not read while it writes a body, so without the mark a vanished reader would be noticed only by a write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndsWithClient;

/// What the handlers of one connection tell its driver.
#[derive(Default)]
struct Signals {
    hijack: Option<(Hijack, HeaderMap)>,
    ends_with_client: bool,
}

type SharedSignals = Arc<Mutex<Signals>>;

fn lock(signals: &SharedSignals) -> std::sync::MutexGuard<'_, Signals> {
    signals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The dispatcher as hyper calls it, for one connection.
struct ConnectionService {
    dispatcher: Dispatcher,
    signals: SharedSignals,
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        lock(&self.signals).ends_with_client = false;
        let dispatcher = self.dispatcher.clone();
        let signals = self.signals.clone();
        Box::pin(async move {
            let mut response = dispatcher.dispatch(request.map(Body::new)).await;
            if let Some(hijack) = response.extensions_mut().remove::<Hijack>() {
                let headers = std::mem::take(response.headers_mut());
                lock(&signals).hijack = Some((hijack, headers));
                // The driver sees the signal after this poll and takes the connection apart.
                pending::<()>().await;
            }
            if response.extensions().get::<EndsWithClient>().is_some() {
                lock(&signals).ends_with_client = true;
            }
            Ok(response)
        })
    }
}

/// How the HTTP part of a connection ended.
enum End {
    Closed,
    Hijacked,
}

/// Serves requests on `socket` until the client closes it, or `shutdown` turns true and no request is in progress.
pub(crate) async fn serve(mut socket: Socket, dispatcher: Dispatcher, mut shutdown: watch::Receiver<bool>) {
    let mut stopping = Box::pin(async move {
        // An error means that the server itself is gone.
        let _ = shutdown.wait_for(|stop| *stop).await;
    });
    let detected = tokio::select! {
        detected = tokio::time::timeout(HEADER_TIMEOUT, preface::detect(&mut socket)) => detected,
        () = &mut stopping => return,
    };
    match detected {
        Ok(Ok((Protocol::Http1, early))) => serve_http1(socket, early, dispatcher, stopping).await,
        Ok(Ok((Protocol::Http2, early))) => {
            http2::serve(Tunnel::new(socket, early), dispatcher, stopping).await;
        }
        // Nothing was asked, so nobody waits for an answer.
        Ok(Err(_)) | Err(_) => {}
    }
}

/// Serves HTTP/1.1, of which `early` has been read.
async fn serve_http1(
    socket: Socket,
    early: Bytes,
    dispatcher: Dispatcher,
    mut stopping: Pin<Box<impl Future<Output = ()>>>,
) {
    let signals = SharedSignals::default();
    let shared = SharedSocket::new(socket, early);
    let service = ConnectionService { dispatcher, signals: signals.clone() };
    let mut connection = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER_LIMIT)
        // As Go writes them: scripts grep for `Api-Version`.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(shared.clone()), service);

    let mut stopped = false;
    let end = poll_fn(|context| {
        if !stopped && stopping.as_mut().poll(context).is_ready() {
            stopped = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        match connection.poll_without_shutdown(context) {
            Poll::Ready(result) => {
                if let Err(error) = result {
                    tracing::debug!(error = %error, "Connection failed");
                }
                Poll::Ready(End::Closed)
            }
            Poll::Pending => poll_signals(&signals, &shared, stopped, context),
        }
    })
    .await;

    match end {
        // Dropping the connection closes the socket, and with it the body of a response without an end.
        End::Closed => drop(connection),
        End::Hijacked => {
            let parts = connection.into_parts();
            drop(parts.io);
            drop(parts.service);
            if !stopped {
                hijacked(shared, parts.read_buf, &signals, stopping).await;
            }
        }
    }
}

/// Looks at what handlers signalled while hyper waits.
fn poll_signals(
    signals: &SharedSignals,
    socket: &SharedSocket,
    stopped: bool,
    context: &mut Context<'_>,
) -> Poll<End> {
    let signals = lock(signals);
    // hyper tries to write all it has before it waits, so "not blocked" means that earlier responses are out.
    if signals.hijack.is_some() && !socket.write_blocked() {
        return Poll::Ready(End::Hijacked);
    }
    if signals.ends_with_client && (stopped || matches!(socket.poll_end(context), Poll::Ready(true))) {
        return Poll::Ready(End::Closed);
    }
    Poll::Pending
}

/// Runs the handler's part of a hijacked connection, until it ends or the server stops.
async fn hijacked(
    socket: SharedSocket,
    early: Bytes,
    signals: &SharedSignals,
    stopping: impl Future<Output = ()>,
) {
    let Some((hijack, headers)) = lock(signals).hijack.take() else { return };
    let Some(socket) = socket.into_inner() else { return };
    tokio::select! {
        result = hijack.run(Tunnel::new(socket, early), &headers) => {
            if let Err(error) = result {
                tracing::debug!(error = %error, "Hijacked stream ended early");
            }
        }
        () = stopping => {}
    }
}
