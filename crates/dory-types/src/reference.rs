//! Image references in Docker's familiar and full forms.
//!
//! Grammar: distribution's `reference` package ("reference := name [ ":" tag ] [ "@" digest ]"); Docker adds the
//! defaults `docker.io`, `library/` and `latest`. The error texts are those of that package: clients print them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, DigestError};

/// The registry of a name that states none.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Docker Hub's former name, still accepted for the same registry.
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
/// The namespace of Docker Hub's own images.
const OFFICIAL_NAMESPACE: &str = "library/";
/// The tag of a reference that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// The longest path of a repository, in bytes.
const PATH_LENGTH_MAX: usize = 255;
/// The longest tag, in bytes.
const TAG_LENGTH_MAX: usize = 128;

/// The text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The grammar does not match.
    #[error("invalid reference format")]
    InvalidFormat,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The repository could be taken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The repository's path is too long.
    #[error("invalid reference format: repository name must not be more than {PATH_LENGTH_MAX} characters")]
    TooLong,
    /// The tag alone does not match its grammar.
    #[error("invalid tag format")]
    InvalidTag,
    /// The digest part is none.
    #[error("invalid reference format: {0}")]
    Digest(#[from] DigestError),
}

/// A repository: registry and path, such as `docker.io/library/busybox`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    domain: String,
    path: String,
}

impl Repository {
    /// The registry's host and port, such as `docker.io` or `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The path in the registry, such as `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The shortest form that Docker shows, such as `busybox`.
    ///
    /// It is for people to read. As with Docker it does not always lead back: of `docker.io/a.b/c` it is `a.b/c`, which
    /// names a repository of the registry `a.b`, and of a repository named like an id it is refused. Docker Hub has
    /// neither. What is kept or compared is the full form.
    pub fn familiar(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.to_string();
        }
        match self.path.strip_prefix(OFFICIAL_NAMESPACE) {
            Some(official) if !official.contains('/') => official.to_owned(),
            _ => self.path.clone(),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.domain, self.path)
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let reference = ImageReference::parse_untagged(text)?;
        if reference.tag.is_some() || reference.digest.is_some() {
            return Err(ReferenceError::InvalidFormat);
        }
        Ok(reference.repository)
    }
}

/// A tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tag {
    fn default() -> Self {
        Self(DEFAULT_TAG.to_owned())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = text.len() <= TAG_LENGTH_MAX
            && text.bytes().next().is_some_and(is_word)
            && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
        if valid { Ok(Self(text.to_owned())) } else { Err(ReferenceError::InvalidTag) }
    }
}

/// A normalised image reference: a repository with a tag, a digest, or both.
///
/// Parsing gives a bare name the tag `latest`; [`ImageReference::parse_untagged`] leaves it bare. `Display` and the
/// serialised form are the full one (`docker.io/library/busybox:latest`), [`ImageReference::familiar`] the short one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageReference {
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// The reference to `tag` in `repository`.
    pub fn tagged(repository: Repository, tag: Tag) -> Self {
        Self { repository, tag: Some(tag), digest: None }
    }

    /// The reference to the manifest with `digest` in `repository`.
    pub fn digested(repository: Repository, digest: Digest) -> Self {
        Self { repository, tag: None, digest: Some(digest) }
    }

    /// Reads a reference and adds no tag where it has none.
    ///
    /// # Errors
    /// Every variant of [`ReferenceError`] but [`ReferenceError::InvalidTag`].
    pub fn parse_untagged(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (domain, rest) = split_domain(text);
        let before_tag = rest.split(':').next().unwrap_or_default();
        if before_tag.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase(before_tag.to_owned()));
        }
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(parse_digest(digest)?)),
            None => (rest.as_str(), None),
        };
        let (path, tag) = match name.split_once(':') {
            Some((path, tag)) => (path, Some(tag.parse().map_err(|_| ReferenceError::InvalidFormat)?)),
            None => (name, None),
        };
        if !is_domain(domain) || !path.split('/').all(is_path_component) {
            return Err(ReferenceError::InvalidFormat);
        }
        if path.len() > PATH_LENGTH_MAX {
            return Err(ReferenceError::TooLong);
        }
        let repository = Repository { domain: domain.to_owned(), path: path.to_owned() };
        Ok(Self { repository, tag, digest })
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, where the reference has one.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, where the reference has one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The short form that Docker shows: `busybox:latest`, `user/image@sha256:…`, `localhost:5000/image:1`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.repository.familiar())
    }

    /// `name` with this reference's tag and digest behind it.
    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag.as_str());
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.with_suffix(self.repository.to_string()))
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let mut reference = Self::parse_untagged(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some(Tag::default());
        }
        Ok(reference)
    }
}

