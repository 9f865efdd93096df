//! JSON as Go's `encoding/json` reads it, because that is what Docker's clients were written against.
//!
//! A struct's keys match without regard to case and unknown ones are ignored; `null` leaves the zero value in place,
//! whatever the type; a wrong type is an error that names the field. `serde_json` alone is stricter on the first two.

use std::fmt;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};

/// The document is not JSON, or has a wrong type somewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl serde::de::Error for JsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Reads `bytes` as Go would read them into `T`. Empty input is `T`'s zero value only for types that accept `null`.
///
/// # Errors
/// [`JsonError`] with the message for the client.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    from_value(serde_json::from_slice(bytes).map_err(|error| JsonError(error.to_string()))?)
}

/// Reads an already parsed document as [`from_slice`] does.
///
/// # Errors
/// [`JsonError`] with the message for the client.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, JsonError> {
    T::deserialize(GoValue { value, path: "" })
}

/// A value and the dotted name of the field that it is for.
struct GoValue<'path> {
    value: Value,
    path: &'path str,
}

impl GoValue<'_> {
    fn mismatch(&self, wanted: &str) -> JsonError {
        let found = match &self.value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if self.path.is_empty() {
            return JsonError(format!("json: cannot unmarshal {found} into Go value of type {wanted}"));
        }
        let path = self.path;
        JsonError(format!("json: cannot unmarshal {found} into Go struct field {path} of type {wanted}"))
    }
}

/// Adds the name of the field to errors that come from the types' own parsers.
fn located(path: &str, error: JsonError) -> JsonError {
    if path.is_empty() || error.0.starts_with("json: ") || error.0.contains(path) {
        return error;
    }
    JsonError(format!("{path}: {}", error.0))
}

macro_rules! number {
    ($method:ident, $type:ty, $visit:ident, $read:ident, $go:literal) => {
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            match &self.value {
                Value::Null => visitor.$visit(<$type>::default()),
                Value::Number(number) => match number.$read().and_then(|number| <$type>::try_from(number).ok()) {
                    Some(number) => visitor.$visit(number),
                    None => {
                        let path = self.path;
                        Err(JsonError(format!(
                            "json: cannot unmarshal number {number} into Go struct field {path} of type {}",
                            $go
                        )))
                    }
                },
                _ => Err(self.mismatch($go)),
            }
        }
    };
}

impl<'de> Deserializer<'de> for GoValue<'_> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::String(value) => visitor.visit_string(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., number) => visitor.visit_f64(number.unwrap_or_default()),
            },
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), path: self.path }),
            Value::Object(entries) => visitor.visit_map(Entries::new(entries, &[], self.path)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(self.mismatch("bool")),
        }
    }

    number!(deserialize_i8, i8, visit_i8, as_i64, "int8");
    number!(deserialize_i16, i16, visit_i16, as_i64, "int16");
    number!(deserialize_i32, i32, visit_i32, as_i64, "int");
    number!(deserialize_i64, i64, visit_i64, as_i64, "int64");
    number!(deserialize_u8, u8, visit_u8, as_u64, "uint8");
    number!(deserialize_u16, u16, visit_u16, as_u64, "uint16");
    number!(deserialize_u32, u32, visit_u32, as_u64, "uint");
    number!(deserialize_u64, u64, visit_u64, as_u64, "uint64");
    number!(deserialize_f64, f64, visit_f64, as_f64, "float64");

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        let path = self.path;
        match self.value {
            Value::Null => visitor.visit_str(""),
            Value::String(text) => visitor.visit_string(text),
            _ => return Err(self.mismatch("string")),
        }
        .map_err(|error| located(path, error))
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.value {
            Value::Null => visitor.visit_seq(Items { items: Vec::new().into_iter(), path: self.path }),
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), path: self.path }),
            _ => Err(self.mismatch("[]string")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.value {
            Value::Null => visitor.visit_map(Entries::new(Map::new(), &[], self.path)),
            Value::Object(entries) => visitor.visit_map(Entries::new(entries, &[], self.path)),
            _ => Err(self.mismatch("map")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        let prefix = if self.path.is_empty() { name } else { self.path };
        match self.value {
            Value::Null => visitor.visit_map(Entries::new(Map::new(), fields, prefix)),
            Value::Object(mut entries) => {
                // Go leaves a field alone where the document says null.
                entries.retain(|_, value| !value.is_null());
                visitor.visit_map(Entries { structure: true, ..Entries::new(entries, fields, prefix) })
            }
            _ => Err(self.mismatch(name)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self.value {
            Value::Null => visitor.visit_enum("".into_deserializer()),
            Value::String(text) => visitor
                .visit_enum(text.as_str().into_deserializer())
                .map_err(|error: JsonError| located(self.path, error)),
            _ => Err(self.mismatch("string")),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_u64(visitor)
    }
}

/// The elements of an array.
struct Items<'path> {
    items: std::vec::IntoIter<Value>,
    path: &'path str,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        let path = self.path;
        self.items.next().map(|value| seed.deserialize(GoValue { value, path })).transpose()
    }
}

/// The entries of an object that becomes a struct (`fields` known, keys folded to them) or a map.
struct Entries<'path> {
    entries: serde_json::map::IntoIter,
    fields: &'static [&'static str],
    structure: bool,
    path: &'path str,
    key: String,
    value: Option<Value>,
}

