//! One client's connection: a request is understood, judged, written anew, and answered, before the next one is looked at.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dory_policy::{
    Action, Answer, Body as BodyKind, Facts, Permitted, Raw, Request, Verdict, find_route, message,
};
use serde_json::Value;

use crate::answer;
use crate::audit::{Line, rules};
use crate::head::{Length, RequestHead, ResponseHead};
use crate::resolve::resolve;
use crate::session::Session;
use crate::upstream::{ANSWER_LIMIT, answer_head};
use crate::wire::{Body, Stream, Wire, chunk};

/// Longest JSON body of a request; dockerd's own limit for what authorisation plugins see.
const BODY_LIMIT: usize = 4 << 20;
/// How long a client may take for a head, idle time included.
const HEAD_TIME: Duration = Duration::from_secs(300);
/// How often facts may be missing: names first, then what follows from them.
const ROUNDS: usize = 4;
/// Headers of answers that are passed on.
const HEADERS: &[&str] = &[
    "content-type",
    "api-version",
    "docker-experimental",
    "ostype",
    "server",
    "x-docker-container-path-stat",
];

/// Serves one connection until it ends.
pub async fn serve(session: Arc<Session>, stream: Box<dyn Stream>) {
    let mut client = Client { session, wire: Wire::new(stream) };
    if let Err(error) = client.serve().await {
        tracing::debug!(%error, "Connection ended early");
    }
}

struct Client {
    session: Arc<Session>,
    wire: Wire,
}

/// What becomes of a connection after a request.
enum Next {
    Request,
    Close,
}

