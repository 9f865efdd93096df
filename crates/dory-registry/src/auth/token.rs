//! Token services: a registry that answers with a `Bearer` challenge names one, and it gives tokens for credentials.
//!
//! Source: distribution's `docs/spec/auth/token.md` (GET, with Basic) and `docs/spec/auth/oauth.md` (POST, for identity
//! tokens). Docker's rule says whom credentials go to: the service that the registry itself names; ours adds that this
//! must not be a plain connection where the registry's is encrypted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;

use super::{Challenge, Credentials, Secret};
use crate::error::RegistryMessage;
use crate::http::{Exchange, Location, Origin, Scheme, Transport, TransportError, escape, full};

/// The longest answer of a token service, in bytes.
const ANSWER_LENGTH_MAX: u64 = 1 << 20;
/// How long a token is good that does not say (token.md: 60 seconds), and a bit less, for clocks and ways.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(60);
const LIFETIME_MARGIN: Duration = Duration::from_secs(5);
/// No token is kept longer: a service may say anything.
const LIFETIME_MAX: Duration = Duration::from_secs(3600);
/// How Docker's clients call themselves (oauth.md, `client_id`).
const CLIENT_ID: &str = "docker";
/// The most tokens that are kept.
const TOKENS_MAX: usize = 1000;

/// There is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The challenge names no service, or none that may be asked.
    #[error("the registry names no usable token service: `{0}`")]
    Realm(String),
    /// The registry's connection is encrypted, the service's would not be.
    #[error("the registry asks for credentials at {0}, without encryption")]
    PlainRealm(Origin),
    /// The service cannot be reached.
    #[error("cannot ask the token service {service}")]
    Exchange {
        service: Location,
        #[source]
        source: TransportError,
    },
    /// The service refused.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    /// What it answered has no token.
    #[error("the token service {service} gave no token")]
    NoToken { service: Location },
}

/// What a token is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenRequest {
    realm: String,
    service: String,
    /// Sorted, without duplicates.
    scopes: Vec<String>,
    credentials: Credentials,
}

impl TokenRequest {
    /// The request that `challenge` leads to; `scope` is what is about to be done, with spaces
    /// between several things.
    pub(crate) fn new(challenge: &Challenge, scope: Option<&str>, credentials: &Credentials) -> Self {
        let stated = challenge.parameter("scope").unwrap_or_default().split_ascii_whitespace();
        let mut scopes: Vec<_> =
            stated.chain(scope.unwrap_or_default().split_ascii_whitespace()).map(str::to_owned).collect();
        scopes.sort_unstable();
        scopes.dedup();
        Self {
            realm: challenge.parameter("realm").unwrap_or_default().to_owned(),
            service: challenge.parameter("service").unwrap_or_default().to_owned(),
            scopes,
            credentials: credentials.clone(),
        }
    }

    /// The service's address, checked against that of the registry which named it.
    fn location(&self, registry: &Origin) -> Result<Location, TokenError> {
        let realm = Location::parse(&self.realm).ok_or_else(|| TokenError::Realm(self.realm.clone()))?;
        if registry.scheme == Scheme::Https && realm.origin.scheme == Scheme::Http {
            return Err(TokenError::PlainRealm(realm.origin));
        }
        Ok(realm)
    }
}

/// A token, and what it was given with.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) value: Secret,
    /// For `docker login`: what may be kept in place of the password.
    pub(crate) identity: Option<Secret>,
    expires: Instant,
}

impl Token {
    /// The value of `Authorization`.
    pub(crate) fn authorization(&self) -> Secret {
        Secret::new(format!("Bearer {}", self.value.expose()))
    }
}

/// What a token service answers (token.md and oauth.md).
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Secret,
    #[serde(default)]
    access_token: Secret,
    #[serde(default)]
    refresh_token: Secret,
    expires_in: Option<u64>,
}

/// Asks for tokens and keeps them while they are good.
#[derive(Debug, Default)]
pub(crate) struct TokenService {
    tokens: Mutex<HashMap<TokenRequest, Token>>,
}

