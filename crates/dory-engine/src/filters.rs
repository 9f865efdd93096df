//! The `filters` parameter of list, prune and events.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde_json::Value;

use crate::{EngineError, ErrorKind};

/// The `filters` parameter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not a JSON object of lists (or, before API 1.22, of objects).
    #[error("invalid filter")]
    Malformed,
    /// The endpoint knows no such filter.
    #[error("invalid filter '{0}'")]
    Unknown(String),
    /// The filter's value makes no sense.
    #[error("invalid filter '{name}={value}'")]
    Value {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
}

impl From<FilterError> for EngineError {
    fn from(error: FilterError) -> Self {
        Self::new(ErrorKind::Invalid, error.to_string())
    }
}

/// Filter names to the values that are accepted; a name that is absent accepts everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the query parameter: `{"status":["running"]}`, or `{"status":{"running":true}}` from old clients. Empty
    /// text is no filter.
    ///
    /// # Errors
    /// [`FilterError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let Ok(Value::Object(entries)) = serde_json::from_str(text) else {
            return Err(FilterError::Malformed);
        };
        let mut filters = BTreeMap::new();
        for (name, values) in entries {
            let values = match values {
                Value::Array(items) => items.iter().map(text_of).collect::<Option<Vec<_>>>(),
                Value::Object(items) => Some(
                    items
                        .into_iter()
                        .filter(|(_, set)| *set == Value::Bool(true))
                        .map(|(key, _)| key)
                        .collect(),
                ),
                _ => None,
            };
            filters.insert(name, values.ok_or(FilterError::Malformed)?);
        }
        Ok(Self(filters))
    }

    /// Adds one value.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.entry(name.into()).or_default().push(value.into());
    }

    /// The values of `name`; empty where it is absent.
    pub fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// True where `name` has a value.
    pub fn contains(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// Refuses every filter that is not in `known`.
    ///
    /// # Errors
    /// [`FilterError::Unknown`].
    pub fn validate(&self, known: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(FilterError::Unknown(name.clone())),
            None => Ok(()),
        }
    }

    /// True where `name` is absent or one of its values is `value`.
    pub fn exact(&self, name: &str, value: &str) -> bool {
        let values = self.get(name);
        values.is_empty() || values.iter().any(|wanted| wanted == value)
    }

    /// True where `name` is absent or a value is true for `matches`.
    pub fn any(&self, name: &str, matches: impl FnMut(&String) -> bool) -> bool {
        let values = self.get(name);
        values.is_empty() || values.iter().any(matches)
    }

    /// The values of `name` as dockerd takes those of names and ids: texts, or regular expressions that match somewhere.
    pub fn patterns(&self, name: &str) -> Patterns {
        let compiled = self.get(name).iter().map(|text| (text.clone(), Regex::new(text).ok()));
        Patterns(compiled.collect())
    }

    /// True where every `key` or `key=value` of the filter `name` is among `labels`.
    pub fn labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(name).iter().all(|wanted| label_matches(wanted, labels))
    }

    /// True where `label` is satisfied and nothing of `label!` matches, as prune has it.
    pub fn prune_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels("label", labels) && !self.get("label!").iter().any(|label| label_matches(label, labels))
    }

    /// A filter with at most one truth value (`dangling`, `is-task`).
    ///
    /// # Errors
    /// [`FilterError::Value`].
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, FilterError> {
        let Some(value) = self.get(name).first() else { return Ok(None) };
        let parsed = dory_types::parse_bool(value);
        let wrong = || FilterError::Value { name: name.to_owned(), value: format!("[{value}]") };
        parsed.map(Some).ok_or_else(wrong)
    }
}

/// What [`Filters::patterns`] accepts; without a value everything.
#[derive(Debug, Clone)]
pub struct Patterns(Vec<(String, Option<Regex>)>);

impl Patterns {
    /// True where a value is `text`, or matches in it; one that is no regular expression only is what it is.
    pub fn accept(&self, text: &str) -> bool {
        let matches = |(pattern, regex): &(String, Option<Regex>)| {
            pattern == text || regex.as_ref().is_some_and(|regex| regex.is_match(text))
        };
        self.0.is_empty() || self.0.iter().any(matches)
    }
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn label_matches(wanted: &str, labels: &BTreeMap<String, String>) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        let list = Filters::parse(r#"{"status":["running","paused"],"label":["a=b"]}"#).unwrap();
        let object =
            Filters::parse(r#"{"status":{"paused":true,"running":true,"dead":false},"label":{"a=b":true}}"#)
                .unwrap();
        for filters in [&list, &object] {
            assert!(filters.exact("status", "running") && filters.exact("status", "paused"));
            assert!(!filters.exact("status", "dead"));
            assert!(filters.labels("label", &[("a".to_owned(), "b".to_owned())].into()));
            assert!(!filters.labels("label", &[("a".to_owned(), "c".to_owned())].into()));
        }
        assert_eq!(Filters::parse("").unwrap(), Filters::default());
        for wrong in ["[]", "{", r#"{"a":1}"#, r#"{"a":[1]}"#] {
            assert_eq!(Filters::parse(wrong), Err(FilterError::Malformed), "{wrong}");
        }
    }

    #[test]
    fn patterns_match_somewhere() {
        let cases = [
            ("web", "my-web-1", true),
            ("^web", "my-web-1", false),
            ("w.b", "my-web-1", true),
            ("db|web", "my-web-1", true),
            ("[", "[", true),
            ("[", "web", false),
        ];
        for (pattern, text, accepted) in cases {
            let mut filters = Filters::default();
            filters.add("name", pattern);
            assert_eq!(filters.patterns("name").accept(text), accepted, "{pattern}");
        }
        assert!(Filters::default().patterns("name").accept("anything"));
    }

    #[test]
    fn validates_names_and_truth_values() {
        let filters = Filters::parse(r#"{"dangling":["maybe"]}"#).unwrap();
        assert_eq!(filters.validate(&["label"]).unwrap_err().to_string(), "invalid filter 'dangling'");
        assert_eq!(filters.boolean("dangling").unwrap_err().to_string(), "invalid filter 'dangling=[maybe]'");
        assert_eq!(filters.boolean("other"), Ok(None));
    }
}
