//! One place where a registry's content is: how it is reached, and how it is signed in to.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;

use crate::auth::{Challenge, ChallengeScheme, Credentials, Secret, TokenRequest, TokenService};
use crate::config::EndpointConfig;
use crate::error::{RegistryError, RegistryMessage};
use crate::http::{
    Body, CertificateStamp, Exchange, Location, Origin, TlsSettings, Transport, TransportError,
};

/// The longest error that is read, in bytes.
const ERROR_LENGTH_MAX: u64 = 64 << 10;

/// Who asks, and what for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) credentials: &'a Credentials,
    /// As in `repository:library/busybox:pull`; `None` for the registry as a whole.
    pub(crate) scope: Option<&'a str>,
    pub(crate) tokens: &'a TokenService,
}

/// An answer, what it answers, and where it came from in the end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) method: Method,
    pub(crate) location: Location,
}

/// A place where a registry's content is.
#[derive(Debug)]
pub(crate) struct Endpoint {
    origins: Vec<Origin>,
    /// What the transport was made of.
    tls: TlsSettings,
    certificates: Vec<CertificateStamp>,
    pub(crate) transport: Transport,
    pub(crate) mirror: bool,
    /// Which of the origins answers, as far as is known.
    origin: Mutex<Option<Origin>>,
    /// What the registry asked for last: the next request brings it along.
    challenge: Mutex<Option<Challenge>>,
}

impl Endpoint {
    pub(crate) fn new(
        config: EndpointConfig,
        certificates: Vec<CertificateStamp>,
        transport: Transport,
    ) -> Self {
        Self {
            origins: config.origins,
            tls: config.tls,
            certificates,
            transport,
            mirror: config.mirror,
            origin: Mutex::default(),
            challenge: Mutex::default(),
        }
    }

    /// True where nothing has changed since.
    pub(crate) fn is_made_of(&self, config: &EndpointConfig, certificates: &[CertificateStamp]) -> bool {
        self.origins == config.origins && self.tls == config.tls && self.certificates == certificates
    }

