//! The state of one judgement, and what every judge uses.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::facts::{Facts, Identity, Kind, Need, Resolution};
use crate::policy::{Choice, Policy};
use crate::shape::{Field, Shape};

/// Why a request is not sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The rule, as the policy file calls it: `containers.privileged`.
    pub rule: &'static str,
    /// For the caller.
    pub message: String,
}

/// What a rule changed in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The rule, as the policy file calls it.
    pub rule: &'static str,
    /// For the caller, as a warning.
    pub message: String,
}

/// One judgement in progress. The first refusal stands; judging goes on, so that all needs are known at once.
#[derive(Debug)]
pub(crate) struct Judgement<'j> {
    pub policy: &'j Policy,
    pub identity: &'j Identity,
    pub facts: &'j Facts,
    pub refusal: Option<Refusal>,
    pub changes: Vec<Change>,
    pub needs: Vec<Need>,
    /// The oldest minor version of the API that knows what is sent on; 0 for any.
    pub version: u32,
    /// Mounts that were written as binds.
    pub mounts: Vec<Value>,
}

impl<'j> Judgement<'j> {
    pub fn new(policy: &'j Policy, identity: &'j Identity, facts: &'j Facts) -> Self {
        Self {
            policy,
            identity,
            facts,
            refusal: None,
            changes: Vec::new(),
            needs: Vec::new(),
            version: 0,
            mounts: Vec::new(),
        }
    }

    /// Refuses with 403.
    pub fn refuse(&mut self, rule: &'static str, message: impl Into<Cow<'static, str>>) {
        let (name, message) = (&self.policy.name, message.into());
        let message = format!("refused by policy `{name}` ({rule}): {message}");
        self.answer(403, rule, message);
    }

    /// Refuses with another status and Docker's own words.
    pub fn answer(&mut self, status: u16, rule: &'static str, message: String) {
        self.refusal.get_or_insert(Refusal { status, rule, message });
    }

    /// Notes a change, which the caller reads as a warning.
    pub fn change(&mut self, rule: &'static str, message: impl Into<String>) {
        let message = message.into();
        let name = &self.policy.name;
        self.changes.push(Change { rule, message: format!("policy `{name}` ({rule}): {message}") });
    }

    /// Follows `choice` for something that is on no list; true where it is granted.
    pub fn choose(&mut self, choice: Choice, rule: &'static str, what: &str) -> bool {
        match choice {
            Choice::Allow => return true,
            Choice::Drop => self.change(rule, format!("{what} was left out")),
            Choice::Refuse => self.refuse(rule, format!("{what} is not allowed")),
        }
        false
    }

    /// What `name` means; `None` (and a need) where that is not known yet.
    pub fn name(&mut self, kind: Kind, name: &str) -> Option<Resolution> {
        let key = (kind, name.to_owned());
        let found = self.facts.names.get(&key).cloned();
        if found.is_none() {
            self.needs.push(Need::Name(kind, key.1));
        }
        found
    }

    /// The id of a thing of the session's own; anything else is absent for it.
    pub fn own(&mut self, kind: Kind, name: &str) -> Option<String> {
        match self.name(kind, name)? {
            Resolution::Own(id) => Some(id),
            Resolution::Shared { name, .. } => {
                self.refuse("objects", format!("the {} `{name}` is the operator's", kind.noun()));
                None
            }
            Resolution::Joined(_) => {
                self.refuse("objects", format!("the {} `{name}` is the operator's", kind.noun()));
                None
            }
            Resolution::Foreign | Resolution::Absent => {
                self.answer(404, "objects", kind.absent(name));
                None
            }
        }
    }

    /// The id of a thing that the session may look at: its own, or one that is shared.
    pub fn visible(&mut self, kind: Kind, name: &str) -> Option<String> {
        match self.name(kind, name)? {
            Resolution::Own(id) | Resolution::Joined(id) | Resolution::Shared { id, .. } => Some(id),
            Resolution::Foreign | Resolution::Absent => {
                self.answer(404, "objects", kind.absent(name));
                None
            }
        }
    }

    /// As [`Self::visible`], for a name within a body: clients would take 404 for a missing image, and pull it.
    pub fn referred(&mut self, kind: Kind, name: &str) -> Option<String> {
        let before = self.refusal.is_some();
        let found = self.visible(kind, name);
        if let Some(refusal) = self.refusal.as_mut().filter(|refusal| !before && refusal.status == 404) {
            refusal.status = 400;
        }
        found
    }

    /// Refuses where the session already has `limit` things of `kind`.
    pub fn quota(&mut self, kind: Kind, limit: Option<usize>, rule: &'static str) {
        let Some(limit) = limit else { return };
        match self.facts.counts.get(&kind) {
            None => self.needs.push(Need::Count(kind)),
            Some(count) if *count >= limit => {
                self.refuse(rule, format!("this session already has {count} of {limit}"));
            }
            Some(_) => {}
        }
    }

    /// Lets every field of `object` be judged, inner ones first.
    pub fn object(&mut self, fields: &'static [Field], object: Map<String, Value>) -> Map<String, Value> {
        let judge = |(key, value): (String, Value)| {
            let field = fields.iter().find(|field| field.name == key)?;
            let value = self.inner(field.shape, value);
            (field.judge)(self, value).map(|value| (key, value))
        };
        object.into_iter().filter_map(judge).collect()
    }

    fn inner(&mut self, shape: Shape, value: Value) -> Value {
        match (shape, value) {
            (Shape::Object(fields), Value::Object(object)) => Value::Object(self.object(fields, object)),
            (Shape::Objects(fields), Value::Array(items)) => {
                items.into_iter().map(|item| self.inner(Shape::Object(fields), item)).collect()
            }
            (Shape::ObjectMap(fields), Value::Object(map)) => Value::Object(
                map.into_iter().map(|(key, item)| (key, self.inner(Shape::Object(fields), item))).collect(),
            ),
            (Shape::ObjectsMap(fields), Value::Object(map)) => Value::Object(
                map.into_iter()
                    .map(|(key, items)| (key, self.inner(Shape::Objects(fields), items)))
                    .collect(),
            ),
            (_, value) => value,
        }
    }
}

/// A field that gives no power over anything but the thing itself.
#[expect(clippy::unnecessary_wraps, reason = "it is a judge")]
pub(crate) fn free(_: &mut Judgement<'_>, value: Value) -> Option<Value> {
    Some(value)
}

/// A field that says nothing to the other side.
pub(crate) fn dropped(_: &mut Judgement<'_>, _: Value) -> Option<Value> {
    None
}

/// A field that nobody gets.
pub(crate) fn never(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if !is_zero(&value) {
        judgement.refuse("model", "the request has a field that the gateway passes on to nobody");
    }
    None
}

/// Go's zero values, which mean "absent" wherever Docker has a field.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// The texts of a list that has been brought into shape.
pub(crate) fn texts(value: Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.into_iter().map(text).collect(),
        _ => Vec::new(),
    }
}

/// A text that has been brought into shape.
pub(crate) fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        _ => String::new(),
    }
}

/// The text of a field; empty where there is none.
pub(crate) fn field<'o>(object: &'o Map<String, Value>, name: &str) -> &'o str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}
