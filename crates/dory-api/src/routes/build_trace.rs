//! `POST /build?version=2`: BuildKit as docker 20.10 asks for it. The context comes by the session, the story by `aux`.
//!
//! ```text
//! {"id":"moby.buildkit.trace","aux":"<StatusResponse in base64>"}     again and again
//! {"stream":"sha256:…\n"}                                              at the end, where `q` asks for it
//! {"id":"moby.image.id","aux":{"ID":"sha256:…"}}                       at the end
//! {"errorDetail":{"message":"…"},"error":"…"}                          or this
//! ```
//!
//! A context that is piped in comes by a second request, whose `buildid` is that of the first behind `upload-request:`.
//! Docker Engine API 1.51, `ImageBuild`; moby's builder-next.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dory_buildkit::{BuildKit, Status, TracedBuild, TracedRequest};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Notify, mpsc, oneshot};

use super::body::{BodyReader, StreamEnd, json_line, streamed, upload};
use crate::error::ApiError;
use crate::query::Query;

/// Says that a context is piped in: as `remote`, and before the `buildid` of the request that brings it.
const UPLOAD: &str = "upload-request";
/// Says that the session has the context.
const SESSION: &str = "client-session";
/// How long the two requests of a piped context wait for one another; dockerd waits as long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines that may wait for a slow client.
const LINES: usize = 64;

/// BuildKit, and the uploads that builds wait for; clones share both.
#[derive(Debug, Clone)]
pub(crate) struct TracedBuilds {
    buildkit: BuildKit,
    uploads: Arc<Uploads>,
}

/// Uploads by the ids of their builds.
#[derive(Debug, Default)]
struct Uploads {
    waiting: Mutex<HashMap<String, Upload>>,
    arrived: Notify,
}

/// A piped context, and whom to tell that it was read.
struct Upload {
    reader: BodyReader,
    done: oneshot::Sender<()>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Upload").finish_non_exhaustive()
    }
}

/// The reader of an upload, whose end lets the request that brings it end too.
struct UploadReader {
    reader: BodyReader,
    _done: oneshot::Sender<()>,
}

impl Read for UploadReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upload of build `id`, which may be about to come.
    async fn take(&self, id: &str) -> Option<UploadReader> {
        let taken = tokio::time::timeout(PATIENCE, async {
            loop {
                let arrived = self.arrived.notified();
                tokio::pin!(arrived);
                arrived.as_mut().enable();
                if let Some(upload) = self.lock().remove(id) {
                    return UploadReader { reader: upload.reader, _done: upload.done };
                }
                arrived.await;
            }
        });
        taken.await.ok()
    }
}

impl TracedBuilds {
    /// Builds by `buildkit`.
    pub(crate) fn new(buildkit: BuildKit) -> Self {
        Self { buildkit, uploads: Arc::default() }
    }

    /// Answers what is for BuildKit among the requests to build, which have the classic builder's paths.
    pub(super) async fn intercept(self, request: Request, next: Next) -> Response {
        if request.method() != Method::POST {
            return next.run(request).await;
        }
        match request.uri().path() {
            "/build" => {
                let query = Query::parse(request.uri());
                if query.get("version") != Some("2") {
                    return next.run(request).await;
                }
                self.build(query, request.into_body()).await.unwrap_or_else(IntoResponse::into_response)
            }
            "/build/prune" => {
                let buildkit = self.buildkit;
                // What cannot be removed is told of in the log; the cache is pruned all the same.
                let _ = tokio::task::spawn_blocking(move || buildkit.forget_contexts()).await;
                next.run(request).await
            }
            "/build/cancel" if self.cancel(&Query::parse(request.uri())) => StatusCode::OK.into_response(),
            _ => next.run(request).await,
        }
    }

    /// Ends a build, where it is one of BuildKit's.
    fn cancel(&self, query: &Query) -> bool {
        self.buildkit.cancel(query.get("id").unwrap_or_default())
    }

