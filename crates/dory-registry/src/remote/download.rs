//! Archives from anywhere, for `docker import URL`: through the registries' proxies, with their authorities and patience.

use bytes::Bytes;
use http::Method;
use http::header::CONTENT_LENGTH;
use hyper::body::Incoming;

use super::Registries;
use crate::error::RegistryError;
use crate::http::{Exchange, Location, Transport};

/// A file on its way from a web server. It has no digest: whoever asked for it believes the server.
#[derive(Debug)]
pub struct Download {
    transport: Transport,
    location: Location,
    body: Incoming,
    length: Option<u64>,
}

impl Registries {
    /// Asks for the file at `url`, without any credential, and waits for the answer's head. Redirects are followed by
    /// the same rules as for blobs.
    ///
    /// # Errors
    /// [`RegistryError::Address`] for what is no address, [`RegistryError::Download`] where the server has no such file,
    /// and what else keeps an answer away.
    pub async fn download(&self, url: &str) -> Result<Download, RegistryError> {
        let location = Location::parse(url).ok_or_else(|| RegistryError::Address(url.to_owned()))?;
        let authority = location.origin.authority();
        let tls = self.config.endpoint(&authority)?.tls;
        let transport = Transport::new(&location.origin, &tls, self.proxies.clone(), self.config.patience());
        let transport = transport
            .map_err(|source| RegistryError::Setup { registry: authority.clone(), source: source.into() })?;
        let answer = transport.follow(&Exchange::new(Method::GET), &location).await;
        let (response, location) =
            answer.map_err(|error| RegistryError::exchange(&Method::GET, &location, error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(RegistryError::Download { url: location.to_string(), status });
        }
        let length = response.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(Download { transport, location, body: response.into_body(), length })
    }
}

impl Download {
    /// Its length in bytes, where the server says it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next bytes; `None` after the last ones.
    ///
    /// # Errors
    /// [`RegistryError::Exchange`] where the connection breaks or is silent for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let piece = self.transport.piece(&mut self.body).await;
        piece.map_err(|error| RegistryError::exchange(&Method::GET, &self.location, error))
    }
}
