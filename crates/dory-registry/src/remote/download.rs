//! Files from anywhere: archives for `docker import URL`, what builds add, git's packs. They come through the registries'
//! proxies, with their authorities and patience.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use hyper::body::Incoming;

use super::Registries;
use crate::auth::Secret;
use crate::error::RegistryError;
use crate::http::{Exchange, Location, Transport, full};

/// A question to a web server.
#[derive(Debug, Clone, Default)]
pub struct FileRequest {
    /// `http` or `https`.
    pub url: String,
    /// What the request says besides: names in lower case, and values. A credential goes to the first host only.
    pub headers: Vec<(&'static str, String)>,
    /// What is posted; nothing is followed then. Without it the file is got.
    pub body: Option<Vec<u8>>,
}

/// A file on its way from a web server. It has no digest: whoever asked for it believes the server.
#[derive(Debug)]
pub struct Download {
    transport: Transport,
    location: Location,
    method: Method,
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
}

impl Registries {
    /// Asks for the file at `url`, without any credential, and waits for the answer's head. Redirects are followed by
    /// the same rules as for blobs.
    ///
    /// # Errors
    /// [`RegistryError::Address`] for what is no address, [`RegistryError::Download`] where the server has no such file,
    /// and what else keeps an answer away.
    pub async fn download(&self, url: &str) -> Result<Download, RegistryError> {
        let answer = self.fetch(FileRequest { url: url.to_owned(), ..FileRequest::default() }).await?;
        if !answer.status.is_success() {
            return Err(RegistryError::Download { url: answer.location.to_string(), status: answer.status });
        }
        Ok(answer)
    }

    /// Asks a web server, and waits for the head of its answer, which may be that it refuses.
    ///
    /// # Errors
    /// [`RegistryError::Address`] for what is no address, and what else keeps an answer away.
    pub async fn fetch(&self, request: FileRequest) -> Result<Download, RegistryError> {
        let location = Location::parse(&request.url).ok_or(RegistryError::Address(request.url))?;
        let authority = location.origin.authority();
        let tls = self.config.endpoint(&authority)?.tls;
        let transport = Transport::new(&location.origin, &tls, self.proxies.clone(), self.config.patience());
        let transport = transport
            .map_err(|source| RegistryError::Setup { registry: authority.clone(), source: source.into() })?;
        let malformed =
            |_| RegistryError::exchange(&Method::GET, &location, crate::http::TransportError::Malformed);
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let value = HeaderValue::from_str(value).map_err(malformed)?;
            headers.append(HeaderName::from_static(name), value);
        }
        let authorization = headers.remove(AUTHORIZATION);
        let authorization = authorization.and_then(|value| Some(Secret::new(value.to_str().ok()?)));
        let mut exchange = Exchange { method: Method::GET, headers, authorization };
        let answer = match request.body {
            None => transport.follow(&exchange, &location).await,
            Some(body) => {
                exchange.method = Method::POST;
                // All of it is in memory: as good as taken.
                let taken = AtomicU64::new(body.len() as u64);
                let sent = transport.send_watched(&exchange, &location, full(body), &taken).await;
                sent.map(|response| (response, location.clone()))
            }
        };
        let method = exchange.method;
        let (response, location) =
            answer.map_err(|error| RegistryError::exchange(&method, &location, error))?;
        let (head, body) = response.into_parts();
        Ok(Download { transport, location, method, status: head.status, headers: head.headers, body })
    }
}

impl Download {
    /// HTTP's status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Where it comes from in the end, with its query.
    pub fn address(&self) -> String {
        format!("{}{}", self.location.origin, self.location.target())
    }

    /// What the answer says besides; values that are no text are left out.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }

    /// Its length in bytes, where the server says it.
    pub fn length(&self) -> Option<u64> {
        self.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
    }

    /// The next bytes; `None` after the last ones.
    ///
    /// # Errors
    /// [`RegistryError::Exchange`] where the connection breaks or is silent for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let piece = self.transport.piece(&mut self.body).await;
        piece.map_err(|error| RegistryError::exchange(&self.method, &self.location, error))
    }
}
