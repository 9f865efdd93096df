//! Connections that speak HTTP/2 from their beginning: gRPC for BuildKit, and the engine's API for whoever likes it so.

use std::convert::Infallible;
use std::future::Future;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use dory_buildkit::{connection_builder, is_call};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::dispatch::Dispatcher;
use crate::error::ApiError;
use crate::hijack::{Hijack, Tunnel};

/// Serves requests on `stream` until the client closes it, or `stopping` completes: calls are streams, and are cut.
pub(crate) async fn serve(stream: Tunnel, dispatcher: Dispatcher, stopping: impl Future<Output = ()>) {
    let service = service_fn(move |request| {
        let dispatcher = dispatcher.clone();
        async move { Ok::<_, Infallible>(answer(dispatcher, request).await) }
    });
    tokio::select! {
        served = connection_builder().serve_connection(TokioIo::new(stream), service) => {
            if let Err(error) = served {
                tracing::debug!(error = %error, "Connection failed");
            }
        }
        () = stopping => {}
    }
}

async fn answer(dispatcher: Dispatcher, request: Request<Incoming>) -> Response {
    if is_call(&request)
        && let Some(buildkit) = dispatcher.buildkit()
    {
        return buildkit.answer(request).await.map(Body::new);
    }
    let response = dispatcher.dispatch(request.map(Body::new)).await;
    match response.extensions().get::<Hijack>() {
        // Nobody can take a stream of HTTP/2 over.
        Some(_) => {
            ApiError::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "hijacking needs HTTP/1.1").into_response()
        }
        None => response,
    }
}
