//! A request as the gateway understands it, and the decision about it.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::body::{container, network, volume};
use crate::facts::{Facts, Identity, Need, OWNER_LABEL};
use crate::image;
use crate::judge::{Change, Judgement, Refusal};
use crate::policy::{Objects, Policy};
use crate::query;
use crate::route::{self, Action, Body, Route};
use crate::shape::{ShapeError, conform};

/// Oldest and newest minor version of the API that requests are sent on in: older ones ignore fields that limit.
pub const VERSIONS: (u32, u32) = (40, 51);

/// What arrived, with its head taken apart and nothing interpreted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw<'r> {
    /// The method.
    pub method: &'r str,
    /// The target in origin form.
    pub target: &'r str,
    /// The body of a request that has one in JSON; archives stay outside.
    pub body: &'r [u8],
    /// `X-Registry-Auth`.
    pub registry_auth: Option<&'r str>,
}

/// A request that has no model, or could be read in two ways.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The path is not written plainly.
    #[error("the path is not written plainly: {0:?}")]
    Path(String),
    /// There is no such route.
    #[error("the gateway passes no {method} {path} on")]
    Route {
        /// Method.
        method: String,
        /// Path, shortened.
        path: String,
    },
    /// A version of the API outside of what is spoken.
    #[error("client version {0} is not supported: the gateway speaks 1.{low} to 1.{high}", low = VERSIONS.0, high = VERSIONS.1)]
    Version(String),
    /// An escape that is none.
    #[error("{0:?} is not encoded properly")]
    Encoding(String),
    /// A parameter that comes twice.
    #[error("the parameter {0:?} comes twice")]
    Twice(String),
    /// A parameter of the wrong type.
    #[error("the parameter {0:?} has a wrong value")]
    Parameter(String),
    /// JSON that is not plain.
    #[error(transparent)]
    Json(#[from] crate::json::JsonError),
    /// A body that does not fit.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Credentials that are none.
    #[error("`X-Registry-Auth` is not base64 of a JSON object")]
    RegistryAuth,
    /// A body where none belongs.
    #[error("the request has a body, which it should not")]
    Body,
}

impl RequestError {
    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            // `docker inspect` asks for one kind of thing after the other, and goes on after 404 only.
            Self::Route { method, .. } if matches!(method.as_str(), "GET" | "HEAD") => 404,
            Self::Route { .. } => 403,
            _ => 400,
        }
    }
}

/// A request with a model.
#[derive(Debug, Clone)]
pub struct Request {
    /// What it is.
    pub route: &'static Route,
    /// Minor version of the API, where the path has one.
    pub version: Option<u32>,
    /// The name in its path, as the caller wrote it.
    pub name: Option<String>,
    /// Names of fields and parameters that nothing is known of.
    pub dropped: Vec<String>,
    query: Map<String, Value>,
    body: Option<Map<String, Value>>,
    registry_auth: Option<String>,
}

/// Finds the route alone, to know what kind of body belongs to it.
///
/// # Errors
/// Those of the path.
pub fn find_route(method: &str, target: &str) -> Result<&'static Route, RequestError> {
    split(method, target).map(|found| found.0)
}

type Found<'t> = (&'static Route, Option<String>, Option<u32>, &'t str);

fn split<'t>(method: &str, target: &'t str) -> Result<Found<'t>, RequestError> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let short = |path: &str| path.chars().take(80).collect::<String>();
    let plain = |part: &&str| !part.is_empty() && !matches!(*part, "." | "..");
    let raw: Vec<&str> = path.strip_prefix('/').map(|path| path.split('/').collect()).unwrap_or_default();
    if raw.is_empty() || !raw.iter().all(plain) || target.contains('#') {
        return Err(RequestError::Path(short(path)));
    }
    let mut parts = raw.into_iter().map(|part| query::decode(part, false)).collect::<Result<Vec<_>, _>>()?;
    // Decoded once more or less than we do, a part could become a dot: it is refused in either form.
    if !parts.iter().all(|part| plain(&part.as_str())) {
        return Err(RequestError::Path(short(path)));
    }
    let strange = |part: &String| part.chars().any(|c| !(c.is_ascii_alphanumeric() || "_.:@-".contains(c)));
    if parts.iter().any(strange) {
        return Err(RequestError::Path(short(path)));
    }
    let version = match parts[0].strip_prefix('v') {
        Some(text) if text.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            let minor = text.strip_prefix("1.").filter(|minor| !minor.starts_with('0') && minor.len() <= 2);
            let minor = minor.and_then(|minor| minor.parse::<u32>().ok());
            let minor = minor.filter(|minor| (VERSIONS.0..=VERSIONS.1).contains(minor));
            let minor = minor.ok_or_else(|| RequestError::Version(text.chars().take(20).collect()))?;
            parts.remove(0);
            Some(minor)
        }
        _ => None,
    };
    let (route, name) = route::find(method, &parts)
        .ok_or_else(|| RequestError::Route { method: short(method), path: short(path) })?;
    Ok((route, name, version, query))
}

