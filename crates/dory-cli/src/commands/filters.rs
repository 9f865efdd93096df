//! `--filter`.

use std::collections::BTreeMap;

use crate::flags::{Arguments, FlagError};

/// Conditions on what is listed or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `--filter`.
    ///
    /// # Errors
    /// Docker's text for a filter without a value.
    pub(super) fn read(arguments: &Arguments) -> Result<Self, FlagError> {
        let mut filters = Self::default();
        for (name, value) in arguments.parsed_list("filter", |text| match text.split_once('=') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => Err("bad format of filter (expected name=value)"),
        })? {
            filters.add(&name, &value);
        }
        Ok(filters)
    }

    /// Adds a condition.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().push(value.to_owned());
    }

    /// The API's `filters` parameter; empty where there are none.
    pub(super) fn to_parameter(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        serde_json::to_string(&self.0).expect("maps of texts always encode")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{FlagsEnd, list};

    fn read(words: &[&str]) -> Result<Filters, FlagError> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Filters::read(&Arguments::parse(&[&[list("filter", 'f', "x")]], FlagsEnd::DoubleDash, words)?)
    }

    #[test]
    fn groups_by_name() {
        let mut filters = read(&["-f", "label=a=b", "-f", "status=exited"]).unwrap();
        filters.add("label", "c");
        assert_eq!(filters.to_parameter(), r#"{"label":["a=b","c"],"status":["exited"]}"#);
        assert_eq!(Filters::default().to_parameter(), "");
        assert_eq!(
            read(&["-f", "x"]).unwrap_err().to_string(),
            "invalid argument \"x\" for \"-f, --filter\" flag: bad format of filter (expected name=value)"
        );
    }
}
