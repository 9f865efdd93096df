//! The driver over real sockets, with routes that stand for the real ones.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::connection::{self, EndsWithClient};
use crate::dispatch::Dispatcher;
use crate::hijack::{Hijack, StreamKind, UpgradeForm};
use crate::socket::Socket;

/// Answers with what it read up to the end of the client's side, then `bye`.
async fn echo(headers: HeaderMap, body: Bytes) -> Response {
    let length = body.len();
    Hijack::response(UpgradeForm::of(&headers), StreamKind::Raw, move |mut tunnel| async move {
        tunnel.write_all(format!("body={length}\n").as_bytes()).await?;
        let mut input = Vec::new();
        tunnel.read_to_end(&mut input).await?;
        tunnel.write_all(&input).await?;
        tunnel.write_all(b"bye\n").await?;
        tunnel.shutdown().await
    })
}

/// A body that never ends, and tells `ended` when it is dropped.
fn endless(ended: mpsc::Sender<()>) -> Response {
    let stream = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let guarded = futures_util::StreamExt::map(stream, move |item| {
        let _held = &ended;
        item
    });
    let mut response = Body::from_stream(guarded).into_response();
    response.extensions_mut().insert(EndsWithClient);
    response
}

/// hyper keeps any number of heads in its buffer; some hundred of these are more than a socket holds.
const BIG: usize = 8 << 10;
const MANY: usize = 200;

struct Connection {
    client: UnixStream,
    server: JoinHandle<()>,
    stop: watch::Sender<bool>,
    ended: mpsc::Receiver<()>,
}

fn connect() -> Connection {
    let (ended_sender, ended) = mpsc::channel(1);
    let router = Router::new()
        .route("/echo", post(echo))
        .route("/_ping", get(async || "OK"))
        .route("/head", get(async || (http::StatusCode::NO_CONTENT, [("big", "#".repeat(BIG))])))
        .route("/endless", get(async move || endless(ended_sender.clone())));
    let (client, server) = UnixStream::pair().unwrap();
    let (stop, stopped) = watch::channel(false);
    let dispatcher = Dispatcher::new(router, "0.0.0");
    let server = tokio::spawn(connection::serve(Socket::Unix(server), dispatcher, stopped));
    Connection { client, server, stop, ended }
}

async fn read_all(client: &mut UnixStream) -> String {
    let mut output = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut output)).await.unwrap().unwrap();
    String::from_utf8(output).unwrap()
}

async fn read_until(client: &mut UnixStream, end: &str) -> String {
    let mut output = Vec::new();
    while !output.ends_with(end.as_bytes()) {
        let byte = tokio::time::timeout(Duration::from_secs(5), client.read_u8()).await.unwrap().unwrap();
        output.push(byte);
    }
    String::from_utf8(output).unwrap()
}

#[tokio::test]
async fn hijacks_with_and_without_upgrade() {
    for (headers, status) in [
        (
            "Connection: Upgrade\r\nUpgrade: tcp\r\n",
            "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n",
        ),
        ("", "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n"),
    ] {
        let mut connection = connect();
        // Body and the first bytes of the stream arrive in one packet with the head.
        let request =
            format!("POST /v1.41/echo HTTP/1.1\r\nHost: d\r\n{headers}Content-Length: 4\r\n\r\nbodyearly-");
        connection.client.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut connection.client, "\r\n\r\n").await;
        assert!(head.starts_with(status), "{head}");
        assert!(head.contains("api-version: 1.51\r\n") && !head.contains("content-length"), "{head}");
        connection.client.write_all(b"later\n").await.unwrap();
        connection.client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut connection.client).await, "body=4\nearly-later\nbye\n");
        connection.server.await.unwrap();
    }
}