impl Request {
    /// Understands a request, or refuses it.
    ///
    /// # Errors
    /// [`RequestError`] where there is no model of it, or more than one reading.
    pub fn read(raw: Raw<'_>) -> Result<Self, RequestError> {
        let (route, name, version, parameters) = split(raw.method, raw.target)?;
        let mut dropped = Vec::new();
        let query = query::parse(parameters, route.query, &mut dropped)?;
        let body = match route.body {
            Body::Json(fields) => {
                let empty = raw.body.iter().all(u8::is_ascii_whitespace);
                let value = if empty { Value::Null } else { crate::json::parse(raw.body)? };
                let value = if value.is_null() { Value::Object(Map::new()) } else { value };
                Some(conform(fields, value, "", &mut dropped)?)
            }
            Body::None if !matches!(raw.body.trim_ascii(), b"" | b"{}" | b"null") => {
                return Err(RequestError::Body);
            }
            _ => None,
        };
        let registry_auth = raw.registry_auth.map(credentials).transpose()?.flatten();
        Ok(Self { route, version, name, dropped, query, body, registry_auth })
    }
}

/// Credentials, written anew.
fn credentials(text: &str) -> Result<Option<String>, RequestError> {
    let wrong = |_| RequestError::RegistryAuth;
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE
        .decode(text)
        .or_else(|_| URL_SAFE_NO_PAD.decode(text))
        .map_err(|_| RequestError::RegistryAuth)?;
    let Value::Object(given) = crate::json::parse(&bytes).map_err(wrong)? else {
        return Err(RequestError::RegistryAuth);
    };
    let known = ["username", "password", "auth", "email", "serveraddress", "identitytoken", "registrytoken"];
    let kept: Map<String, Value> =
        given.into_iter().filter(|(key, value)| known.contains(&key.as_str()) && value.is_string()).collect();
    Ok(Some(URL_SAFE.encode(Value::Object(kept).to_string())))
}

/// What was decided.
#[derive(Debug)]
pub enum Verdict {
    /// It may be sent on, as this.
    Permit(Permitted),
    /// It may not.
    Refuse(Refusal),
    /// Facts are missing; ask again with them.
    Needs(Vec<Need>),
}

/// A request that a policy let through, as it is to be written. Only [`Policy::judge`] makes one.
#[derive(Debug)]
pub struct Permitted {
    method: &'static str,
    target: String,
    body: Option<Vec<u8>>,
    registry_auth: Option<String>,
    route: &'static Route,
    limit: Option<usize>,
    version: u32,
    changes: Vec<Change>,
}

impl Permitted {
    /// The method.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// Path and query, without the version.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The JSON to send; none where there is no body, or an archive.
    pub fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    /// The value of `X-Registry-Auth`.
    pub fn registry_auth(&self) -> Option<&str> {
        self.registry_auth.as_deref()
    }

    /// What kind of request it is.
    pub fn route(&self) -> &'static Route {
        self.route
    }

    /// How many things the answer may list, where the other side could not count them.
    pub fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// The oldest minor version of the API that it can be sent on in; 0 for any.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What rules changed.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