impl Client {
    async fn serve(&mut self) -> io::Result<()> {
        loop {
            let head = match tokio::time::timeout(HEAD_TIME, self.wire.head()).await {
                Ok(Ok(Some(head))) => head,
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return self.refuse(431, &error.to_string(), false).await;
                }
                Ok(Ok(None)) | Err(_) => return Ok(()),
                Ok(Err(error)) => return Err(error),
            };
            match RequestHead::parse(&head) {
                Ok(head) => {
                    if let Next::Close = self.request(&head).await? {
                        return Ok(());
                    }
                }
                Err(error) => return self.refuse(error.status, error.message, false).await,
            }
        }
    }

    async fn request(&mut self, head: &RequestHead) -> io::Result<Next> {
        let answered = self.answer(head).await;
        match answered {
            Ok(next) => Ok(if head.close { Next::Close } else { next }),
            Err(Stop::Refused { status, text }) => {
                // What of the body has not been read would be taken for the next request.
                self.refuse(status, &text, head.method == "HEAD").await?;
                Ok(Next::Close)
            }
            Err(Stop::Io(error)) => Err(error),
        }
    }

    async fn answer(&mut self, head: &RequestHead) -> Result<Next, Stop> {
        if !self.session.admit() {
            return Err(Stop::refused(429, "refused (limits.requests-per-second): too many requests"));
        }
        let route = find_route(&head.method, &head.target).map_err(|error| {
            self.audit_unknown(head, &error.to_string());
            Stop::refused(error.status(), error.to_string())
        })?;
        check_content_type(head, route.body)?;
        let mut body = Body::new(head.length);
        let whole = match route.body {
            BodyKind::Archive => Vec::new(),
            _ => {
                self.tell_to_continue(head).await?;
                body.whole(&mut self.wire, BODY_LIMIT).await.map_err(Stop::of_body)?
            }
        };
        let raw = Raw {
            method: &head.method,
            target: &head.target,
            body: &whole,
            registry_auth: head.registry_auth.as_deref(),
        };
        let request = Request::read(raw).map_err(|error| {
            self.audit_unknown(head, &error.to_string());
            Stop::refused(error.status(), error.to_string())
        })?;
        let permitted = self.decide(&request).await?;
        let version = request.version.unwrap_or(self.session.version).max(permitted.version());
        self.forward(head, &permitted, version, body).await
    }

    /// Judges, finding out what is missing.
    async fn decide(&self, request: &Request) -> Result<Permitted, Stop> {
        let session = &self.session;
        let route = request.route.name();
        let mut facts = Facts::default();
        for _ in 0..ROUNDS {
            match session.policy.judge(request, &session.identity, &facts) {
                Verdict::Permit(permitted) => {
                    let changes = rules(permitted.changes());
                    let verdict = if changes.is_empty() { "allow" } else { "change" };
                    session.audit.write(&Line { changes, ..self.line(request, &route, verdict) });
                    return Ok(permitted);
                }
                Verdict::Refuse(refusal) => {
                    session.audit.write(&Line {
                        rule: Some(refusal.rule),
                        reason: Some(&refusal.message),
                        ..self.line(request, &route, "refuse")
                    });
                    return Err(Stop::refused(refusal.status, refusal.message));
                }
                Verdict::Needs(needs) => {
                    resolve(session, &needs, &mut facts).await.map_err(Stop::of_upstream)?
                }
            }
        }
        Err(Stop::refused(500, "the gateway cannot find out what the request means"))
    }

    fn line<'l>(&'l self, request: &'l Request, route: &'l str, verdict: &'static str) -> Line<'l> {
        Line {
            session: &self.session.name,
            policy: &self.session.policy.name,
            method: request.route.method,
            route,
            name: request.name.as_deref(),
            verdict,
            rule: None,
            reason: None,
            changes: Vec::new(),
            dropped: &request.dropped,
        }
    }

    fn audit_unknown(&self, head: &RequestHead, reason: &str) {
        let path = head.target.split('?').next().unwrap_or_default();
        self.session.audit.write(&Line {
            session: &self.session.name,
            policy: &self.session.policy.name,
            method: &head.method,
            route: path.get(..80).unwrap_or(path),
            name: None,
            verdict: "refuse",
            rule: Some("model"),
            reason: Some(reason),
            changes: Vec::new(),
            dropped: &[],
        });
    }

    async fn tell_to_continue(&mut self, head: &RequestHead) -> io::Result<()> {
        if head.expects_continue && head.length != Length::None {
            self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        Ok(())
    }

    /// Writes the request anew on a connection of its own, and answers with what comes back.
    async fn forward(
        &mut self,
        head: &RequestHead,
        permitted: &Permitted,
        version: u32,
        mut body: Body,
    ) -> Result<Next, Stop> {
        let mut upstream = self.session.upstream.connect().await.map_err(Stop::of_upstream)?;
        let tunnel = permitted.route().answer == Answer::Tunnel && head.upgrade;
        let archive = matches!(permitted.route().body, BodyKind::Archive);
        let bytes = written(permitted, version, tunnel, archive);
        upstream.send(&bytes).await.map_err(Stop::of_upstream)?;
        if archive {
            self.tell_to_continue(head).await?;
            self.upload(&mut upstream, &mut body).await?;
        }
        let answer = tokio::select! {
            answer = answer_head(&mut upstream, permitted.method()) => answer.map_err(Stop::of_upstream)?,
            // A client that has gone waits for nothing; what it sends ahead stays in its buffer.
            () = gone(&mut self.wire), if !tunnel && !archive => return Ok(Next::Close),
        };
        match permitted.route().answer {
            _ if answer.status == 101 => {
                if !tunnel {
                    return Err(Stop::refused(502, "the engine opened a tunnel that nobody asked for"));
                }
                self.tunnel(upstream, &answer).await?;
                Ok(Next::Close)
            }
            Answer::Filtered if answer.status < 300 && answer.length != Length::None => {
                self.filtered(permitted, upstream, &answer).await
            }
            Answer::Events if answer.status == 200 => {
                self.events(upstream, &answer).await?;
                Ok(Next::Close)
            }
            _ => self.streamed(upstream, &answer, permitted.route().action == Action::Ping).await,
        }
    }

    async fn upload(&mut self, upstream: &mut Wire, body: &mut Body) -> Result<(), Stop> {
        let limit = self.session.policy.limits.upload.map_or(u64::MAX, |bytes| bytes.0.unsigned_abs());
        let mut sent = 0_u64;
        while let Some(piece) = body.next(&mut self.wire).await.map_err(Stop::of_body)? {
            sent += piece.len() as u64;
            if sent > limit {
                return Err(Stop::refused(413, "refused (limits.upload): the archive is too long"));
            }
            // An engine that has heard enough answers and closes: the answer is what counts.
            if upstream.send(&chunk(&piece)).await.is_err() {
                return Ok(());
            }
        }
        let _ = upstream.send(&chunk(b"")).await;
        Ok(())
    }

    async fn filtered(
        &mut self,
        permitted: &Permitted,
        mut upstream: Wire,
        answer: &ResponseHead,
    ) -> Result<Next, Stop> {
        let bytes =
            Body::new(answer.length).whole(&mut upstream, ANSWER_LIMIT).await.map_err(Stop::of_upstream)?;
        let bytes = if permitted.route().action == Action::Ping {
            bytes
        } else {
            let value: Value = serde_json::from_slice(&bytes)
                .map_err(|_| Stop::refused(502, "the engine's answer is not JSON"))?;
            self.remember(permitted, &value);
            answer::narrowed(&self.session, permitted, value).to_string().into_bytes()
        };
        let mut head = answer_lines(answer, permitted.route().action == Action::Ping);
        head.push_str(&format!("Content-Length: {}\r\n\r\n", bytes.len()));
        let mut whole = head.into_bytes();
        whole.extend_from_slice(&bytes);
        self.wire.send(&whole).await?;
        Ok(Next::Request)
    }

    /// Events of networks and volumes carry no labels: what the session makes is remembered.
    fn remember(&self, permitted: &Permitted, answer: &Value) {
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut seen = self.session.seen();
        match permitted.route().action {
            Action::CreateNetwork => seen.networks.extend(text("Id")),
            Action::CreateVolume => seen.volumes.extend(text("Name")),
            _ => {}
        }
    }

    /// Passes an answer on as it comes. One whose end is the connection's ends the client's connection too.
    async fn streamed(
        &mut self,
        mut upstream: Wire,
        answer: &ResponseHead,
        ping: bool,
    ) -> Result<Next, Stop> {
        let mut head = answer_lines(answer, ping);
        let chunked = answer.length == Length::Chunked;
        match answer.length {
            Length::None if answer.status == 204 || answer.status == 304 => {}
            Length::None => head.push_str("Content-Length: 0\r\n"),
            Length::Bytes(bytes) => head.push_str(&format!("Content-Length: {bytes}\r\n")),
            Length::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Length::UntilClose => head.push_str("Connection: close\r\n"),
        }
        head.push_str("\r\n");
        self.wire.send(head.as_bytes()).await?;
        let mut body = Body::new(answer.length);
        loop {
            let piece = tokio::select! {
                piece = body.next(&mut upstream) => piece?,
                () = gone(&mut self.wire) => return Ok(Next::Close),
            };
            let Some(piece) = piece else { break };
            if chunked { self.wire.send(&chunk(&piece)).await? } else { self.wire.send(&piece).await? }
        }
        if chunked {
            self.wire.send(&chunk(b"")).await?;
        }
        Ok(if answer.length == Length::UntilClose { Next::Close } else { Next::Request })
    }

    /// A stream of JSON objects, one a line, of which the session hears its own.
    async fn events(&mut self, mut upstream: Wire, answer: &ResponseHead) -> Result<(), Stop> {
        let head = format!("{}Transfer-Encoding: chunked\r\n\r\n", answer_lines(answer, false));
        self.wire.send(head.as_bytes()).await?;
        let mut body = Body::new(answer.length);
        let mut pending = Vec::new();
        loop {
            let piece = tokio::select! {
                piece = body.next(&mut upstream) => piece?,
                () = gone(&mut self.wire) => return Ok(()),
            };
            let Some(piece) = piece else { break };
            pending.extend_from_slice(&piece);
            if pending.len() > BODY_LIMIT {
                return Err(Stop::Io(io::ErrorKind::FileTooLarge.into()));
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let Ok(event) = serde_json::from_slice::<Value>(&line) else { continue };
                if answer::hears(&self.session, &event) {
                    self.wire.send(&chunk(format!("{event}\n").as_bytes())).await?;
                }
            }
        }
        self.wire.send(&chunk(b"")).await?;
        Ok(())
    }

    /// Joins client and engine. The engine's connection is this tunnel's alone, and ends with it.
    async fn tunnel(&mut self, mut upstream: Wire, answer: &ResponseHead) -> io::Result<()> {
        let kind = answer.header("content-type").unwrap_or("application/vnd.docker.raw-stream");
        let head = format!(
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        );
        self.wire.send(head.as_bytes()).await?;
        let (early, late) = (self.wire.take_early(), upstream.take_early());
        upstream.send(&early).await?;
        self.wire.send(&late).await?;
        tokio::io::copy_bidirectional(&mut self.wire.stream, &mut upstream.stream).await?;
        Ok(())
    }

    async fn refuse(&mut self, status: u16, text: &str, bodiless: bool) -> io::Result<()> {
        let body = message(text);
        let mut answer = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            reason(status),
            body.len()
        )
        .into_bytes();
        if !bodiless {
            answer.extend_from_slice(&body);
        }
        self.wire.send(&answer).await?;
        // Closing with unread input would reset the connection, and the client might lose the reason.
        let half = tokio::io::AsyncWriteExt::shutdown(&mut self.wire.stream).await;
        let drain = async {
            while self.wire.fill().await.unwrap_or(false) {
                self.wire.take_early();
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(500), drain).await;
        half
    }
}