    async fn build(self, query: Query, body: Body) -> Result<Response, ApiError> {
        let id = query.get("buildid").unwrap_or_default().to_owned();
        if let Some(id) = id.strip_prefix(UPLOAD).and_then(|id| id.strip_prefix(':')) {
            return self.take_upload(id, body).await;
        }
        let mut request = read(&query, &id)?;
        if query.get("remote") == Some(UPLOAD) {
            let missing = || ApiError::bad_request("the build context was not uploaded in time");
            let reader = self.uploads.take(&id).await.ok_or_else(missing)?;
            request.archive = Some(Box::new(reader));
        }
        let build = self.buildkit.solve(request).map_err(|status| api_error(&status))?;
        let (sender, mut lines) = mpsc::channel(LINES);
        tokio::spawn(tell(build, query.boolean("q"), sender));
        let lines = futures_util::stream::poll_fn(move |context| lines.poll_recv(context));
        // A build ends with its client.
        Ok(streamed("application/json", StreamEnd::Client, lines))
    }

    /// Keeps an upload until its build has read it.
    async fn take_upload(self, id: &str, body: Body) -> Result<Response, ApiError> {
        let (done, read) = oneshot::channel();
        upload(body, async |reader| {
            self.uploads.lock().insert(id.to_owned(), Upload { reader, done });
            self.uploads.arrived.notify_waiters();
            // An error is the reader's end.
            let _ = read.await;
            self.uploads.lock().remove(id);
        })
        .await;
        Ok(StatusCode::OK.into_response())
    }
}

fn api_error(status: &Status) -> ApiError {
    match status.code() {
        dory_buildkit::Code::AlreadyExists => ApiError::new(StatusCode::CONFLICT, status.message()),
        dory_buildkit::Code::Unimplemented => ApiError::new(StatusCode::NOT_IMPLEMENTED, status.message()),
        _ => ApiError::bad_request(status.message()),
    }
}

/// Tells the story and then the result, until the client has gone. Who asks for quiet (`q`) prints the text that streams and
/// nothing else, so the image's id comes that way too.
async fn tell(build: TracedBuild, quiet: bool, lines: mpsc::Sender<Bytes>) {
    let TracedBuild { mut follower, result } = build;
    let story = async {
        while let Some(message) = follower.next_encoded().await {
            let line = json_line(&json!({"id": "moby.buildkit.trace", "aux": STANDARD.encode(message)}));
            if lines.send(line).await.is_err() {
                return;
            }
        }
    };
    let (result, ()) = tokio::select! {
        both = async { tokio::join!(result, story) } => both,
        () = lines.closed() => return,
    };
    let line = match result {
        Ok(response) => match response.get("containerimage.config.digest") {
            Some(id) => {
                if quiet && lines.send(json_line(&json!({"stream": format!("{id}\n")}))).await.is_err() {
                    return;
                }
                json!({"id": "moby.image.id", "aux": {"ID": id}})
            }
            None => return,
        },
        Err(status) => json!({"errorDetail": {"message": status.message()}, "error": status.message()}),
    };
    // Whoever has gone does not want to know.
    let _ = lines.send(json_line(&line)).await;
}

/// API 1.51, `ImageBuild`: `outputs`.
#[derive(Debug, Deserialize)]
struct BuildOutput {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attributes: Option<HashMap<String, String>>,
}

/// API 1.51, `ImageBuild`: `ulimits`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ulimit {
    name: String,
    #[serde(default)]
    soft: i64,
    #[serde(default)]
    hard: i64,
}

fn json_parameter<T: for<'a> Deserialize<'a>>(query: &Query, name: &str) -> Result<Option<T>, ApiError> {
    let Some(text) = query.text(name).filter(|text| *text != "null") else { return Ok(None) };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| ApiError::bad_request(format!("invalid {name}: {error}")))
}

