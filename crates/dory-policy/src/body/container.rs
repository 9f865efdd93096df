//! `POST /containers/create`: `ContainerConfig` of API 1.51. What concerns the host is in [`super::host`].

use serde_json::{Map, Value};

use super::{field, host, labels, mark, network};
use crate::facts::{IMAGE_LABEL, Kind};
use crate::judge::{self, Judgement, dropped, free};
use crate::pattern;
use crate::shape::Field;
use crate::shape::Shape::{Bool, Int, Object, Set, Text, TextMap, Texts, Words};

/// API 1.51, `HealthConfig`.
static HEALTH: &[Field] = &[
    field("Test", Texts, free),
    field("Interval", Int, free),
    field("Timeout", Int, free),
    field("Retries", Int, free),
    field("StartPeriod", Int, free),
    field("StartInterval", Int, free),
];

/// API 1.51, the body of ContainerCreate.
pub(crate) static CREATE: &[Field] = &[
    field("Hostname", Text, free),
    field("Domainname", Text, free),
    field("User", Text, user),
    field("AttachStdin", Bool, free),
    field("AttachStdout", Bool, free),
    field("AttachStderr", Bool, free),
    field("ExposedPorts", Set, free),
    field("Tty", Bool, free),
    field("OpenStdin", Bool, free),
    field("StdinOnce", Bool, free),
    field("Env", Texts, free),
    field("Cmd", Words, free),
    field("Healthcheck", Object(HEALTH), free),
    field("ArgsEscaped", Bool, dropped),
    field("Image", Text, free),
    field("Volumes", Set, free),
    field("WorkingDir", Text, working_directory),
    field("Entrypoint", Words, free),
    field("NetworkDisabled", Bool, free),
    field("MacAddress", Text, free),
    // Commands for whoever builds on an image of this container; nothing that runs a container reads them.
    field("OnBuild", Texts, dropped),
    field("Labels", TextMap, labels),
    field("StopSignal", Text, free),
    field("StopTimeout", Int, free),
    field("Shell", Texts, free),
    field("HostConfig", Object(host::HOST), free),
    field("NetworkingConfig", Object(network::NETWORKING), free),
];

/// What `docker commit` says of the new image. Its owner is the container's, for it takes over the container's labels.
pub(crate) static COMMIT: &[Field] = &[
    field("Hostname", Text, dropped),
    field("User", Text, free),
    field("ExposedPorts", Set, free),
    field("Env", Texts, free),
    field("Cmd", Words, free),
    field("Healthcheck", Object(HEALTH), free),
    field("Volumes", Set, free),
    field("WorkingDir", Text, working_directory),
    field("Entrypoint", Words, free),
    field("OnBuild", Texts, free),
    field("Labels", TextMap, labels),
    field("StopSignal", Text, free),
    field("Shell", Texts, free),
];

/// Users that may be named, of containers and of exec.
pub(crate) fn user(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let user = judge::text(value);
    if user.is_empty() {
        return None;
    }
    if let Some(users) = &judgement.policy.containers.users
        && !pattern::any(users, &user)
    {
        judgement.refuse("containers.users", format!("the user {user:?} is not on the list"));
    }
    Some(user.into())
}

/// A directory to start in. Descriptors that a runtime has open at that moment would lead out (CVE-2024-21626).
pub(crate) fn working_directory(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let path = judge::text(value);
    let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    if parts.next() == Some("proc") || path.split('/').any(|part| part == "..") {
        judgement.refuse("model", format!("the working directory {path:?} may lead out of the container"));
    }
    Some(path.into())
}

/// What concerns the container as a whole: its image, its owner, and the limits of those that name none.
pub(crate) fn finish(judgement: &mut Judgement<'_>, body: &mut Map<String, Value>) {
    let limit = judgement.policy.limits.containers;
    judgement.quota(Kind::Container, limit, "limits.containers");
    let image = judge::field(body, "Image").to_owned();
    if image.is_empty() {
        return judgement.answer(400, "model", "no image is named".to_owned());
    }
    if let Some(users) = &judgement.policy.containers.users
        && judge::field(body, "User").is_empty()
        && !pattern::any(users, "")
    {
        judgement.refuse("containers.users", "a user has to be named, the image's own is not on the list");
    }
    if let Some(id) = judgement.visible(Kind::Image, &image) {
        body.insert("Image".to_owned(), id.into());
    }
    mark(judgement, body, &[(IMAGE_LABEL, &image)]);
    let host = body.entry("HostConfig").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(host) = host {
        host::finish(judgement, host);
    }
}