/// Why a request is not answered by the engine.
enum Stop {
    Refused { status: u16, text: String },
    Io(io::Error),
}

impl Stop {
    fn refused(status: u16, text: impl Into<String>) -> Self {
        Self::Refused { status, text: text.into() }
    }

    fn of_body(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::FileTooLarge => Self::refused(413, "the body is too long"),
            io::ErrorKind::InvalidData => Self::refused(400, error.to_string()),
            _ => Self::Io(error),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
    fn of_upstream(error: io::Error) -> Self {
        Self::refused(502, format!("the gateway cannot reach the engine: {error}"))
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Completes when the client has closed. Bytes that it sends ahead are kept.
async fn gone(wire: &mut Wire) {
    loop {
        // A client that sends ahead without end waits for its answers like everybody.
        if wire.has_early() {
            return std::future::pending().await;
        }
        match wire.fill().await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

/// A form would be read as a query by Go; what is not JSON is not read at all.
fn check_content_type(head: &RequestHead, kind: BodyKind) -> Result<(), Stop> {
    let given = head.content_type.as_deref().map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let given = given.map(str::to_ascii_lowercase);
    let fits = match (kind, given.as_deref()) {
        (_, None) => true,
        (BodyKind::Json(_), Some(kind)) => kind == "application/json",
        (BodyKind::Archive, Some(kind)) => {
            matches!(
                kind,
                "application/x-tar" | "application/tar" | "application/octet-stream" | "text/plain"
            )
        }
        // Clients name a kind for a body that is not there.
        (BodyKind::None, Some(kind)) => matches!(kind, "application/json" | "text/plain" | "application/tar"),
    };
    if fits { Ok(()) } else { Err(Stop::refused(415, "a body of this Content-Type has no model here")) }
}

/// The request as the engine gets it.
fn written(permitted: &Permitted, version: u32, tunnel: bool, archive: bool) -> Vec<u8> {
    let mut head =
        format!("{} /v1.{version}{} HTTP/1.1\r\nHost: docker\r\n", permitted.method(), permitted.target());
    if tunnel {
        head.push_str("Connection: Upgrade\r\nUpgrade: tcp\r\n");
    } else {
        head.push_str("Connection: close\r\n");
    }
    if let Some(auth) = permitted.registry_auth() {
        head.push_str(&format!("X-Registry-Auth: {auth}\r\n"));
    }
    if archive {
        head.push_str("Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n");
    } else if let Some(body) = permitted.body() {
        head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    } else if permitted.method() == "POST" {
        head.push_str("Content-Length: 0\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(permitted.body().unwrap_or_default());
    bytes
}

/// The head of an answer, without its length and without the empty line.
fn answer_lines(answer: &ResponseHead, ping: bool) -> String {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    for (name, value) in answer.headers.iter().filter(|header| HEADERS.contains(&header.0.as_str())) {
        head.push_str(&format!("{}: {value}\r\n", titled(name)));
    }
    if ping {
        // BuildKit has no model here yet, and clients build with what the engine prefers.
        head.push_str("Builder-Version: 1\r\nCache-Control: no-cache\r\n");
    }
    head
}

/// As Go writes names: scripts grep for `Api-Version`.
fn titled(name: &str) -> String {
    let capital =
        |word: &str| word.get(..1).map(|first| first.to_ascii_uppercase() + &word[1..]).unwrap_or_default();
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}
