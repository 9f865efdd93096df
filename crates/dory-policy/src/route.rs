//! Every request that has a model; there is no other.
//!
//! A path is split at its slashes first and each part is decoded once, so an encoded slash never makes a route. A name
//! takes one part, an image's name as many as there are.

use crate::body::{container, exec, field, network, resource, volume};
use crate::facts::Kind;
use crate::judge::{Judgement, free, never};
use crate::policy::Group;
use crate::query;
use crate::shape::Field;
use crate::shape::Shape::{Bool, Int, Text, Texts};

/// What the request is about, for what one judge alone cannot see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing beyond its fields.
    Plain,
    /// `GET /_ping`.
    Ping,
    /// `GET /events`.
    Events,
    /// Make a container.
    CreateContainer,
    /// Make a network.
    CreateNetwork,
    /// Make a volume.
    CreateVolume,
    /// Pull an image.
    Pull,
    /// Push an image.
    Push,
    /// Name an image.
    Tag,
    /// Make an image of a container.
    Commit,
    /// Make an image of a Dockerfile.
    Build,
    /// A list, which is narrowed to what the session may see.
    List,
    /// Remove what is not used, of the session's own.
    Prune,
}

/// What stands in a path.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// This word.
    Word(&'static str),
    /// A name of a thing that must be the session's own.
    Own(Kind),
    /// A name of a thing that the session may look at.
    Visible(Kind),
}

/// What comes behind the head.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// Nothing.
    None,
    /// JSON of these fields.
    Json(&'static [Field]),
    /// An archive that is passed on in pieces.
    Archive,
}

/// What is done with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Passed on as it comes.
    Stream,
    /// Read as a whole, and filtered.
    Filtered,
    /// A stream of objects, filtered one by one.
    Events,
    /// May become a tunnel, where the other side agrees.
    Tunnel,
}

/// One request with a model.
#[derive(Debug)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    pub(crate) path: &'static [Part],
    /// The group that a policy allows it by.
    pub group: Group,
    /// What it is about.
    pub action: Action,
    pub(crate) query: &'static [Field],
    /// Its body.
    pub body: Body,
    /// Its answer.
    pub answer: Answer,
}

macro_rules! routes {
    ($($method:literal [$($part:expr),*] $group:ident $action:ident [$($query:expr),* $(,)?] $body:expr => $answer:ident;)*) => {
        &[$(Route {
            method: $method,
            path: &[$($part),*],
            group: Group::$group,
            action: Action::$action,
            query: { static QUERY: &[Field] = &[$($query),*]; QUERY },
            body: $body,
            answer: Answer::$answer,
        }),*]
    };
}

const fn word(word: &'static str) -> Part {
    Part::Word(word)
}
const CONTAINER: Part = Part::Own(Kind::Container);
/// What a session has not made it may look at where it is the container that the session belongs to.
const SEEN: Part = Part::Visible(Kind::Container);
const EXEC: Part = Part::Own(Kind::Exec);
const IMAGE: Part = Part::Visible(Kind::Image);
const OWN_IMAGE: Part = Part::Own(Kind::Image);
const NETWORK: Part = Part::Visible(Kind::Network);
const OWN_NETWORK: Part = Part::Own(Kind::Network);
const VOLUME: Part = Part::Visible(Kind::Volume);
const OWN_VOLUME: Part = Part::Own(Kind::Volume);
const FILTERS: Field = field("filters", Text, query::filters);

const fn flag(name: &'static str) -> Field {
    field(name, Bool, free)
}
const fn number(name: &'static str) -> Field {
    field(name, Int, free)
}
const fn text(name: &'static str) -> Field {
    field(name, Text, free)
}
const fn refused(name: &'static str) -> Field {
    field(name, Text, never)
}

