//! What proves who asks, and Docker's form of it in headers and bodies.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use std::collections::HashMap;

use super::Secret;

/// Docker's clients encode `X-Registry-Auth` with either alphabet, with and without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
/// The alphabet of the specification (RFC 4648, section 5).
pub(super) const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
/// The alphabet of `config.json`.
pub(super) const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
/// The longest header that is read, in bytes: tokens of some registries take several thousands.
const LENGTH_MAX: usize = 64 << 10;

/// The header is not Docker's.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It is too long to be one.
    #[error("invalid X-Registry-Auth header: too long")]
    TooLong,
    /// It is not base64.
    #[error("invalid X-Registry-Auth header: must be a valid base64url-encoded string")]
    Encoding(#[source] base64::DecodeError),
    /// What it encodes is not the JSON object of the API's `AuthConfig`.
    #[error("invalid X-Registry-Auth header")]
    Malformed(#[source] serde_json::Error),
}

/// What proves who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// Nothing.
    #[default]
    Anonymous,
    /// A name and a password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token that the registry's token service gives others for (OAuth 2's refresh token).
    IdentityToken(Secret),
    /// A token that the registry itself takes.
    RegistryToken(Secret),
}

/// API 1.51, `AuthConfig`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AuthConfig {
    pub(super) username: String,
    pub(super) password: Secret,
    /// `username:password` in base64, as in `config.json`.
    pub(super) auth: Secret,
    pub(super) serveraddress: String,
    pub(super) identitytoken: Secret,
    pub(super) registrytoken: Secret,
}

impl AuthConfig {
    /// The proof that counts where there are several, in Docker's order.
    pub(super) fn credentials(self) -> Credentials {
        if !self.registrytoken.is_empty() {
            return Credentials::RegistryToken(self.registrytoken);
        }
        if !self.identitytoken.is_empty() {
            return Credentials::IdentityToken(self.identitytoken);
        }
        if self.username.is_empty() && self.password.is_empty() {
            return decode_basic(self.auth.expose()).unwrap_or_default();
        }
        Credentials::Basic { username: self.username, password: self.password }
    }
}

/// Reads `username:password` in base64.
pub(super) fn decode_basic(text: &str) -> Option<Credentials> {
    let decoded = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    // Old clients filled the field up with NULs.
    let password = Secret::new(password.trim_end_matches('\0'));
    (!username.is_empty()).then(|| Credentials::Basic { username: username.to_owned(), password })
}

impl Credentials {
    /// Reads `X-Registry-Auth`; an empty one, and an empty object, are nobody's.
    ///
    /// Source: Docker Engine API 1.51, "Authentication".
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn from_header(header: &str) -> Result<Self, CredentialsError> {
        Self::parse_header(header).map(AuthConfig::credentials)
    }

    /// Reads `X-Registry-Config`: the credentials that a client has, by registry as it spells them.
    ///
    /// Source: Docker Engine API 1.51, `ImageBuild`.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn from_config_header(header: &str) -> Result<HashMap<String, Self>, CredentialsError> {
        if header.is_empty() {
            return Ok(HashMap::new());
        }
        let configs: HashMap<String, AuthConfig> = Self::decode_header(header)?;
        Ok(configs.into_iter().map(|(name, config)| (name, config.credentials())).collect())
    }

    fn parse_header(header: &str) -> Result<AuthConfig, CredentialsError> {
        if header.is_empty() {
            return Ok(AuthConfig::default());
        }
        Self::decode_header(header)
    }

    fn decode_header<T: serde::de::DeserializeOwned>(header: &str) -> Result<T, CredentialsError> {
        if header.len() > LENGTH_MAX {
            return Err(CredentialsError::TooLong);
        }
        let json = match URL_SAFE.decode(header) {
            Ok(json) => json,
            Err(error) => STANDARD.decode(header).map_err(|_| CredentialsError::Encoding(error))?,
        };
        serde_json::from_slice(&json).map_err(CredentialsError::Malformed)
    }

    /// Reads the body of `POST /auth`: the credentials, and the registry that they are for.
    ///
    /// # Errors
    /// Where it is not the JSON object of the API's `AuthConfig`.
    pub fn from_auth_config(json: &[u8]) -> Result<(Self, String), serde_json::Error> {
        let mut config: AuthConfig = serde_json::from_slice(json)?;
        let address = std::mem::take(&mut config.serveraddress);
        Ok((config.credentials(), address))
    }

    /// These credentials as `X-Registry-Auth`, for `registry`, a host as in `config.json`.
    pub fn to_header(&self, registry: &str) -> Secret {
        let mut object = serde_json::Map::new();
        let mut set = |name: &str, value: &str| object.insert(name.to_owned(), value.into());
        match self {
            Self::Anonymous => {}
            Self::Basic { username, password } => {
                set("username", username);
                set("password", password.expose());
            }
            Self::IdentityToken(token) => drop(set("identitytoken", token.expose())),
            Self::RegistryToken(token) => drop(set("registrytoken", token.expose())),
        }
        set("serveraddress", registry);
        Secret::new(URL_SAFE.encode(serde_json::Value::Object(object).to_string()))
    }

    /// The value of `Authorization` for a registry that asks for a name and a password; `None` where there is none.
    pub(crate) fn basic(&self) -> Option<Secret> {
        let Self::Basic { username, password } = self else { return None };
        Some(Secret::new(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose())))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credentials {
        Credentials::Basic { username: username.to_owned(), password: Secret::new(password) }
    }

    #[test]
    fn headers_of_all_clients() {
        for (json, expected) in [
            (r#"{"username":"u","password":"p?>~","serveraddress":"r.example"}"#, basic("u", "p?>~")),
            (
                r#"{"identitytoken":"t","username":"","extra":[1]}"#,
                Credentials::IdentityToken(Secret::new("t")),
            ),
            (r#"{"registrytoken":"r"}"#, Credentials::RegistryToken(Secret::new("r"))),
            (r#"{"auth":"dTpwOnE="}"#, basic("u", "p:q")),
            ("{}", Credentials::Anonymous),
        ] {
            for encoded in [URL_SAFE.encode(json), STANDARD.encode(json)] {
                assert_eq!(Credentials::from_header(&encoded).unwrap(), expected, "{json}");
                assert_eq!(Credentials::from_header(encoded.trim_end_matches('=')).unwrap(), expected);
            }
            let header = expected.to_header("r.example");
            assert_eq!(Credentials::from_header(header.expose()).unwrap(), expected);
        }
        assert_eq!(Credentials::from_header("").unwrap(), Credentials::Anonymous);
    }

    #[test]
    fn what_is_no_header() {
        for wrong in ["!", &URL_SAFE.encode("5"), &URL_SAFE.encode("{"), &"A".repeat(LENGTH_MAX + 1)] {
            let error = Credentials::from_header(wrong).unwrap_err().to_string();
            assert!(error.starts_with("invalid X-Registry-Auth header"), "{error}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown =
            format!("{:?} {:?}", basic("u", "hidden"), Credentials::IdentityToken(Secret::new("hidden")));
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