#[tokio::test]
async fn keeps_alive_before_a_hijack() {
    let mut connection = connect();
    for _ in 0..2 {
        connection.client.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
        let answer = read_until(&mut connection.client, "\r\n\r\nOK").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    connection.client.write_all(b"POST /echo HTTP/1.1\r\nHost: d\r\n\r\nx").await.unwrap();
    connection.client.shutdown().await.unwrap();
    assert!(read_all(&mut connection.client).await.ends_with("\r\n\r\nbody=0\nxbye\n"));
}

#[tokio::test]
async fn pipelined_answers_precede_the_hijack() {
    let mut connection = connect();
    let requests = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\nPOST /echo HTTP/1.1\r\nHost: d\r\n\r\nearly";
    connection.client.write_all(requests).await.unwrap();
    connection.client.shutdown().await.unwrap();
    let output = read_all(&mut connection.client).await;
    let (ping, echo) = output.split_once("\r\n\r\nOK").unwrap();
    assert!(ping.starts_with("HTTP/1.1 200 OK") && echo.ends_with("body=0\nearlybye\n"), "{output}");
}

#[tokio::test]
async fn a_hijack_waits_for_a_client_that_reads_late() {
    let mut connection = connect();
    let mut requests = "GET /head HTTP/1.1\r\nHost: d\r\n\r\n".repeat(MANY);
    requests.push_str("POST /echo HTTP/1.1\r\nHost: d\r\n\r\nearly");
    connection.client.write_all(requests.as_bytes()).await.unwrap();
    connection.client.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let output = read_all(&mut connection.client).await;
    assert_eq!(output.matches('#').count(), MANY * BIG);
    assert!(output.ends_with("\r\n\r\nbody=0\nearlybye\n"));
}

#[tokio::test]
async fn answers_a_half_closed_client() {
    let mut connection = connect();
    connection.client.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
    connection.client.shutdown().await.unwrap();
    assert!(read_all(&mut connection.client).await.ends_with("\r\n\r\nOK"));
}

#[tokio::test]
async fn an_endless_answer_ends_with_its_client_or_server() {
    for stop_server in [false, true] {
        let Connection { mut client, server, stop, mut ended } = connect();
        client.write_all(b"GET /endless HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
        read_until(&mut client, "\r\n\r\n").await;
        if stop_server {
            stop.send(true).unwrap();
        } else {
            drop(client);
        }
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
        assert_eq!(ended.recv().await, None);
    }
}

#[tokio::test]
async fn a_handler_outlives_its_client() {
    let (sender, mut done) = mpsc::channel(1);
    let router = Router::new().route(
        "/slow",
        post(async move || {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sender.send("done").await.unwrap();
        }),
    );
    let (mut client, server) = UnixStream::pair().unwrap();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(connection::serve(Socket::Unix(server), Dispatcher::new(router, "0.0.0"), stopped));
    client.write_all(b"POST /slow HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
    drop(client);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), done.recv()).await, Ok(Some("done")));
}

#[tokio::test]
async fn refuses_versions_and_unknown_paths() {
    for (path, status, message) in [
        (
            "/v1.99/_ping",
            "400 Bad Request",
            "client version 1.99 is too new. Maximum supported API version is 1.51",
        ),
        ("/v1.41", "404 Not Found", "page not found"),
    ] {
        let router = crate::routes::with_fallbacks(Router::new());
        let dispatcher = Dispatcher::new(router, "0.0.0");
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = dispatcher.dispatch(request).await;
        assert_eq!(response.status().to_string(), status);
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        assert_eq!(body, format!("{{\"message\":\"{message}\"}}\n"));
    }
}

#[tokio::test]
async fn a_request_cut_in_the_middle_reaches_no_handler() {
    let mut connection = connect();
    let cut = b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 10\r\n\r\nhalf";
    connection.client.write_all(cut).await.unwrap();
    connection.client.shutdown().await.unwrap();
    let output = read_all(&mut connection.client).await;
    assert!(!output.contains("body="), "{output}");
    connection.server.await.unwrap();
}
