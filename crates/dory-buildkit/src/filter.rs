//! Filters of the cache and of the history, as clients write them: containerd's `filters` package.
//!
//! `type==regular,inuse` wants both; of several filters one is enough. Operators are `==`, `!=` and `~=` (a regular expression,
//! which is taken as a text that has to occur); a field without one has to be there.

use std::borrow::Cow;

/// A filter that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No filter can be so.
    #[error("invalid filter `{0}`")]
    Syntax(String),
    /// Nothing is known by this name.
    #[error("unknown field `{field}` in the filter `{filter}`")]
    Field {
        /// The name.
        field: String,
        /// The filter.
        filter: String,
    },
    /// A regular expression with more than plain text in it.
    #[error("regular expressions are not supported by dory yet: `{0}`")]
    Expression(String),
}

/// Filters, read; none lets everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(Vec<Vec<Condition>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    field: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Present,
    Is(String),
    IsNot(String),
    Has(String),
}

impl Filters {
    /// Reads `filters`, which may name `fields` alone.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn parse(filters: &[String], fields: &[&str]) -> Result<Self, FilterError> {
        let filters = filters.iter().filter(|filter| !filter.is_empty());
        filters.map(|filter| conditions(filter, fields)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether something is wanted; `value` gives its fields, `None` for those that it does not have.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<Cow<'a, str>>) -> bool {
        let holds = |condition: &Condition| {
            let value = value(&condition.field);
            match &condition.test {
                Test::Present => value.is_some(),
                Test::Is(wanted) => value.is_some_and(|value| value == *wanted),
                Test::IsNot(other) => value.is_none_or(|value| value != *other),
                Test::Has(part) => value.is_some_and(|value| value.contains(part.as_str())),
            }
        };
        self.0.is_empty() || self.0.iter().any(|conditions| conditions.iter().all(holds))
    }

    /// Whether everything is wanted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn conditions(filter: &str, fields: &[&str]) -> Result<Vec<Condition>, FilterError> {
    let parts = dory_dockerfile::csv_fields(filter).ok_or_else(|| FilterError::Syntax(filter.to_owned()))?;
    parts.iter().map(|part| condition(part.trim(), filter, fields)).collect()
}

fn condition(part: &str, filter: &str, fields: &[&str]) -> Result<Condition, FilterError> {
    let syntax = || FilterError::Syntax(filter.to_owned());
    let found =
        ["==", "!=", "~="].iter().filter_map(|operator| Some((part.find(operator)?, *operator))).min();
    let (field, test) = match found {
        None if part.contains('=') => return Err(syntax()),
        None => (part, Test::Present),
        Some((at, operator)) => {
            let value = unquoted(&part[at + 2..]).ok_or_else(syntax)?;
            let test = match operator {
                "==" => Test::Is(value),
                "!=" => Test::IsNot(value),
                _ if value.contains(['\\', '^', '$', '.', '|', '?', '*', '+', '(', '[', '{']) => {
                    return Err(FilterError::Expression(value));
                }
                _ => Test::Has(value),
            };
            (&part[..at], test)
        }
    };
    if !fields.contains(&field) {
        return Err(FilterError::Field { field: field.to_owned(), filter: filter.to_owned() });
    }
    Ok(Condition { field: field.to_owned(), test })
}

/// The value itself where it is in quotes.
fn unquoted(value: &str) -> Option<String> {
    match value.strip_prefix('"') {
        None => Some(value.to_owned()),
        Some(rest) => rest.strip_suffix('"').map(|inner| inner.replace("\\\"", "\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 3] = ["id", "type", "inuse"];

    #[test]
    fn filters_are_followed() {
        let value = |name: &str| match name {
            "id" => Some(Cow::Borrowed("abc")),
            "type" => Some(Cow::Borrowed("source.local")),
            _ => None,
        };
        for (filters, expected) in [
            (&[][..], true),
            (&["id==abc"], true),
            (&["id==abd"], false),
            (&["id!=abd", "inuse"], true),
            (&["id==abc,inuse"], false),
            (&["type~=local"], true),
            (&["inuse==true"], false),
            (&["inuse!=true"], true),
        ] {
            let filters: Vec<_> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            assert_eq!(Filters::parse(&filters, &FIELDS).unwrap().matches(value), expected, "{filters:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for (filter, message) in [
            ("size==1", "unknown field `size` in the filter `size==1`"),
            ("id=x", "invalid filter `id=x`"),
            ("id~=a.*", "regular expressions are not supported by dory yet: `a.*`"),
        ] {
            let error = Filters::parse(&[filter.to_owned()], &FIELDS).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
