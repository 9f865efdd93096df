//! `WWW-Authenticate`: which proof of identity a registry wants (RFC 9110, section 11.6.1; distribution's
//! `docs/spec/auth/token.md`).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// The longest header that is read, in bytes: scopes of many repositories take some thousands.
const LENGTH_MAX: usize = 16 << 10;
/// The most challenges of one answer.
const CHALLENGES_MAX: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// A name and a password with every request.
    Basic,
    /// A token of the service that the parameters name.
    Bearer,
    /// Something that registries do not use, in lower case.
    Other(String),
}

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) scheme: Scheme,
    /// Names in lower case.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// All challenges of an answer; what is malformed ends the header that it stands in.
    pub(crate) fn of(headers: &HeaderMap) -> Vec<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut challenges: Vec<_> = values.flat_map(Self::parse).collect();
        challenges.truncate(CHALLENGES_MAX);
        challenges
    }

    /// The challenges of one header's value.
    pub(crate) fn parse(value: &str) -> Vec<Self> {
        if value.len() > LENGTH_MAX {
            return Vec::new();
        }
        let mut parser = Parser { rest: value };
        let mut challenges: Vec<Self> = Vec::new();
        loop {
            parser.skip_separators();
            let Some(word) = parser.token() else { return challenges };
            match parser.value() {
                // `name=value` belongs to the challenge before it.
                Parsed::Value(value) => {
                    let Some(challenge) = challenges.last_mut() else { return challenges };
                    challenge.parameters.push((word.to_ascii_lowercase(), value));
                }
                Parsed::None if challenges.len() < CHALLENGES_MAX => {
                    let scheme = match word.to_ascii_lowercase().as_str() {
                        "basic" => Scheme::Basic,
                        "bearer" => Scheme::Bearer,
                        other => Scheme::Other(other.to_owned()),
                    };
                    challenges.push(Self { scheme, parameters: Vec::new() });
                }
                _ => return challenges,
            }
        }
    }

    /// A parameter; of a repeated one the first.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What follows a word.
enum Parsed {
    /// `=` and a token or a quoted text.
    Value(String),
    /// Something else.
    None,
    /// `=` and nothing that makes sense.
    Malformed,
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_separators(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// RFC 9110, section 5.6.2; the characters of RFC 7235's `token68` that it lacks do no harm here.
    fn token(&mut self) -> Option<&'a str> {
        let end = self
            .rest
            .find(|character: char| {
                !character.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~/:".contains(character)
            })
            .unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(token).filter(|token| !token.is_empty())
    }

    fn value(&mut self) -> Parsed {
        let before = self.rest;
        self.skip_space();
        let Some(rest) = self.rest.strip_prefix('=') else {
            self.rest = before;
            return Parsed::None;
        };
        self.rest = rest;
        self.skip_space();
        let value = if self.rest.starts_with('"') { self.quoted() } else { self.token().map(str::to_owned) };
        value.map_or(Parsed::Malformed, Parsed::Value)
    }

    /// RFC 9110, section 5.6.4.
    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((position, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &self.rest[position + 1..];
                    return Some(text);
                }
                '\\' => text.push(characters.next()?.1),
                character => text.push(character),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Vec<String> {
        let shown = Challenge::parse(value).into_iter().map(|challenge| {
            let parameters = challenge.parameters.iter().map(|(name, value)| format!(" {name}=<{value}>"));
            format!("{:?}{}", challenge.scheme, parameters.collect::<String>())
        });
        shown.collect()
    }

    #[test]
    fn reads_challenges() {
        for (value, expected) in [
            ("Basic realm=\"Registry Realm\"", &["Basic realm=<Registry Realm>"][..]),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"r.example\",scope=\"repository:a/b:pull,push\"",
                &[
                    "Bearer realm=<https://auth.example/token> service=<r.example> scope=<repository:a/b:pull,push>",
                ],
            ),
            ("bearer Realm = x , SERVICE=\"a\\\"b\\\\c\"", &["Bearer realm=<x> service=<a\"b\\c>"]),
            ("Negotiate, Basic realm=x", &["Other(\"negotiate\")", "Basic realm=<x>"]),
            ("Basic", &["Basic"]),
            ("", &[]),
            ("realm=x", &[]),
            ("Basic realm=\"endless", &["Basic"]),
            ("Basic realm=", &["Basic"]),
            ("Basic realm=x, =y", &["Basic realm=<x>"]),
            ("Bearer realm=\"ä\\ö\"", &["Bearer realm=<äö>"]),
        ] {
            assert_eq!(shown(value), expected, "{value}");
        }
    }

    #[test]
    fn bounds() {
        assert_eq!(shown(&"Basic,".repeat(100)).len(), CHALLENGES_MAX);
        assert!(shown(&format!("Basic realm=\"{}\"", "x".repeat(LENGTH_MAX))).is_empty());
        let twice = Challenge::parse("Bearer realm=a, realm=b");
        assert_eq!(twice[0].parameter("realm"), Some("a"));
    }
}
