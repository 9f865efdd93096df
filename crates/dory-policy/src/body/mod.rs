//! The bodies of requests: every field with its type and its judge.
//!
//! One file per kind of object. A field that is in no table is dropped, so a new field of a newer API gives nobody
//! anything until somebody has decided about it here.

pub(crate) mod container;
pub(crate) mod exec;
pub(crate) mod host;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod resource;
pub(crate) mod volume;

use serde_json::{Map, Value};

use crate::facts::{LABEL_PREFIX, OWNER_LABEL};
use crate::json::folded;
use crate::judge::Judgement;
use crate::shape::{Field, Judge, Shape};

/// A line of a table.
pub(crate) const fn field(name: &'static str, shape: Shape, judge: Judge) -> Field {
    Field { name, shape, judge }
}

/// Labels, except those that say whose a thing is.
pub(crate) fn labels(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let Value::Object(labels) = &value else { return None };
    if let Some(label) = labels.keys().find(|label| is_ours(label)) {
        judgement.refuse(
            "objects",
            format!("labels that begin with `{LABEL_PREFIX}` are the gateway's: {label:?}"),
        );
    }
    Some(value)
}

/// True for labels that say whose a thing is, however they are written.
pub(crate) fn is_ours(label: &str) -> bool {
    folded(label).starts_with(LABEL_PREFIX)
}

/// Marks a new thing as the session's.
pub(crate) fn mark(judgement: &Judgement<'_>, object: &mut Map<String, Value>, more: &[(&str, &str)]) {
    let labels = object.entry("Labels").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(labels) = labels {
        labels.insert(OWNER_LABEL.to_owned(), judgement.identity.owner.as_str().into());
        for (label, value) in more {
            labels.insert((*label).to_owned(), (*value).into());
        }
    }
}
