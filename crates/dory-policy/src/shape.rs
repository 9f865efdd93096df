//! What the body of a request looks like: known fields, each with its type and its judge.
//!
//! A body is brought into shape before anybody judges it: unknown fields are dropped (and named for the audit), `null` is
//! the same as absent, wrong types are refused, and so is a key that only Go would take for a known one. What is sent on is
//! made of the result, so nothing that was not looked at can reach the other side.

use serde_json::{Map, Value};

use crate::json::folded;
use crate::judge::Judgement;

/// Looks at one field's value and returns what to send on; nothing drops the field.
pub(crate) type Judge = fn(&mut Judgement<'_>, Value) -> Option<Value>;

/// A known field.
#[derive(Debug)]
pub struct Field {
    /// The name on the wire.
    pub name: &'static str,
    /// Its type.
    pub shape: Shape,
    /// Who decides about it.
    pub(crate) judge: Judge,
}

/// A type on the wire, as Go reads it.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// `true` or `false`.
    Bool,
    /// A whole number of 64 bits.
    Int,
    /// Text.
    Text,
    /// A list of texts.
    Texts,
    /// A text or a list of texts: a command. Sent on as a list.
    Words,
    /// Texts by text.
    TextMap,
    /// Lists of texts in a list.
    TextLists,
    /// A map whose values say nothing: `{"80/tcp": {}}`.
    Set,
    /// Two numbers.
    Pair,
    /// Known fields.
    Object(&'static [Field]),
    /// Objects in a list.
    Objects(&'static [Field]),
    /// Objects by name.
    ObjectMap(&'static [Field]),
    /// Lists of objects by name; `null` stands for none.
    ObjectsMap(&'static [Field]),
}

/// A body that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A value of another type.
    #[error("`{0}` is not {1}")]
    Type(String, &'static str),
    /// A key that Go's reader takes for a known one, and others do not.
    #[error("the key {0:?} is not written `{1}`: readers differ in what it means")]
    Ambiguous(String, &'static str),
}

/// Brings `value` into the shape of `fields`; names of unknown fields go to `dropped`.
///
/// # Errors
/// [`ShapeError`] with the path of the field.
pub fn conform(
    fields: &'static [Field],
    value: Value,
    path: &str,
    dropped: &mut Vec<String>,
) -> Result<Map<String, Value>, ShapeError> {
    let Value::Object(given) = value else { return Err(ShapeError::Type(named(path, "body"), "an object")) };
    let mut known = Map::new();
    for (key, value) in given {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(field) = fields.iter().find(|field| field.name == key) else {
            let same = folded(&key);
            match fields.iter().find(|field| folded(field.name) == same) {
                Some(field) => return Err(ShapeError::Ambiguous(inner, field.name)),
                None => dropped.push(inner),
            }
            continue;
        };
        if !value.is_null() {
            known.insert(key, field.shape.conform(value, &inner, dropped)?);
        }
    }
    Ok(known)
}

fn named(path: &str, otherwise: &str) -> String {
    if path.is_empty() { otherwise.to_owned() } else { path.to_owned() }
}

impl Shape {
    fn conform(self, value: Value, path: &str, dropped: &mut Vec<String>) -> Result<Value, ShapeError> {
        let wrong = |what| Err(ShapeError::Type(path.to_owned(), what));
        match (self, value) {
            (Self::Bool, value @ Value::Bool(_)) => Ok(value),
            (Self::Int, Value::Number(number)) if number.is_i64() => Ok(Value::Number(number)),
            (Self::Text, value @ Value::String(_)) => Ok(value),
            (Self::Words, Value::String(word)) => Ok(Value::Array(vec![Value::String(word)])),
            (Self::Texts | Self::Words, Value::Array(items)) => {
                if items.iter().all(Value::is_string) {
                    Ok(Value::Array(items))
                } else {
                    wrong("a list of strings")
                }
            }
            (Self::TextMap, Value::Object(map)) => {
                if map.values().all(Value::is_string) {
                    Ok(Value::Object(map))
                } else {
                    wrong("a map of strings")
                }
            }
            (Self::TextLists, Value::Array(lists)) => {
                lists.into_iter().map(|list| Self::Texts.conform(list, path, dropped)).collect()
            }
            (Self::Set, Value::Object(map)) => {
                Ok(Value::Object(map.into_iter().map(|(key, _)| (key, Value::Object(Map::new()))).collect()))
            }
            (Self::Pair, Value::Array(pair)) if pair.len() == 2 && pair.iter().all(Value::is_u64) => {
                Ok(Value::Array(pair))
            }
            (Self::Object(fields), value) => conform(fields, value, path, dropped).map(Value::Object),
            (Self::Objects(fields), Value::Array(items)) => items
                .into_iter()
                .enumerate()
                .map(|(at, item)| conform(fields, item, &format!("{path}[{at}]"), dropped).map(Value::Object))
                .collect(),
            (Self::ObjectMap(fields), Value::Object(map)) => map
                .into_iter()
                .map(|(key, item)| {
                    let item = if item.is_null() { Value::Object(Map::new()) } else { item };
                    let item = conform(fields, item, &format!("{path}[{key}]"), dropped)?;
                    Ok((key, Value::Object(item)))
                })
                .collect::<Result<Map<_, _>, _>>()
                .map(Value::Object),
            (Self::ObjectsMap(fields), Value::Object(map)) => map
                .into_iter()
                .map(|(key, items)| {
                    let items = if items.is_null() { Value::Array(Vec::new()) } else { items };
                    let items = Self::Objects(fields).conform(items, &format!("{path}[{key}]"), dropped)?;
                    Ok((key, items))
                })
                .collect::<Result<Map<_, _>, _>>()
                .map(Value::Object),
            (shape, _) => wrong(shape.description()),
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int => "a whole number",
            Self::Text => "a string",
            Self::Texts => "a list of strings",
            Self::Words => "a string or a list of strings",
            Self::TextMap => "a map of strings",
            Self::TextLists => "a list of lists of strings",
            Self::Set => "an object",
            Self::Pair => "two numbers",
            Self::Object(_) => "an object",
            Self::Objects(_) => "a list of objects",
            Self::ObjectMap(_) | Self::ObjectsMap(_) => "a map of objects",
        }
    }
}
