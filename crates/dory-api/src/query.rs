//! Query parameters as dockerd reads them: lenient booleans, Go's messages for numbers.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use dory_engine::{EngineError, Filters};
use dory_types::Timestamp;
use http::request::Parts;

use crate::error::ApiError;

/// The parameters of one request. Names are case-sensitive; of a repeated one the first counts, as in Go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(&parts.uri))
    }
}

impl Query {
    /// Reads the query of `uri`; what is not a query counts as none.
    pub(crate) fn parse(uri: &http::Uri) -> Self {
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_or_else(|_| Self::default(), |query| Self(query.0))
    }

    /// The parameter's text, `None` where it is missing.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The parameter's text, `None` where it is missing or empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Every value of a repeated parameter.
    pub(crate) fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// dockerd's `BoolValue`: anything but nothing, `0`, `no`, `false` and `none` is true.
    pub(crate) fn boolean(&self, name: &str) -> bool {
        let value = self.get(name).unwrap_or_default().trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// [`Self::boolean`], with what a missing parameter means.
    pub(crate) fn boolean_or(&self, name: &str, default: bool) -> bool {
        if self.get(name).is_some() { self.boolean(name) } else { default }
    }

    /// A whole number; `None` where the parameter is missing or empty.
    ///
    /// # Errors
    /// 400 with Go's message.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.text(name).map(|text| parse_integer(text, "Atoi")).transpose()
    }
}

/// A size of a terminal beyond this is a mistake: the kernel's `winsize` has 16 bits.
const CONSOLE_LIMIT: i64 = u16::MAX as i64;

impl Query {
    /// The `filters` parameter.
    ///
    /// # Errors
    /// 400 where it is not JSON of the right shape.
    pub(crate) fn filters(&self) -> Result<Filters, ApiError> {
        Ok(Filters::parse(self.get("filters").unwrap_or_default()).map_err(EngineError::from)?)
    }

    /// Seconds since 1970 with an optional fraction; `None` where missing, empty or `0`.
    ///
    /// # Errors
    /// 400 with Go's message.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let text = self.text(name).filter(|text| *text != "0");
        text.map(Timestamp::parse_unix).transpose().map_err(|error| ApiError::bad_request(error.to_string()))
    }

    /// `h` and `w` of a resize.
    ///
    /// # Errors
    /// 400 where one is missing or out of range.
    pub(crate) fn console_size(&self) -> Result<(u16, u16), ApiError> {
        let side = |name, word| {
            let value = parse_integer(self.get(name).unwrap_or_default(), "ParseUint").map_err(|error| {
                ApiError::bad_request(format!("invalid resize {word}: {}", error.message()))
            })?;
            if !(0..=CONSOLE_LIMIT).contains(&value) {
                return Err(ApiError::bad_request(format!("invalid resize {word}: value out of range")));
            }
            Ok(value as u16)
        };
        Ok((side("h", "height")?, side("w", "width")?))
    }
}

/// A number, or Go's message of the function named.
pub(crate) fn parse_integer(text: &str, function: &str) -> Result<i64, ApiError> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        let reason = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        ApiError::bad_request(format!("strconv.{function}: parsing {text:?}: {reason}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(&format!("/x?{text}").parse().unwrap())
    }

    #[test]
    fn booleans_as_docker_reads_them() {
        for (text, expected) in [
            ("a=1", true),
            ("a=true", true),
            ("a=True", true),
            ("a=anything", true),
            ("a=0", false),
            ("a=", false),
            ("a", false),
            ("a=False", false),
            ("a=no", false),
            ("a=none", false),
            ("b=1", false),
        ] {
            assert_eq!(query(text).boolean("a"), expected, "{text}");
        }
        assert!(query("").boolean_or("a", true) && !query("a=").boolean_or("a", true));
    }

    #[test]
    fn times_and_sizes() {
        assert_eq!(query("since=0").time("since"), Ok(None));
        let time = query("since=12.5").time("since").unwrap().unwrap();
        assert_eq!((time.unix_seconds(), time.subsecond_nanoseconds()), (12, 500_000_000));
        assert_eq!(query("since=soon").time("since").unwrap_err().status(), 400);
        assert_eq!(query("h=24&w=80").console_size(), Ok((24, 80)));
        for wrong in ["h=24", "h=24&w=-1", "h=24&w=70000", "h=x&w=1"] {
            assert_eq!(query(wrong).console_size().unwrap_err().status(), 400, "{wrong}");
        }
    }

    #[test]
    fn numbers_and_texts() {
        assert_eq!(query("t=-1").integer("t"), Ok(Some(-1)));
        assert_eq!(query("t=").integer("t"), Ok(None));
        assert_eq!(
            query("t=x").integer("t").unwrap_err().message(),
            "strconv.Atoi: parsing \"x\": invalid syntax"
        );
        assert_eq!(query("n=a%2Fb+c").get("n"), Some("a/b c"));
        assert_eq!(query("n=1&n=2").all("n").collect::<Vec<_>>(), ["1", "2"]);
    }
}