    /// Where the endpoint is: an insecure one may speak TLS or not, which is found out once.
    pub(crate) async fn origin(&self) -> Result<Origin, RegistryError> {
        if let Some(origin) = self.known_origin() {
            return Ok(origin);
        }
        let origin = self.probe().await?;
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner) = Some(origin.clone());
        Ok(origin)
    }

    fn known_origin(&self) -> Option<Origin> {
        self.origin.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request got no answer: the registry may come back as another one.
    fn failed(&self, method: &Method, location: &Location, error: TransportError) -> RegistryError {
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner) = None;
        RegistryError::exchange(method, location, error)
    }

    async fn probe(&self) -> Result<Origin, RegistryError> {
        let [first, others @ ..] = &self.origins[..] else {
            unreachable!("an endpoint has at least one origin")
        };
        if others.is_empty() {
            return Ok(first.clone());
        }
        let exchange = Exchange::new(Method::GET);
        let mut failure = None;
        for origin in &self.origins {
            let location = Location::at(origin, "/v2/");
            match self.transport.ask(&exchange, &location).await {
                Ok(response) => {
                    self.remember(response.headers());
                    return Ok(origin.clone());
                }
                Err(error) => failure = Some(RegistryError::exchange(&Method::GET, &location, error)),
            }
        }
        // The last one is the one without TLS, whose failure says what is wrong.
        Err(failure.expect("there was at least one origin"))
    }

    /// Asks for `target` with a request that has no body, follows redirects, and signs in where it has to.
    ///
    /// # Errors
    /// Where there is no answer; an answer that refuses is one, except a refusal to believe who we are.
    pub(crate) async fn ask(
        &self,
        claim: Claim<'_>,
        exchange: &Exchange,
        target: &str,
    ) -> Result<Answer, RegistryError> {
        let location = Location::at(&self.origin().await?, target);
        self.ask_at(claim, exchange, &location).await
    }

    /// As [`Self::ask`], at an address that the endpoint named.
    pub(crate) async fn ask_at(
        &self,
        claim: Claim<'_>,
        exchange: &Exchange,
        location: &Location,
    ) -> Result<Answer, RegistryError> {
        let mut exchange = exchange.clone();
        let own = self.origin().await?;
        let mut refused = None;
        loop {
            exchange.authorization = match location.origin == own {
                true => self.authorization(claim, refused.take(), &exchange.method, location).await?,
                false => None,
            };
            let (response, reached) = self
                .transport
                .follow(&exchange, location)
                .await
                .map_err(|error| self.failed(&exchange.method, location, error))?;
            let unauthorized = response.status() == StatusCode::UNAUTHORIZED && reached.origin == own;
            if !unauthorized {
                return Ok(Answer { response, method: exchange.method, location: reached });
            }
            let known = self.remember(response.headers());
            if exchange.authorization.is_some() && !known {
                return Err(self.unauthorized(response).await);
            }
            refused = Some(exchange.authorization);
        }
    }

    /// Sends a request with a body, once: a body cannot be sent again. It carries what an earlier request was asked for;
    /// a location elsewhere, as for storage that is written to directly, gets no credential.
    pub(crate) async fn send(
        &self,
        claim: Claim<'_>,
        exchange: &Exchange,
        location: &Location,
        body: impl FnOnce() -> (Body, Arc<AtomicU64>),
    ) -> Result<Answer, RegistryError> {
        let mut exchange = exchange.clone();
        let own = location.origin == self.origin().await?;
        if own {
            exchange.authorization = self.authorization(claim, None, &exchange.method, location).await?;
        }
        let (body, taken) = body();
        let response = self
            .transport
            .send_watched(&exchange, location, body, &taken)
            .await
            .map_err(|error| self.failed(&exchange.method, location, error))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(match own {
                true => self.unauthorized(response).await,
                false => RegistryError::Unauthorized { message: StatusCode::UNAUTHORIZED.to_string() },
            });
        }
        Ok(Answer { response, method: exchange.method, location: location.clone() })
    }

    /// Keeps what the registry asks for; true where it asks for something else than before.
    fn remember(&self, headers: &HeaderMap) -> bool {
        let challenges = Challenge::of(headers);
        let bearer = challenges.iter().find(|challenge| challenge.scheme == ChallengeScheme::Bearer);
        let basic = challenges.iter().find(|challenge| challenge.scheme == ChallengeScheme::Basic);
        let Some(challenge) = bearer.or(basic) else { return false };
        let mut known = self.challenge.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = known.as_ref() != Some(challenge);
        *known = Some(challenge.clone());
        changed
    }

    /// The proof that goes with a request. `refused` is set where a request was refused just now, with what it brought.
    async fn authorization(
        &self,
        claim: Claim<'_>,
        refused: Option<Option<Secret>>,
        method: &Method,
        location: &Location,
    ) -> Result<Option<Secret>, RegistryError> {
        if let Credentials::RegistryToken(token) = claim.credentials {
            return Ok(Some(Secret::new(format!("Bearer {}", token.expose()))));
        }
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let no_credentials =
            || RegistryError::NoCredentials { method: method.clone(), url: location.to_string() };
        let Some(challenge) = challenge else {
            return if refused.is_some() { Err(no_credentials()) } else { Ok(None) };
        };
        if challenge.scheme == ChallengeScheme::Basic {
            return match claim.credentials.basic() {
                Some(basic) => Ok(Some(basic)),
                None if refused.is_some() => Err(no_credentials()),
                None => Ok(None),
            };
        }
        let request = TokenRequest::new(&challenge, claim.scope, claim.credentials);
        if let Some(token) = claim.tokens.cached(&request) {
            let authorization = token.authorization();
            if refused.flatten().as_ref() != Some(&authorization) {
                return Ok(Some(authorization));
            }
        }
        let origin = self.origin().await?;
        let token = claim.tokens.fetch(&self.transport, &origin, &request, false).await;
        Ok(Some(token.map_err(|error| RegistryError::token(&origin.authority(), error))?.authorization()))
    }

    /// Signs in for nothing in particular: whether the credentials are right, and the identity token for them.
    pub(crate) async fn login(&self, claim: Claim<'_>) -> Result<Option<Secret>, RegistryError> {
        let exchange = Exchange::new(Method::GET);
        let answer = self.ask(claim, &exchange, "/v2/").await;
        let answer = match answer {
            // dockerd's words.
            Err(RegistryError::Unauthorized { .. }) => {
                let location = Location::at(&self.origin().await?, "/v2/");
                let status = StatusCode::UNAUTHORIZED;
                let message = format!("login attempt to {location} failed with status: {status}");
                return Err(RegistryError::Unauthorized { message });
            }
            answer => answer?,
        };
        if !answer.response.status().is_success() {
            return Err(self.refusal(answer).await.into_error());
        }
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(challenge) = challenge.filter(|challenge| challenge.scheme == ChallengeScheme::Bearer)
        else {
            return Ok(None);
        };
        let origin = self.origin().await?;
        let request = TokenRequest::new(&challenge, None, claim.credentials);
        let token = claim.tokens.fetch(&self.transport, &origin, &request, true).await;
        Ok(token.map_err(|error| RegistryError::token(&origin.authority(), error))?.identity)
    }

    async fn unauthorized(&self, response: Response<Incoming>) -> RegistryError {
        let status = response.status();
        let message = RegistryMessage::of(status, &self.error_body(response).await).to_string();
        RegistryError::Unauthorized { message }
    }

    async fn error_body(&self, response: Response<Incoming>) -> Bytes {
        // The status says enough where the words cannot be had.
        self.transport.read(response.into_body(), ERROR_LENGTH_MAX).await.ok().flatten().unwrap_or_default()
    }

    /// What an answer that refuses says. The words of whom a redirect led to are not repeated: they may be of somebody
    /// whom only this machine can ask.
    pub(crate) async fn refusal(&self, answer: Answer) -> Refusal {
        let Answer { response, method, location } = answer;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let own = self.known_origin().is_some_and(|own| own == location.origin);
        let body = if own { self.error_body(response).await } else { Bytes::new() };
        let message = RegistryMessage::of(status, &body);
        Refusal { method, url: location.to_string(), status, message, retry_after }
    }
}

/// `Retry-After` in seconds; its other form, a date, is as good as none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// An answer that refuses.
#[derive(Debug)]
pub(crate) struct Refusal {
    method: Method,
    url: String,
    pub(crate) status: StatusCode,
    pub(crate) message: RegistryMessage,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// True where what was asked for is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// True where access is refused, by whatever status.
    pub(crate) fn is_denied(&self) -> bool {
        self.status == StatusCode::FORBIDDEN || self.message.has("DENIED")
    }

    /// The refusal as an error that nothing more is known about.
    pub(crate) fn into_error(self) -> RegistryError {
        let Self { method, url, status, message, retry_after } = self;
        let limited = status == StatusCode::TOO_MANY_REQUESTS || message.has("TOOMANYREQUESTS");
        let message = message.to_string();
        match status {
            _ if limited => RegistryError::RateLimited { message, retry_after },
            StatusCode::UNAUTHORIZED => RegistryError::Unauthorized { message },
            _ => RegistryError::Status { method, url, status, message },
        }
    }
}