impl TryFrom<String> for ImageReference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        Self::parse_untagged(&text)
    }
}

impl From<ImageReference> for String {
    fn from(reference: ImageReference) -> Self {
        reference.to_string()
    }
}

/// Splits the registry off a familiar name; what stands before the first slash is one only where it has a dot, a
/// colon or an upper-case letter, or is `localhost`.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    let domain = if domain == LEGACY_DEFAULT_DOMAIN { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        return (domain, format!("{OFFICIAL_NAMESPACE}{rest}"));
    }
    (domain, rest.to_owned())
}

/// Reads the part behind `@`: what does not look like a digest at all is the whole reference's error.
fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    let shaped = text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && hex.len() >= 32
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if shaped { Ok(text.parse()?) } else { Err(ReferenceError::InvalidFormat) }
}

/// True for a host name, an IPv4 address or a bracketed IPv6 address, with or without a port.
fn is_domain(domain: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(bracketed) = domain.strip_prefix('[') {
        let Some((address, port)) = bracketed.split_once(']') else { return false };
        return !address.is_empty()
            && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port)));
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// True for runs of lower-case letters and digits joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separator_allowed = |separator: &[u8]| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
    };
    let bytes = component.as_bytes();
    let ends_in_words =
        bytes.first().is_some_and(|byte| is_word(*byte)) && bytes.last().is_some_and(|byte| is_word(*byte));
    ends_in_words && bytes.split(|byte| is_word(*byte)).all(separator_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn familiar_names_are_normalised_and_back() {
        let digest = format!("@sha256:{HEX}");
        let cases = [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("user/image", "docker.io/user/image:latest", "user/image:latest"),
            ("index.docker.io/library/a", "docker.io/library/a:latest", "a:latest"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("Host/a", "Host/a:latest", "Host/a:latest"),
            ("a__b.c---d", "docker.io/library/a__b.c---d:latest", "a__b.c---d:latest"),
            ("docker.io/library/x/y", "docker.io/library/x/y:latest", "library/x/y:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "a.b/c:latest"),
            ("docker.io/localhost/c", "docker.io/localhost/c:latest", "localhost/c:latest"),
        ];
        for (text, full, familiar) in cases {
            let reference: ImageReference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (full, familiar));
            assert_eq!(full.parse::<ImageReference>().unwrap(), reference);
        }
        let digested: ImageReference = format!("busybox{digest}").parse().unwrap();
        assert_eq!(digested.familiar(), format!("busybox{digest}"));
        assert!(digested.tag().is_none());
        let both: ImageReference = format!("busybox:1{digest}").parse().unwrap();
        assert_eq!(both.familiar(), format!("busybox:1{digest}"));
    }

    #[test]
    fn refuses_with_dockers_texts() {
        let long = "a/".repeat(128) + "a";
        let cases = [
            ("", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a@sha256:1234", "invalid reference format"),
            ("a.-b", "invalid reference format"),
            ("bad-.com/x", "invalid reference format"),
            ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
            (HEX, &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")),
            (&long, "invalid reference format: repository name must not be more than 255 characters"),
            (&format!("a@sha512:{HEX}"), "invalid reference format: unsupported digest algorithm"),
        ];
        for (text, message) in cases {
            assert_eq!(text.parse::<ImageReference>().unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn repositories_and_tags_alone() {
        assert_eq!("busybox".parse::<Repository>().unwrap().familiar(), "busybox");
        assert!("busybox:1".parse::<Repository>().is_err());
        assert!("a".repeat(129).parse::<Tag>().is_err());
        assert_eq!(".a".parse::<Tag>().unwrap_err().to_string(), "invalid tag format");
    }
}
