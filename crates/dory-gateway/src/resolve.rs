//! Finds out what a judgement needs to know: what names mean, how many things there are, where paths lead.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use dory_policy::{Facts, Kind, Need, OWNER_LABEL, Objects, PathMeaning, Resolution, familiar};
use serde_json::{Map, Value, json};

use crate::session::Session;
use crate::upstream::Upstream;

/// Where every client looks for an engine.
const CONVENTIONAL: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];

/// Adds what `needs` ask for to `facts`.
///
/// # Errors
/// Those of the engine.
pub(crate) async fn resolve(session: &Session, needs: &[Need], facts: &mut Facts) -> io::Result<()> {
    for need in needs {
        match need {
            Need::Name(kind, name) => {
                let meaning = meaning(session, *kind, name).await?;
                facts.names.insert((*kind, name.clone()), meaning);
            }
            Need::NewVolume(name) => {
                let meaning = new_volume(session, name).await?;
                facts.names.insert((Kind::Volume, name.clone()), meaning);
            }
            Need::Count(kind) => {
                facts.counts.insert(*kind, own(session, *kind).await?.len());
            }
            Need::Path(path) => {
                facts.paths.insert(path.clone(), path_meaning(session, path).await?);
            }
        }
    }
    Ok(())
}

/// A text as one part of a path.
fn part(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => (byte as char).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// True for a name that cannot be taken for another path.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 256
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn owner(labels: Option<&Value>) -> Option<&str> {
    labels?.get(OWNER_LABEL)?.as_str()
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Session {
    fn is_mine(&self, labels: Option<&Value>) -> bool {
        self.policy.objects == Objects::All || owner(labels) == Some(self.identity.owner.as_str())
    }
}

async fn meaning(session: &Session, kind: Kind, name: &str) -> io::Result<Resolution> {
    match kind {
        Kind::Image => image(session, name).await,
        _ if !is_name(name) => Ok(Resolution::Absent),
        Kind::Container => container(session, name).await,
        Kind::Network => network(session, name).await,
        Kind::Volume => volume(session, name).await,
        Kind::Exec => {
            let Some(exec) = session.upstream.get(&format!("/exec/{}/json", part(name))).await? else {
                return Ok(Resolution::Absent);
            };
            Ok(match container(session, &text(&exec, "/ContainerID")).await? {
                Resolution::Own(_) => Resolution::Own(text(&exec, "/ID")),
                other => other,
            })
        }
    }
}

async fn container(session: &Session, name: &str) -> io::Result<Resolution> {
    let Some(found) = session.upstream.get(&format!("/containers/{}/json", part(name))).await? else {
        return Ok(Resolution::Absent);
    };
    let id = text(&found, "/Id");
    if session.is_mine(found.pointer("/Config/Labels")) {
        return Ok(Resolution::Own(id));
    }
    let caller = session.is_caller(&id);
    Ok(if caller { Resolution::Shared { id, name: name.to_owned() } } else { Resolution::Foreign })
}

async fn network(session: &Session, name: &str) -> io::Result<Resolution> {
    let Some(found) = session.upstream.get(&format!("/networks/{}", part(name))).await? else {
        return Ok(Resolution::Absent);
    };
    let (id, full) = (text(&found, "/Id"), text(&found, "/Name"));
    let labels = found.get("Labels");
    // Networks of the engine's own cannot be changed by anybody.
    if session.is_mine(labels) && !matches!(full.as_str(), "bridge" | "host" | "none") {
        session.seen().networks.insert(id.clone());
        return Ok(Resolution::Own(id));
    }
    let members = found.get("Containers").and_then(Value::as_object);
    if members.is_some_and(|members| members.keys().any(|id| session.is_caller(id))) && full != "host" {
        return Ok(Resolution::Joined(id));
    }
    let joins = session.policy.networks.join.iter().any(|pattern| pattern.matches(&full));
    let shared = owner(labels).is_none() && joins;
    Ok(if shared { Resolution::Shared { id, name: full } } else { Resolution::Foreign })
}

async fn volume(session: &Session, name: &str) -> io::Result<Resolution> {
    let Some(found) = session.upstream.get(&format!("/volumes/{}", part(name))).await? else {
        return Ok(Resolution::Absent);
    };
    Ok(owned_volume(session, &found))
}

fn owned_volume(session: &Session, volume: &Value) -> Resolution {
    if !session.is_mine(volume.get("Labels")) {
        return Resolution::Foreign;
    }
    let name = text(volume, "/Name");
    session.seen().volumes.insert(name.clone());
    Resolution::Own(name)
}

/// Makes a volume that was absent a moment ago; whose it is then, the answer says.
async fn new_volume(session: &Session, name: &str) -> io::Result<Resolution> {
    let body = json!({"Name": name, "Labels": {OWNER_LABEL: session.identity.owner}});
    let (head, body) = session.upstream.ask("POST", "/volumes/create", Some(&body)).await?;
    match serde_json::from_slice(&body) {
        Ok(volume) if head.status == 201 => Ok(owned_volume(session, &volume)),
        _ => Err(io::Error::other(format!("the engine answers {} to a new volume", head.status))),
    }
}

async fn image(session: &Session, name: &str) -> io::Result<Resolution> {
    let hexadecimal = |text: &str| text.len() >= 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = hexadecimal(name.strip_prefix("sha256:").unwrap_or(name));
    let Some(full) = familiar(name).or_else(|| id.then(|| name.to_owned())) else {
        return Ok(Resolution::Absent);
    };
    // Slashes of repositories are slashes of the path.
    let path: Vec<String> =
        name.split('/').map(|text| part(text).replace("%3A", ":").replace("%40", "@")).collect();
    let Some(found) = session.upstream.get(&format!("/images/{}/json", path.join("/"))).await? else {
        return Ok(Resolution::Absent);
    };
    let labels = found.pointer("/Config/Labels");
    let id = text(&found, "/Id");
    if session.is_mine(labels) {
        return Ok(Resolution::Own(id));
    }
    Ok(match shared_name(session, labels, &[&[full], names(&found, "RepoTags").as_slice()].concat()) {
        Some(name) => Resolution::Shared { id, name },
        None => Resolution::Foreign,
    })
}

/// Texts of a list.
pub(crate) fn names(value: &Value, field: &str) -> Vec<String> {
    let items = value.get(field).and_then(Value::as_array);
    items.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The name by which an image is shared with the session.
pub(crate) fn shared_name(session: &Session, labels: Option<&Value>, names: &[String]) -> Option<String> {
    let listed = |name: &&String| session.policy.images.run.iter().any(|pattern| pattern.matches(name));
    if owner(labels).is_some() { None } else { names.iter().find(listed).cloned() }
}

/// Own things of one kind, as lists show them.
///
/// # Errors
/// Those of the engine.
pub(crate) async fn own(session: &Session, kind: Kind) -> io::Result<Vec<Value>> {
    let filters = json!({"label": {format!("{OWNER_LABEL}={}", session.identity.owner): true}});
    let filters = part(&filters.to_string());
    let target = match kind {
        Kind::Container => format!("/containers/json?all=1&filters={filters}"),
        Kind::Network => format!("/networks?filters={filters}"),
        Kind::Volume => format!("/volumes?filters={filters}"),
        Kind::Image => format!("/images/json?filters={filters}"),
        Kind::Exec => return Ok(Vec::new()),
    };
    Ok(match session.upstream.get(&target).await? {
        Some(Value::Array(items)) => items,
        Some(Value::Object(mut map)) => match map.remove("Volumes") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    })
}

async fn path_meaning(session: &Session, path: &str) -> io::Result<PathMeaning> {
    let own = session.identity.socket.as_deref();
    if CONVENTIONAL.contains(&path) || Some(path) == own {
        return Ok(PathMeaning::Socket);
    }
    let Some(caller) = &session.caller else { return Ok(host_path(session, path)) };
    let meaning = caller.path(path).await?;
    let rules = &session.policy.binds;
    // Where the policy lets the session have something of the host, paths that are nothing to the caller are the host's.
    match meaning {
        PathMeaning::Missing | PathMeaning::Unusable(_) if rules.any || !rules.allow.is_empty() => {
            match host_path(session, path) {
                PathMeaning::Missing => Ok(meaning),
                other => Ok(other),
            }
        }
        meaning => Ok(meaning),
    }
}

/// What a path of the host means.
fn host_path(session: &Session, path: &str) -> PathMeaning {
    if !session.upstream.is_here() {
        let reason = "the engine runs elsewhere, and what its paths mean cannot be seen from here".to_owned();
        return PathMeaning::Unusable(reason);
    }
    let real = match std::fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return PathMeaning::Missing,
        Err(error) => return PathMeaning::Unusable(error.to_string()),
    };
    let same = |socket: &Path| std::fs::canonicalize(socket).is_ok_and(|socket| socket == real);
    let upstream = matches!(&session.upstream, Upstream::Unix(socket) if same(socket));
    if upstream || CONVENTIONAL.iter().any(|socket| same(Path::new(socket))) {
        return PathMeaning::Socket;
    }
    match std::fs::metadata(&real) {
        Ok(metadata) if metadata.file_type().is_socket() && !session.policy.binds.any => {
            PathMeaning::Unusable("it is a socket of somebody's".to_owned())
        }
        _ => real
            .into_os_string()
            .into_string()
            .map_or_else(|_| PathMeaning::Unusable("it is not UTF-8".to_owned()), PathMeaning::Host),
    }
}

/// The labels of a thing in a list.
pub(crate) fn labels(item: &Map<String, Value>) -> Option<&Value> {
    item.get("Labels")
}

impl Session {
    /// True for a thing in a list that carries the session's label.
    pub(crate) fn lists(&self, item: &Map<String, Value>) -> bool {
        self.is_mine(labels(item))
    }
}