impl<'path> Entries<'path> {
    fn new(entries: Map<String, Value>, fields: &'static [&'static str], path: &'path str) -> Self {
        let entries = entries.into_iter();
        Self { entries, fields, structure: false, path, key: String::new(), value: None }
    }

    /// The field that `key` means: the exact one first, then the one that differs by case only.
    fn field(&self, key: String) -> String {
        if self.fields.contains(&key.as_str()) {
            return key;
        }
        match self.fields.iter().find(|field| field.eq_ignore_ascii_case(&key)) {
            Some(field) => (*field).to_owned(),
            None => key,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.key = self.field(key);
        self.value = Some(value);
        seed.deserialize(StrDeserializer::new(&self.key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        let value = self.value.take().unwrap_or(Value::Null);
        if !self.structure {
            return seed.deserialize(GoValue { value, path: self.path });
        }
        let path = format!("{}.{}", self.path, self.key);
        seed.deserialize(GoValue { value, path: &path })
    }
}

/// A list that remembers whether it was `null`, as a Go slice does; it prints as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoSlice<T>(pub Option<Vec<T>>);

impl<T> Default for GoSlice<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> std::ops::Deref for GoSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<'slice, T> IntoIterator for &'slice GoSlice<T> {
    type Item = &'slice T;
    type IntoIter = std::slice::Iter<'slice, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> GoSlice<T> {
    /// Adds an element; a `null` list becomes one.
    pub fn push(&mut self, item: T) {
        self.0.get_or_insert_default().push(item);
    }
}

impl<T> From<Vec<T>> for GoSlice<T> {
    fn from(items: Vec<T>) -> Self {
        Self(Some(items))
    }
}

impl<T: serde::Serialize> serde::Serialize for GoSlice<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for GoSlice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self)
    }
}

/// `Cmd` and `Entrypoint`: a list, or one string that means a list of one (API before 1.19 and docker-py).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct StrSlice(pub Option<Vec<String>>);

impl std::ops::Deref for StrSlice {
    type Target = [String];

    fn deref(&self) -> &[String] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = StrSlice;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or a list of strings")
            }

            fn visit_unit<E>(self) -> Result<StrSlice, E> {
                Ok(StrSlice(None))
            }

            fn visit_str<E>(self, text: &str) -> Result<StrSlice, E> {
                Ok(StrSlice(Some(vec![text.to_owned()])))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<StrSlice, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = items.next_element()? {
                    words.push(word);
                }
                Ok(StrSlice(Some(words)))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner {
        size: i64,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Outer {
        tty: bool,
        name: String,
        cmd: StrSlice,
        names: GoSlice<String>,
        inner: Inner,
        maybe: Option<u16>,
        ports: BTreeMap<String, Option<Vec<Inner>>>,
    }

    #[test]
    fn reads_as_go_does() {
        let cases = [
            ("{}", Outer::default()),
            (
                r#"{"tty":true,"NAME":"x","Unknown":{"a":[1]}}"#,
                Outer { tty: true, name: "x".into(), ..Outer::default() },
            ),
            (
                r#"{"Tty":null,"Name":null,"Cmd":null,"Inner":null,"Maybe":null,"Ports":null}"#,
                Outer::default(),
            ),
            (r#"{"Cmd":"ls"}"#, Outer { cmd: StrSlice(Some(vec!["ls".into()])), ..Outer::default() }),
            (
                r#"{"Names":[null,"a"]}"#,
                Outer { names: vec![String::new(), "a".into()].into(), ..Outer::default() },
            ),
            (
                r#"{"Ports":{"80/tcp":null,"81/tcp":[{"size":3}]},"Maybe":7}"#,
                Outer {
                    maybe: Some(7),
                    ports: [("80/tcp".into(), None), ("81/tcp".into(), Some(vec![Inner { size: 3 }]))].into(),
                    ..Outer::default()
                },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(from_slice::<Outer>(text.as_bytes()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn names_the_field_with_a_wrong_type() {
        let cases = [
            (r#"{"Tty":"yes"}"#, "json: cannot unmarshal string into Go struct field Outer.Tty of type bool"),
            (
                r#"{"Inner":{"Size":"1"}}"#,
                "json: cannot unmarshal string into Go struct field Outer.Inner.Size of type int64",
            ),
            (r#"[]"#, "json: cannot unmarshal array into Go value of type Outer"),
        ];
        for (text, message) in cases {
            assert_eq!(from_slice::<Outer>(text.as_bytes()).unwrap_err().to_string(), message, "{text}");
        }
        assert!(from_slice::<Outer>(br#"{"Maybe":70000}"#).unwrap_err().to_string().contains("number 70000"));
        assert!(from_slice::<Outer>(br#"{"Cmd":1}"#).is_err());
        assert!(from_slice::<Outer>(b"{").is_err());
    }
}