impl TokenService {
    /// A token that was given before.
    pub(crate) fn cached(&self, request: &TokenRequest) -> Option<Token> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(request).filter(|token| token.expires > Instant::now()).cloned()
    }

    /// Asks for a new token. `offline` asks for an identity token too.
    pub(crate) async fn fetch(
        &self,
        transport: &Transport,
        registry: &Origin,
        request: &TokenRequest,
        offline: bool,
    ) -> Result<Token, TokenError> {
        let location = request.location(registry)?;
        let answer = match &request.credentials {
            Credentials::IdentityToken(token) => refresh(transport, &location, request, token).await,
            _ => get(transport, &location, request, offline).await,
        };
        let (status, bytes) =
            answer.map_err(|source| TokenError::Exchange { service: location.clone(), source })?;
        if !status.is_success() {
            let message = RegistryMessage::of(status, &bytes).to_string();
            return Err(TokenError::Refused { status, message });
        }
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|_| TokenError::NoToken { service: location.clone() })?;
        let value = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if value.is_empty() || value.header().is_none() {
            return Err(TokenError::NoToken { service: location });
        }
        let lifetime = answer.expires_in.map_or(LIFETIME_DEFAULT, Duration::from_secs).min(LIFETIME_MAX);
        let identity = Some(answer.refresh_token).filter(|token| !token.is_empty());
        let expires = Instant::now() + lifetime.saturating_sub(LIFETIME_MARGIN);
        let token = Token { value, identity, expires };
        self.keep(request.clone(), token.clone());
        Ok(token)
    }

    fn keep(&self, request: TokenRequest, token: Token) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_MAX {
            let now = Instant::now();
            tokens.retain(|_, token| token.expires > now);
        }
        if tokens.len() < TOKENS_MAX {
            tokens.insert(request, token);
        }
    }
}

/// token.md: parameters in the address, credentials as Basic.
async fn get(
    transport: &Transport,
    location: &Location,
    request: &TokenRequest,
    offline: bool,
) -> Result<(StatusCode, Bytes), TransportError> {
    let mut location = location.clone().with_query("service", &request.service);
    for scope in &request.scopes {
        location = location.with_query("scope", scope);
    }
    if let Credentials::Basic { username, .. } = &request.credentials {
        location = location.with_query("account", username);
        if offline {
            location = location.with_query("offline_token", "true").with_query("client_id", CLIENT_ID);
        }
    }
    let exchange = Exchange { authorization: request.credentials.basic(), ..Exchange::new(Method::GET) };
    let (response, _) = transport.follow(&exchange, &location).await?;
    read(transport, response).await
}

/// oauth.md: an identity token for an access token.
async fn refresh(
    transport: &Transport,
    location: &Location,
    request: &TokenRequest,
    token: &Secret,
) -> Result<(StatusCode, Bytes), TransportError> {
    let form = [
        ("grant_type", "refresh_token"),
        ("service", &request.service),
        ("client_id", CLIENT_ID),
        ("scope", &request.scopes.join(" ")),
        ("refresh_token", token.expose()),
    ]
    .map(|(name, value)| format!("{name}={}", escape(value)))
    .join("&");
    let exchange = Exchange::new(Method::POST)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    // A redirected POST is an answer without a token: what it carries goes to nobody else.
    let response = transport.bounded(transport.send(&exchange, location, full(form))).await?;
    read(transport, response).await
}

async fn read(
    transport: &Transport,
    response: http::Response<Incoming>,
) -> Result<(StatusCode, Bytes), TransportError> {
    let status = response.status();
    let bytes = transport.read(response.into_body(), ANSWER_LENGTH_MAX).await?;
    Ok((status, bytes.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_must_not_be_weaker_than_its_registry() {
        let request = |realm: &str| {
            let challenge = &Challenge::parse(&format!("Bearer realm=\"{realm}\",scope=\"b a\""))[0];
            TokenRequest::new(challenge, Some("a"), &Credentials::Anonymous)
        };
        let https = Origin::new(Scheme::Https, "r.example").unwrap();
        let http = Origin::new(Scheme::Http, "r.example").unwrap();
        assert_eq!(request("https://a.example/").scopes, ["a", "b"]);
        assert!(request("https://a.example/token").location(&https).is_ok());
        assert!(request("http://a.example/token").location(&http).is_ok());
        assert!(matches!(request("http://a.example/").location(&https), Err(TokenError::PlainRealm(_))));
        for wrong in ["", "/token", "file:///etc/passwd", "https://user@a.example/"] {
            assert!(matches!(request(wrong).location(&https), Err(TokenError::Realm(_))), "{wrong}");
        }
    }
}