/// The parameters as BuildKit's attributes and exporters: what moby's builder-next makes of them.
fn read(query: &Query, id: &str) -> Result<TracedRequest, ApiError> {
    let mut attributes = HashMap::new();
    let mut set = |name: &str, value: String| attributes.insert(name.to_owned(), value);
    for (parameter, attribute) in [
        ("dockerfile", "filename"),
        ("target", "target"),
        ("platform", "platform"),
        ("shmsize", "shm-size"),
        ("cgroupparent", "cgroup-parent"),
        ("memory", "memory"),
        ("memswap", "memswap"),
        ("cpushares", "cpushares"),
        ("cpuperiod", "cpuperiod"),
        ("cpuquota", "cpuquota"),
        ("cpusetcpus", "cpusetcpus"),
        ("cpusetmems", "cpusetmems"),
    ] {
        if let Some(value) = query.text(parameter).filter(|value| *value != "0") {
            set(attribute, value.to_owned());
        }
    }
    match query.text("networkmode") {
        None | Some("default") => {}
        Some(mode) => drop(set("force-network-mode", mode.to_owned())),
    }
    match query.text("remote") {
        None | Some(SESSION | UPLOAD) => {}
        Some(address) => drop(set("context", address.to_owned())),
    }
    if query.boolean("nocache") {
        set("no-cache", String::new());
    }
    if query.boolean("pull") {
        set("image-resolve-mode", "pull".to_owned());
    }
    let arguments: Option<HashMap<String, Option<String>>> = json_parameter(query, "buildargs")?;
    for (name, value) in arguments.into_iter().flatten() {
        if let Some(value) = value {
            set(&format!("build-arg:{name}"), value);
        }
    }
    let labels: Option<HashMap<String, String>> = json_parameter(query, "labels")?;
    for (name, value) in labels.into_iter().flatten() {
        set(&format!("label:{name}"), value);
    }
    let hosts: Vec<_> = query.all("extrahosts").map(|host| host.replacen(':', "=", 1)).collect();
    if !hosts.is_empty() {
        set("add-hosts", hosts.join(","));
    }
    let sources: Option<Vec<String>> = json_parameter(query, "cachefrom")?;
    if let Some(sources) = sources.filter(|sources| !sources.is_empty()) {
        set("cache-from", sources.join(","));
    }
    let limits: Option<Vec<Ulimit>> = json_parameter(query, "ulimits")?;
    if let Some(limits) = limits.filter(|limits| !limits.is_empty()) {
        let limits: Vec<_> =
            limits.iter().map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard)).collect();
        set("ulimit", limits.join(","));
    }
    Ok(TracedRequest {
        reference: id.to_owned(),
        session: query.get("session").unwrap_or_default().to_owned(),
        attributes,
        exporters: exporters(query)?,
        archive: None,
    })
}

/// The kind of an output and its attributes.
type Exporter = (String, HashMap<String, String>);

/// Without outputs of its own a build makes an image of the engine's.
fn exporters(query: &Query) -> Result<Vec<Exporter>, ApiError> {
    let outputs: Option<Vec<BuildOutput>> = json_parameter(query, "outputs")?;
    let mut exporters: Vec<_> = outputs
        .into_iter()
        .flatten()
        .map(|output| (output.kind, output.attributes.unwrap_or_default()))
        .collect();
    if exporters.is_empty() {
        exporters.push(("moby".to_owned(), HashMap::new()));
    }
    let names = query.all("t").filter(|name| !name.is_empty()).collect::<Vec<_>>().join(",");
    for (kind, attributes) in &mut exporters {
        if kind == "moby" && !names.is_empty() {
            attributes.entry("name".to_owned()).or_insert_with(|| names.clone());
        }
    }
    Ok(exporters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_query(text: &str) -> Result<TracedRequest, ApiError> {
        read(&Query::parse(&format!("/build?{text}").parse().unwrap()), "id")
    }

    #[test]
    fn parameters_become_attributes() {
        let request = read_query(
            "version=2&session=s&remote=client-session&dockerfile=D&t=a%3A1&t=b&nocache=1&pull=1&target=x&networkmode=none&\
             buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D&labels=%7B%22l%22%3A%22v%22%7D&extrahosts=h%3A%3A%3A1&\
             cachefrom=%5B%22c%22%5D&ulimits=%5B%7B%22Name%22%3A%22nofile%22%2C%22Soft%22%3A1%2C%22Hard%22%3A2%7D%5D&shmsize=0",
        )
        .unwrap();
        let mut pairs: Vec<_> =
            request.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.sort();
        assert_eq!(
            pairs,
            [
                "add-hosts=h=::1",
                "build-arg:A=1",
                "cache-from=c",
                "filename=D",
                "force-network-mode=none",
                "image-resolve-mode=pull",
                "label:l=v",
                "no-cache=",
                "target=x",
                "ulimit=nofile=1:2",
            ]
        );
        assert_eq!(request.exporters[0].0, "moby");
        assert_eq!(request.exporters[0].1["name"], "a:1,b");
    }

    #[test]
    fn outputs_of_the_client_count() {
        let request =
            read_query("outputs=%5B%7B%22Type%22%3A%22local%22%2C%22Attrs%22%3A%7B%7D%7D%5D&t=a").unwrap();
        assert_eq!(request.exporters, [("local".to_owned(), HashMap::new())]);
        assert!(read_query("outputs=%7B").is_err() && read_query("buildargs=x").is_err());
    }
}
