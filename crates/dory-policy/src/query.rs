//! Parameters: read strictly, judged like fields of a body, and written anew.

use serde_json::{Map, Value};

use crate::body::is_ours;
use crate::facts::{Kind, OWNER_LABEL};
use crate::judge::{self, Judgement};
use crate::request::RequestError;
use crate::shape::{Field, Shape};

/// Longest `filters`.
const FILTERS_LIMIT: usize = 64 << 10;

/// Decodes one part of a path or query, once. `plus` is a space in queries.
///
/// # Errors
/// A `%` that is no escape, a control character, or bytes that are not UTF-8.
pub(crate) fn decode(text: &str, plus: bool) -> Result<String, RequestError> {
    let wrong = || RequestError::Encoding(text.chars().take(60).collect());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'%' => {
                let digit = |at: usize| behind.get(at).and_then(|byte| (*byte as char).to_digit(16));
                let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err(wrong()) };
                bytes.push((high * 16 + low) as u8);
                rest = &behind[2..];
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    if text.contains('\0') { Err(wrong()) } else { Ok(text) }
}

/// Reads a query into the shape of `fields`; names of unknown parameters go to `dropped`.
///
/// # Errors
/// A parameter twice that may come once, `;`, and wrong values.
pub(crate) fn parse(
    query: &str,
    fields: &'static [Field],
    dropped: &mut Vec<String>,
) -> Result<Map<String, Value>, RequestError> {
    let mut known = Map::new();
    if query.contains(';') {
        return Err(RequestError::Encoding(query.chars().take(60).collect()));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name, true)?, decode(value, true)?);
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            dropped.push(format!("?{name}"));
            continue;
        };
        if let (Shape::Texts, Some(Value::Array(list))) = (field.shape, known.get_mut(&name)) {
            list.push(value.into());
            continue;
        }
        let read = read(field.shape, &value).ok_or_else(|| RequestError::Parameter(name.clone()))?;
        if known.insert(name.clone(), read).is_some() {
            return Err(RequestError::Twice(name));
        }
    }
    known.retain(|_, value| !value.is_null());
    Ok(known)
}

fn read(shape: Shape, value: &str) -> Option<Value> {
    match shape {
        // dockerd's reading: anything but nothing, `0`, `no`, `false` and `none` is true.
        Shape::Bool => {
            let lower = value.trim().to_ascii_lowercase();
            Some(Value::Bool(!matches!(lower.as_str(), "" | "0" | "no" | "false" | "none")))
        }
        Shape::Int if value.is_empty() => Some(Value::Null),
        Shape::Int => value.parse::<i64>().ok().map(Value::from),
        Shape::Texts => Some(vec![value].into()),
        _ => Some(value.into()),
    }
}

/// Writes judged parameters.
pub(crate) fn write(parameters: &Map<String, Value>) -> String {
    let mut pairs = Vec::new();
    for (name, value) in parameters {
        let mut push = |text: &str| pairs.push(format!("{name}={}", encode(text)));
        match value {
            Value::Bool(value) => push(if *value { "1" } else { "0" }),
            Value::String(text) => push(text),
            Value::Array(items) => items.iter().filter_map(Value::as_str).for_each(push),
            other => push(&other.to_string()),
        }
    }
    pairs.join("&")
}

/// Escapes everything but what RFC 3986 calls unreserved.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// `filters`, in either of Docker's forms; written in the newer one. They only ever narrow.
pub(crate) fn filters(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let text = judge::text(value);
    if text.is_empty() {
        return None;
    }
    let read = (text.len() <= FILTERS_LIMIT).then(|| crate::json::parse(text.as_bytes()).ok()).flatten();
    let Some(Value::Object(filters)) = read else {
        judgement.answer(400, "model", "invalid filter".to_owned());
        return None;
    };
    let mut known = Map::new();
    for (name, values) in filters {
        let values: Map<String, Value> = match values {
            Value::Array(items) if items.iter().all(Value::is_string) => {
                items.into_iter().map(|item| (judge::text(item), true.into())).collect()
            }
            Value::Object(map) if map.values().all(Value::is_boolean) => {
                map.into_iter().filter(|(_, value)| *value == Value::Bool(true)).collect()
            }
            _ => {
                judgement.answer(400, "model", "invalid filter".to_owned());
                return None;
            }
        };
        known.insert(name, Value::Object(values));
    }
    Some(Value::Object(known).to_string().into())
}

/// Narrows `filters` to what carries the session's label.
pub(crate) fn own_filter(judgement: &Judgement<'_>, query: &mut Map<String, Value>) {
    let mut filters = match query.get("filters").and_then(Value::as_str).map(serde_json::from_str) {
        Some(Ok(Value::Object(filters))) => filters,
        _ => Map::new(),
    };
    let labels = filters.entry("label").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(labels) = labels {
        labels.insert(format!("{OWNER_LABEL}={}", judgement.identity.owner), true.into());
    }
    query.insert("filters".to_owned(), Value::Object(filters).to_string().into());
}

pub(crate) fn container(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    judgement.own(Kind::Container, value.as_str()?).map(Value::from)
}

/// Dockerfile instructions for commit.
pub(crate) fn changes(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let lines = judge::texts(value);
    if lines.iter().any(|line| line.split(|c: char| c.is_whitespace() || "\"'=\\".contains(c)).any(is_ours)) {
        judgement.refuse("objects", "labels that begin with `io.dory.` are the gateway's");
    }
    Some(lines.into())
}

/// Labels of a build, which name the session as the owner.
pub(crate) fn labels(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    match crate::json::parse(value.as_str()?.as_bytes()) {
        Ok(Value::Object(labels)) if labels.values().all(Value::is_string) => {
            if labels.keys().any(|label| is_ours(label)) {
                judgement.refuse("objects", "labels that begin with `io.dory.` are the gateway's");
            }
            Some(Value::Object(labels).to_string().into())
        }
        Ok(Value::Null) => None,
        _ => {
            judgement.answer(400, "model", "`labels` is not a map of strings".to_owned());
            None
        }
    }
}

/// Names for what is built.
pub(crate) fn tags(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let names: Vec<String> = judge::texts(value).into_iter().filter(|name| !name.is_empty()).collect();
    for name in &names {
        crate::image::may_name(judgement, name);
    }
    Some(names.into())
}

/// A parameter that says nothing, in whichever way clients write that.
pub(crate) fn nothing(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if matches!(value.as_str(), Some("" | "null" | "[]" | "{}")) {
        None
    } else {
        judge::never(judgement, value)
    }
}

pub(crate) fn build_network(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if !matches!(value.as_str(), Some("" | "default" | "bridge" | "none")) {
        judgement.refuse("networks.join", "a build may use the default network, or none");
    }
    Some(value)
}

/// Which builder: 1 is the classic one.
pub(crate) fn builder(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if !matches!(value.as_str(), Some("" | "1")) {
        judgement
            .refuse("allow", "BuildKit has no model here yet; the classic builder has (DOCKER_BUILDKIT=0)");
    }
    Some("1".into())
}
