//! JSON that every reader understands alike.
//!
//! Go's reader merges objects that come twice, matches keys without regard to case, and stops looking at the end of the
//! first value; others do not. What could be read in two ways is refused here instead of interpreted. Keys that differ from
//! a known field in their case only are found where the fields are known: see [`crate::shape`].

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Most keys and elements of one document: far beyond what any client sends, and cheap to look at.
const NODE_LIMIT: usize = 50_000;

/// A document that is not JSON, or JSON that two readers could take differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is not plain JSON: {0}")]
pub struct JsonError(String);

/// Reads one document. Objects with a key twice, text behind the document, nesting beyond 128, strings with NUL or broken
/// UTF-8, and more than 50,000 nodes are refused.
///
/// # Errors
/// [`JsonError`] with the reason.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let nodes = Cell::new(NODE_LIMIT);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let fail = |error: serde_json::Error| JsonError(error.to_string());
    let value = Node(&nodes).deserialize(&mut reader).map_err(fail)?;
    reader.end().map_err(fail)?;
    Ok(value)
}

/// One value, and how many more may come.
#[derive(Clone, Copy)]
struct Node<'n>(&'n Cell<usize>);

impl Node<'_> {
    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.0.get().checked_sub(1).ok_or_else(|| E::custom("too many values"))?;
        self.0.set(left);
        Ok(())
    }
}

fn text<E: Error>(text: &str) -> Result<String, E> {
    if text.contains('\0') { Err(E::custom("a string with a NUL")) } else { Ok(text.to_owned()) }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        text(value).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            self.count()?;
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.count()?;
            let key = text(&key)?;
            let value = entries.next_value_seed(self)?;
            if map.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the key {key:?} comes twice")));
            }
        }
        Ok(Value::Object(map))
    }
}

/// `key` as Go's reader compares it: without regard to case, with U+017F for `s` and U+212A for `k`.
pub(crate) fn folded(key: &str) -> String {
    let fold = |character| match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other,
    };
    key.chars().map(fold).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_plain_documents() {
        for (text, expected) in [
            ("{}", json!({})),
            (" {\"a\":[1,-2,\"x\",null,true,1.5]}\n", json!({"a": [1, -2, "x", null, true, 1.5]})),
            ("{\"A\":1,\"a\":2}", json!({"A": 1, "a": 2})),
            ("{\"\\u0048\":1}", json!({"H": 1})),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let many = format!("[{}0]", "0,".repeat(NODE_LIMIT));
        for text in [
            "",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"x\":{\"a\":1,\"a\":null}}",
            "{}}garbage",
            "{}{}",
            "{} x",
            "{\"a\":\"\\u0000\"}",
            "{\"a\\u0000\":1}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":1e999}",
            "\u{feff}{}",
            "{'a':1}",
            "{\"a\":01}",
            deep.as_str(),
            many.as_str(),
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{}", &text[..text.len().min(40)]);
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn folds_as_go_does() {
        for key in ["HostConfig", "hostconfig", "Ho\u{17f}tConfig", "HOSTCONFIG"] {
            assert_eq!(folded(key), "hostconfig", "{key}");
        }
        assert_eq!(folded("Networ\u{212a}Mode"), "networkmode");
    }
}