impl Policy {
    /// Decides about `request` of `identity`, by what is known.
    pub fn judge(&self, request: &Request, identity: &Identity, facts: &Facts) -> Verdict {
        let mut judgement = Judgement::new(self, identity, facts);
        let route = request.route;
        if !self.allow.contains(&route.group) {
            judgement.refuse("allow", format!("{} is not allowed", route.name()));
            return decided(judgement, None);
        }
        let mut name = request.name.clone();
        if let Some(name) = &mut name {
            if route.action == Action::Push {
                image::push(&mut judgement, name, &request.query);
            }
            let id = route.target(&mut judgement, name);
            let named = matches!(route.action, Action::Push) || removes_image(route);
            // A push and the removal of a name mean the name; an id would mean all names.
            if let (Some(id), false) = (id, named) {
                *name = id;
            }
        }
        let mut query = judgement.object(route.query, request.query.clone());
        let mut body = match (route.body, &request.body) {
            (Body::Json(fields), Some(body)) => Some(judgement.object(fields, body.clone())),
            _ => None,
        };
        let limit = if lists_caller(&judgement, route) { list_all(&mut query) } else { None };
        whole(&mut judgement, route, &mut query, body.as_mut());
        let mut target = route.path(&name.unwrap_or_default());
        if !query.is_empty() {
            target.push('?');
            target.push_str(&query::write(&query));
        }
        let permitted = Permitted {
            method: route.method,
            target,
            body: body.map(|body| Value::Object(body).to_string().into_bytes()),
            registry_auth: request.registry_auth.clone(),
            route,
            limit,
            version: judgement.version,
            changes: std::mem::take(&mut judgement.changes),
        };
        decided(judgement, Some(permitted))
    }
}

fn removes_image(route: &Route) -> bool {
    route.method == "DELETE" && matches!(route.path.first(), Some(route::Part::Word("images")))
}

/// True for a list of containers for one of them: it has no label to be chosen by, so the answer is narrowed.
fn lists_caller(judgement: &Judgement<'_>, route: &Route) -> bool {
    judgement.identity.in_container
        && route.action == Action::List
        && route.group == crate::Group::ContainersRead
}

/// Asks for all containers where some were asked for (`docker ps --last 3`): which they are is known afterwards.
fn list_all(query: &mut Map<String, Value>) -> Option<usize> {
    let limit = query.remove("limit")?.as_i64()?;
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0)?;
    query.insert("all".to_owned(), true.into());
    Some(limit)
}

/// What concerns the request as a whole.
fn whole(
    judgement: &mut Judgement<'_>,
    route: &Route,
    query: &mut Map<String, Value>,
    body: Option<&mut Map<String, Value>>,
) {
    let own = judgement.policy.objects == Objects::Own;
    match (route.action, body) {
        (Action::CreateContainer, Some(body)) => container::finish(judgement, body),
        (Action::CreateNetwork, Some(body)) => network::finish(judgement, body),
        (Action::CreateVolume, Some(body)) => volume::finish(judgement, body),
        (Action::Pull, _) => image::pull(judgement, query),
        (Action::Tag | Action::Commit, _) => image::name(judgement, query),
        (Action::Build, _) => build(judgement, query),
        // Images that are shared carry no label; the answer is narrowed instead.
        (Action::List, _)
            if own
                && !lists_caller(judgement, route)
                && route.group != crate::Group::ImagesRead
                && route.group != crate::Group::NetworksRead =>
        {
            query::own_filter(judgement, query);
        }
        (Action::Prune, _) if own => query::own_filter(judgement, query),
        _ => {}
    }
}

fn build(judgement: &mut Judgement<'_>, query: &mut Map<String, Value>) {
    let mut labels = match query.get("labels").and_then(Value::as_str).map(serde_json::from_str) {
        Some(Ok(Value::Object(labels))) => labels,
        _ => Map::new(),
    };
    labels.insert(OWNER_LABEL.to_owned(), judgement.identity.owner.as_str().into());
    query.insert("labels".to_owned(), Value::Object(labels).to_string().into());
    query.entry("version").or_insert_with(|| "1".into());
    // A name in the context that leads out of it.
    if query
        .get("dockerfile")
        .and_then(Value::as_str)
        .is_some_and(|path| path.split('/').any(|part| part == ".."))
    {
        judgement.answer(400, "model", "the Dockerfile must be within the build context".to_owned());
    }
    if let Some(limit) = judgement.policy.limits.memory {
        query.entry("memory").or_insert_with(|| limit.0.into());
    }
}

fn decided(judgement: Judgement<'_>, permitted: Option<Permitted>) -> Verdict {
    match (judgement.refusal, permitted) {
        (Some(refusal), _) => Verdict::Refuse(refusal),
        _ if !judgement.needs.is_empty() => {
            let mut needs = judgement.needs;
            needs.sort();
            needs.dedup();
            Verdict::Needs(needs)
        }
        (None, Some(permitted)) => Verdict::Permit(permitted),
        (None, None) => Verdict::Needs(Vec::new()),
    }
}

/// The body of an error answer, in Docker's form.
pub fn message(text: &str) -> Vec<u8> {
    json!({ "message": text }).to_string().into_bytes()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