/// All of them, the more particular ones first.
pub(crate) static ROUTES: &[Route] = routes! {
    "GET" [word("_ping")] System Ping [] Body::None => Filtered;
    "HEAD" [word("_ping")] System Ping [] Body::None => Filtered;
    "GET" [word("version")] System Plain [] Body::None => Stream;
    "GET" [word("info")] System Plain [] Body::None => Filtered;
    "GET" [word("events")] System Events [text("since"), text("until"), FILTERS] Body::None => Events;

    "GET" [word("containers"), word("json")] ContainersRead List
        [flag("all"), number("limit"), flag("size"), FILTERS] Body::None => Filtered;
    "GET" [word("containers"), SEEN, word("json")] ContainersRead Plain [flag("size")] Body::None => Filtered;
    "GET" [word("containers"), SEEN, word("top")] ContainersRead Plain [text("ps_args")] Body::None => Stream;
    "GET" [word("containers"), SEEN, word("logs")] ContainersRead Plain
        [flag("follow"), flag("stdout"), flag("stderr"), text("since"), text("until"), flag("timestamps"), text("tail"),
            flag("details")] Body::None => Stream;
    "GET" [word("containers"), SEEN, word("changes")] ContainersRead Plain [] Body::None => Stream;
    "GET" [word("containers"), SEEN, word("stats")] ContainersRead Plain
        [flag("stream"), flag("one-shot")] Body::None => Stream;
    "POST" [word("containers"), SEEN, word("wait")] ContainersRead Plain [text("condition")] Body::None => Stream;
    "GET" [word("containers"), SEEN, word("export")] FilesRead Plain [] Body::None => Stream;
    "GET" [word("containers"), SEEN, word("archive")] FilesRead Plain [text("path")] Body::None => Stream;
    "HEAD" [word("containers"), SEEN, word("archive")] FilesRead Plain [text("path")] Body::None => Stream;
    "PUT" [word("containers"), CONTAINER, word("archive")] FilesWrite Plain
        [text("path"), flag("noOverwriteDirNonDir"), flag("copyUIDGID")] Body::Archive => Stream;

    "POST" [word("containers"), word("create")] ContainersWrite CreateContainer
        [text("name"), text("platform")] Body::Json(container::CREATE) => Filtered;
    "POST" [word("containers"), word("prune")] ContainersWrite Prune [FILTERS] Body::None => Stream;
    "POST" [word("containers"), CONTAINER, word("start")] ContainersWrite Plain
        [text("detachKeys"), refused("checkpoint"), refused("checkpoint-dir")] Body::None => Stream;
    "POST" [word("containers"), CONTAINER, word("stop")] ContainersWrite Plain
        [number("t"), text("signal")] Body::None => Stream;
    "POST" [word("containers"), CONTAINER, word("restart")] ContainersWrite Plain
        [number("t"), text("signal")] Body::None => Stream;
    "POST" [word("containers"), CONTAINER, word("kill")] ContainersWrite Plain [text("signal")] Body::None => Stream;
    "POST" [word("containers"), CONTAINER, word("update")] ContainersWrite Plain []
        Body::Json(resource::UPDATE) => Filtered;
    "POST" [word("containers"), CONTAINER, word("rename")] ContainersWrite Plain [text("name")] Body::None => Stream;
    "POST" [word("containers"), CONTAINER, word("pause")] ContainersWrite Plain [] Body::None => Stream;
    "POST" [word("containers"), CONTAINER, word("unpause")] ContainersWrite Plain [] Body::None => Stream;
    "POST" [word("containers"), CONTAINER, word("resize")] ContainersWrite Plain
        [number("h"), number("w")] Body::None => Stream;
    "DELETE" [word("containers"), CONTAINER] ContainersWrite Plain
        [flag("v"), flag("force"), flag("link")] Body::None => Stream;
    "POST" [word("containers"), CONTAINER, word("attach")] Attach Plain
        [text("detachKeys"), flag("logs"), flag("stream"), flag("stdin"), flag("stdout"), flag("stderr")]
        Body::None => Tunnel;
    "POST" [word("containers"), CONTAINER, word("exec")] Exec Plain [] Body::Json(exec::CREATE) => Stream;
    "POST" [word("exec"), EXEC, word("start")] Exec Plain [] Body::Json(exec::START) => Tunnel;
    "POST" [word("exec"), EXEC, word("resize")] Exec Plain [number("h"), number("w")] Body::None => Stream;
    "GET" [word("exec"), EXEC, word("json")] Exec Plain [] Body::None => Stream;
    "POST" [word("commit")] ImagesWrite Commit
        [field("container", Text, query::container), text("repo"), text("tag"), text("comment"), text("author"),
            flag("pause"), field("changes", Texts, query::changes)] Body::Json(container::COMMIT) => Stream;

    "GET" [word("images"), word("json")] ImagesRead List
        [flag("all"), flag("digests"), flag("shared-size"), FILTERS] Body::None => Filtered;
    "POST" [word("images"), word("create")] ImagesPull Pull
        [text("fromImage"), refused("fromSrc"), refused("repo"), text("tag"), text("platform"), refused("message"),
            field("changes", Texts, never)] Body::None => Stream;
    "POST" [word("images"), word("prune")] ImagesWrite Prune [FILTERS] Body::None => Stream;
    "GET" [word("images"), IMAGE, word("json")] ImagesRead Plain [] Body::None => Stream;
    "GET" [word("images"), IMAGE, word("history")] ImagesRead Plain [] Body::None => Stream;
    "POST" [word("images"), OWN_IMAGE, word("tag")] ImagesWrite Tag [text("repo"), text("tag")] Body::None => Stream;
    "POST" [word("images"), Part::Own(Kind::Image), word("push")] ImagesPush Push [text("tag")] Body::None => Stream;
    "DELETE" [word("images"), OWN_IMAGE] ImagesWrite Plain [flag("force"), flag("noprune")] Body::None => Stream;

    "POST" [word("build")] Build Build
        [text("dockerfile"), field("t", Texts, query::tags), refused("extrahosts"), refused("remote"), flag("q"),
            flag("nocache"), field("cachefrom", Text, query::nothing), text("pull"), flag("rm"), flag("forcerm"),
            field("memory", Int, resource::memory), field("memswap", Int, resource::swap), number("cpushares"),
            text("cpusetcpus"), text("cpusetmems"), field("cpuperiod", Int, resource::quota),
            field("cpuquota", Int, resource::quota), text("buildargs"), number("shmsize"), flag("squash"),
            field("labels", Text, query::labels), field("networkmode", Text, query::build_network),
            refused("cgroupparent"), field("ulimits", Text, free), text("platform"), text("target"), refused("outputs"),
            field("version", Text, query::builder), refused("session")] Body::Archive => Stream;

    "GET" [word("networks")] NetworksRead List [FILTERS] Body::None => Filtered;
    "POST" [word("networks"), word("create")] NetworksWrite CreateNetwork [] Body::Json(network::CREATE) => Filtered;
    "POST" [word("networks"), word("prune")] NetworksWrite Prune [FILTERS] Body::None => Stream;
    "GET" [word("networks"), NETWORK] NetworksRead Plain [flag("verbose"), text("scope")] Body::None => Filtered;
    "POST" [word("networks"), OWN_NETWORK, word("connect")] NetworksWrite Plain []
        Body::Json(network::CONNECT) => Stream;
    "POST" [word("networks"), OWN_NETWORK, word("disconnect")] NetworksWrite Plain []
        Body::Json(network::DISCONNECT) => Stream;
    "DELETE" [word("networks"), OWN_NETWORK] NetworksWrite Plain [] Body::None => Stream;

    "GET" [word("volumes")] VolumesRead List [FILTERS] Body::None => Filtered;
    "POST" [word("volumes"), word("create")] VolumesWrite CreateVolume [] Body::Json(volume::CREATE) => Filtered;
    "POST" [word("volumes"), word("prune")] VolumesWrite Prune [FILTERS] Body::None => Stream;
    "GET" [word("volumes"), VOLUME] VolumesRead Plain [] Body::None => Stream;
    "DELETE" [word("volumes"), OWN_VOLUME] VolumesWrite Plain [flag("force")] Body::None => Stream;
};

