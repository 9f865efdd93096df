//! `POST /volumes/create` of API 1.51.

use serde_json::{Map, Value};

use super::{field, labels, mark};
use crate::facts::{Kind, Resolution};
use crate::judge::{self, Judgement, free, is_zero, never};
use crate::pattern;
use crate::policy::Choice;
use crate::shape::Field;
use crate::shape::Shape::{Object, Text, TextMap};

/// API 1.51, `VolumeCreateOptions`.
pub(crate) static CREATE: &[Field] = &[
    field("Name", Text, free),
    field("Driver", Text, driver),
    field("DriverOpts", TextMap, options),
    field("Labels", TextMap, labels),
    field("ClusterVolumeSpec", Object(&[]), never),
];

/// A volume driver by name.
pub(crate) fn driver(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let name = judge::text(value);
    if name.is_empty() {
        return None;
    }
    if !pattern::any(&judgement.policy.volumes.drivers, &name) {
        judgement.refuse("volumes.drivers", format!("the volume driver {name:?} is not on the list"));
    }
    Some(name.into())
}

/// Options of a driver. The local driver's reach everything that mount(8) does: a bind of `/` is one of them.
pub(crate) fn options(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if is_zero(&value) {
        return None;
    }
    // Leaving them out would make another volume than the caller thinks.
    match judgement.policy.volumes.options {
        Choice::Allow => Some(value),
        Choice::Drop | Choice::Refuse => {
            judgement.refuse("volumes.options", "options of volume drivers are not allowed");
            None
        }
    }
}

/// The volume as a whole: making one that exists answers with that one, whosever it is.
pub(crate) fn finish(judgement: &mut Judgement<'_>, body: &mut Map<String, Value>) {
    let name = judge::field(body, "Name").to_owned();
    let mut new = true;
    if !name.is_empty() {
        match judgement.name(Kind::Volume, &name) {
            Some(Resolution::Own(_)) => new = false,
            Some(Resolution::Foreign | Resolution::Shared { .. } | Resolution::Joined(_)) => {
                judgement.answer(409, "objects", format!("a volume named {name} already exists"));
            }
            Some(Resolution::Absent) | None => {}
        }
    }
    if new {
        let limit = judgement.policy.limits.volumes;
        judgement.quota(Kind::Volume, limit, "limits.volumes");
    }
    mark(judgement, body, &[]);
}
