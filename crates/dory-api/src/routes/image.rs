//! `/images`. A name may contain slashes, so that everything below `/images/` is one route per method, and the word
//! after the last slash says what is wanted.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dory_engine::config::ContainerConfig;
use dory_engine::{
    Engine, ImageDeletion, ImageDetails, ImageSummary, ImportOptions, LoadOptions, ProgressStream,
    PrunedImages, PullImage, PushImage,
};
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use super::body::{StreamEnd, download, incoming, json_line, streamed, upload};
use super::registry_auth;
use crate::ApiVersion;
use crate::error::ApiError;
use crate::json::Json;
use crate::query::Query;

/// The routes.
pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        .route("/images/get", get(save))
        .route("/images/prune", post(prune))
        .route("/images/{*path}", get(read).post(write).delete(remove))
}

/// An image in an answer to a client before API 1.44, which reads `VirtualSize`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WithVirtualSize<T> {
    #[serde(flatten)]
    image: T,
    virtual_size: i64,
}

/// One image of a list, as the client's version has it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Summary {
    Current(ImageSummary),
    Sized(WithVirtualSize<ImageSummary>),
}

/// Lists as `version` has it.
pub(super) fn summaries(mut images: Vec<ImageSummary>, version: ApiVersion) -> Vec<Summary> {
    if version.before(43) {
        for image in
            images.iter_mut().filter(|image| image.repo_tags.is_empty() && image.repo_digests.is_empty())
        {
            image.repo_tags.push("<none>:<none>".to_owned());
            image.repo_digests.push("<none>@<none>".to_owned());
        }
    }
    let shown = |image: ImageSummary| match version.at_least(44) {
        true => Summary::Current(image),
        false => Summary::Sized(WithVirtualSize { virtual_size: image.size, image }),
    };
    images.into_iter().map(shown).collect()
}

async fn list(
    State(engine): State<Engine>,
    version: ApiVersion,
    query: Query,
) -> Result<Json<Vec<Summary>>, ApiError> {
    let mut filters = query.filters()?;
    // What `docker images NAME` sent before API 1.41.
    if let Some(name) = query.text("filter").filter(|_| version.before(41)) {
        filters.add("reference", name);
    }
    let shared_size = version.at_least(42) && query.boolean("shared-size");
    let images = engine.list_images(&filters, query.boolean("all"), shared_size).await?;
    Ok(Json(summaries(images, version)))
}

/// `GET /images/get?names=…`. `names` comes once for each image; older clients put commas between them.
async fn save(State(engine): State<Engine>, query: Query) -> Result<Response, ApiError> {
    let names = query.all("names").flat_map(|names| names.split(',')).filter(|name| !name.is_empty());
    save_images(engine, names.map(str::to_owned).collect(), &query).await
}

async fn save_images(engine: Engine, names: Vec<String>, query: &Query) -> Result<Response, ApiError> {
    let plan = engine.plan_save(names, query.get("platform").unwrap_or_default()).await?;
    Ok(download(|sink| async move { engine.save_images(plan, sink).await }))
}

/// `GET /images/{name}/json`, `/history` and `/get`.
async fn read(
    State(engine): State<Engine>,
    version: ApiVersion,
    Path(path): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    match path.rsplit_once('/') {
        Some((name, "json")) => {
            Ok(Json(details(engine.inspect_image(name).await?, version)?).into_response())
        }
        Some((name, "history")) => Ok(Json(engine.image_history(name).await?).into_response()),
        Some((name, "get")) => save_images(engine, vec![name.to_owned()], &query).await,
        _ => Err(ApiError::page_not_found()),
    }
}

/// An image as the client's version has it: before API 1.45 with what the classic builder left, before 1.50 with every
/// field of a container's configuration, and since then with those that are set.
fn details(image: ImageDetails, version: ApiVersion) -> Result<Value, ApiError> {
    let failed =
        |error: serde_json::Error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let size = image.size;
    let mut shown = serde_json::to_value(image).map_err(failed)?;
    if let Some(config) = shown["Config"].as_object_mut() {
        adapt_config(config, version);
    }
    if version.before(45) {
        shown["Container"] = "".into();
        shown["ContainerConfig"] = serde_json::to_value(ContainerConfig::default()).map_err(failed)?;
        shown["ContainerConfig"]["Labels"] = Value::Null;
    }
    if version.before(44) {
        shown["VirtualSize"] = size.into();
    }
    Ok(shown)
}

/// Leaves out what is not set, or shows it as older versions did.
fn adapt_config(config: &mut Map<String, Value>, version: ApiVersion) {
    let unset = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    };
    if version.at_least(50) {
        config.retain(|_, value| !unset(value));
    } else if config.get("Labels").is_some_and(unset) {
        config.insert("Labels".to_owned(), Value::Null);
    }
}

