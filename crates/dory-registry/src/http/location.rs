//! Addresses of requests: where they go to, and where an answer's `Location` leads from there.

use std::fmt;

use http::Uri;

/// Plain or encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What a credential belongs to: scheme, host and port together (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Origin {
    pub(crate) scheme: Scheme,
    /// Lower case; an IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// The origin of `host`, which may carry a port, as in `localhost:5000` and `[::1]:5000`.
    pub(crate) fn new(scheme: Scheme, host: &str) -> Option<Self> {
        Location::parse(&format!("{}://{host}", scheme.as_str())).map(|location| location.origin)
    }

    /// Host and port as a URL has them; the port only where it is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

/// An absolute address.
///
/// `Display` leaves the query out: what registries redirect to has signatures there that are as good as passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) origin: Origin,
    /// Path and query; begins with a slash.
    target: String,
}

impl Location {
    /// Reads an absolute `http` or `https` address. One with a user's name or a fragment is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let scheme = match uri.scheme_str()? {
            scheme if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            scheme if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        // `host:` and ports beyond 65535 are not what they seem.
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port.parse().ok()?,
            _ => scheme.default_port(),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let slash = if target.starts_with('/') { "" } else { "/" };
        Some(Self { origin: Origin { scheme, host, port }, target: format!("{slash}{target}") })
    }

    /// The address of `target`, which begins with a slash, at `origin`.
    pub(crate) fn at(origin: &Origin, target: impl Into<String>) -> Self {
        Self { origin: origin.clone(), target: target.into() }
    }

    /// Where an answer from here leads with `reference` (RFC 3986, section 5.2, without the dot segments that no
    /// registry sends).
    pub(crate) fn join(&self, reference: &str) -> Option<Self> {
        let reference = reference.split('#').next().unwrap_or_default();
        if reference.contains("://") && !reference.starts_with(['/', '?']) {
            return Self::parse(reference);
        }
        if reference.starts_with("//") {
            return Self::parse(&format!("{}:{reference}", self.origin.scheme.as_str()));
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let target = match reference.as_bytes().first() {
            None => return None,
            Some(b'/') => reference.to_owned(),
            Some(b'?') => format!("{path}{reference}"),
            Some(_) => {
                format!("{}/{reference}", path.rsplit_once('/').map_or("", |(directory, _)| directory))
            }
        };
        Self::parse(&format!("{}{target}", self.origin))
    }

    /// The same address with one more parameter, whose value needs no escape but that of `+`, `:` and `/`.
    pub(crate) fn with_query(mut self, name: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(name);
        self.target.push('=');
        self.target.push_str(&escape(value));
        self
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// As hyper takes it; `None` for characters that an address cannot have.
    pub(crate) fn uri(&self) -> Option<Uri> {
        format!("{}{}", self.origin, self.target).parse().ok()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.origin, self.target.split('?').next().unwrap_or_default())
    }
}

/// Percent-encodes what is not unreserved (RFC 3986, section 2.3).
pub(crate) fn escape(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (text, shown, port) in [
            ("http://A.Example", "http://a.example/", 80),
            ("https://a.example:443/x?y=z", "https://a.example/x", 443),
            ("http://[::1]:5000/v2/", "http://[::1]:5000/v2/", 5000),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!((location.to_string().as_str(), location.origin.port), (shown, port));
        }
        for wrong in [
            "",
            "a.example/x",
            "ftp://a.example/",
            "http://user:word@a.example/",
            "http://a.example:99999/",
            "http:///x",
        ] {
            assert_eq!(Location::parse(wrong), None, "{wrong}");
        }
        assert_eq!(
            Origin::new(Scheme::Https, "localhost:5000").unwrap().to_string(),
            "https://localhost:5000"
        );
    }

    #[test]
    fn joins() {
        let here = Location::parse("https://a.example:5000/v2/x/blobs/uploads/1?state=s").unwrap();
        for (reference, whole) in [
            ("/v2/y", Some("https://a.example:5000/v2/y")),
            ("2?state=t", Some("https://a.example:5000/v2/x/blobs/uploads/2?state=t")),
            ("?state=t", Some("https://a.example:5000/v2/x/blobs/uploads/1?state=t")),
            ("//b.example/z", Some("https://b.example/z")),
            ("http://b.example/z#end", Some("http://b.example/z")),
            ("/v2/a?to=http://b.example", Some("https://a.example:5000/v2/a?to=http://b.example")),
            ("", None),
            ("ftp://b.example/", None),
        ] {
            let joined = here.join(reference).map(|joined| joined.uri().unwrap().to_string());
            assert_eq!(joined.as_deref(), whole, "{reference}");
        }
        assert_eq!(
            here.with_query("digest", "sha256:a+b").target(),
            "/v2/x/blobs/uploads/1?state=s&digest=sha256%3Aa%2Bb"
        );
    }
}