/// Finds the route of a path whose parts are decoded; with it the name that stands in the path.
pub(crate) fn find(method: &str, parts: &[String]) -> Option<(&'static Route, Option<String>)> {
    ROUTES
        .iter()
        .filter(|route| route.method == method)
        .find_map(|route| Some((route, fits(route.path, parts)?)))
}

fn fits(pattern: &[Part], parts: &[String]) -> Option<Option<String>> {
    let Some(at) = pattern.iter().position(|part| !matches!(part, Part::Word(_))) else {
        return (pattern.len() == parts.len() && words(pattern, parts)).then_some(None);
    };
    let behind = pattern.len() - at - 1;
    let end = parts.len().checked_sub(behind).filter(|end| *end > at)?;
    let image = matches!(pattern[at], Part::Own(Kind::Image) | Part::Visible(Kind::Image));
    let fits = (image || end == at + 1)
        && words(&pattern[..at], &parts[..at])
        && words(&pattern[at + 1..], &parts[end..]);
    fits.then(|| Some(parts[at..end].join("/")))
}

fn words(pattern: &[Part], parts: &[String]) -> bool {
    pattern.iter().zip(parts).all(|(pattern, part)| matches!(pattern, Part::Word(word) if word == part))
}

impl Route {
    /// The path with `id` where a name stands.
    pub(crate) fn path(&self, id: &str) -> String {
        let part = |part: &Part| match part {
            Part::Word(word) => format!("/{word}"),
            _ => format!("/{id}"),
        };
        self.path.iter().map(part).collect()
    }

    /// Judges the name in the path: the id to send on.
    pub(crate) fn target(&self, judgement: &mut Judgement<'_>, name: &str) -> Option<String> {
        self.path.iter().find_map(|part| match part {
            Part::Word(_) => None,
            Part::Own(kind) => Some(judgement.own(*kind, name)),
            Part::Visible(kind) => Some(judgement.visible(*kind, name)),
        })?
    }

    /// How audits and refusals call it: `POST /containers/{container}/start`.
    pub fn name(&self) -> String {
        let part = |part: &Part| match part {
            Part::Word(word) => format!("/{word}"),
            Part::Own(kind) | Part::Visible(kind) => format!("/{{{}}}", kind.noun()),
        };
        let path: String = self.path.iter().map(part).collect();
        format!("{} {path}", self.method)
    }
}