/// `POST /images/{name}/tag` and `/push`.
async fn write(
    State(engine): State<Engine>,
    Path(path): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match path.rsplit_once('/') {
        Some((name, "tag")) => {
            let (repository, tag) =
                (query.get("repo").unwrap_or_default(), query.get("tag").unwrap_or_default());
            engine.tag_image(name, repository, tag).await?;
            Ok(StatusCode::CREATED.into_response())
        }
        Some((name, "push")) => {
            let tag = query.get("tag").unwrap_or_default().to_owned();
            let credentials = registry_auth::credentials(&headers)?;
            let request = PushImage { image: name.to_owned(), tag, credentials };
            Ok(told(engine.push_image(request).await?))
        }
        _ => Err(ApiError::page_not_found()),
    }
}

/// `DELETE /images/{name}`.
async fn remove(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Json<Vec<ImageDeletion>>, ApiError> {
    Ok(Json(engine.remove_image(&name, query.boolean("force"), query.boolean("noprune")).await?))
}

async fn prune(State(engine): State<Engine>, query: Query) -> Result<Json<PrunedImages>, ApiError> {
    Ok(Json(engine.prune_images(&query.filters()?).await?))
}

/// The line that import prints.
#[derive(Debug, Serialize)]
struct StatusLine {
    status: String,
}

fn progress(lines: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], lines).into_response()
}

/// `POST /images/load`. As with dockerd, the status is 200 whatever the archive is, and an error the answer's last line:
/// that is where docker-py looks for it. What is told of layers goes out while the archive still comes.
async fn load(State(engine): State<Engine>, query: Query, body: Body) -> Result<Response, ApiError> {
    let platform = query.get("platform").unwrap_or_default().to_owned();
    let options = LoadOptions { platform, quiet: query.boolean("quiet") };
    let messages = engine.load_images(incoming(body), &options)?;
    Ok(streamed("application/json", StreamEnd::Own, messages.map(|message| json_line(&message))))
}

/// `POST /images/create`: pull (`fromImage`) or import (`fromSrc`).
async fn create(
    State(engine): State<Engine>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if let Some(image) = query.text("fromImage") {
        return pull(&engine, image, &query, &headers).await;
    }
    match query.get("fromSrc") {
        Some("-") => {}
        Some(address) => return Ok(told(engine.import_image_from(address, import_options(&query)).await?)),
        None => return Err(ApiError::bad_request("one of `fromImage` and `fromSrc` is needed")),
    }
    let options = import_options(&query);
    let id = upload(body, |archive| engine.import_image(archive, options)).await?;
    Ok(progress(json_line(&StatusLine { status: id }).into()))
}

fn import_options(query: &Query) -> ImportOptions {
    let text = |name| query.get(name).unwrap_or_default().to_owned();
    ImportOptions {
        repository: text("repo"),
        tag: text("tag"),
        message: text("message"),
        changes: query.all("changes").map(str::to_owned).collect(),
        platform: text("platform"),
    }
}

async fn pull(
    engine: &Engine,
    image: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let text = |name| query.get(name).unwrap_or_default().to_owned();
    // As dockerd: whoever cannot say who he is may still pull what everybody may.
    let credentials = registry_auth::credentials(headers).unwrap_or_default();
    let request =
        PullImage { image: image.to_owned(), tag: text("tag"), platform: text("platform"), credentials };
    Ok(told(engine.pull_image(request).await?))
}

/// The messages of long work, one a line. The work ends with its reader.
fn told(messages: ProgressStream) -> Response {
    let lines = StreamExt::map(messages, |message| json_line(&message));
    streamed("application/json", StreamEnd::Client, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> serde_json::Value {
        let image = ImageSummary {
            id: "sha256:aa".to_owned(),
            parent_id: String::new(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            created: 1,
            size: 5,
            shared_size: -1,
            labels: None,
            containers: -1,
        };
        let version = crate::version::negotiate(path).unwrap().0;
        serde_json::to_value(summaries(vec![image], version)).unwrap()
    }

    #[test]
    fn shows_the_configuration_as_each_version_has_it() {
        let adapted = |path: &str| {
            let mut config = serde_json::to_value(ContainerConfig::default()).unwrap();
            config["Env"] = serde_json::json!(["A=b"]);
            adapt_config(config.as_object_mut().unwrap(), crate::version::negotiate(path).unwrap().0);
            config
        };
        assert_eq!(adapted("/v1.50/x"), serde_json::json!({"Env": ["A=b"]}));
        let old = adapted("/v1.49/x");
        assert_eq!((&old["Hostname"], &old["Labels"]), (&Value::from(""), &Value::Null));
    }

    #[test]
    fn lists_images_as_each_version_has_them() {
        let newest = shown("/images/json");
        assert_eq!(
            newest,
            serde_json::json!([{
                "Id": "sha256:aa", "ParentId": "", "RepoTags": [], "RepoDigests": [], "Created": 1, "Size": 5,
                "SharedSize": -1, "Labels": null, "Containers": -1,
            }])
        );
        let old = shown("/v1.41/images/json");
        assert_eq!(old[0]["VirtualSize"], 5);
        assert_eq!(old[0]["RepoTags"], serde_json::json!(["<none>:<none>"]));
        assert_eq!(shown("/v1.43/images/json")[0]["RepoTags"], serde_json::json!([]));
    }
}
