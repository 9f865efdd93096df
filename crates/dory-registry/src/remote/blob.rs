//! Blobs of a repository, as streams that survive broken connections (distribution-spec, "Pulling blobs"; RFC 9110,
//! section 14, for ranges).

use bytes::{Buf, Bytes, BytesMut};
use dory_types::Digest;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use http::{HeaderMap, Method, StatusCode};
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};

use super::Remote;
use super::endpoint::Endpoint;
use super::retry::Backoff;
use crate::error::RegistryError;
use crate::http::{Exchange, Location, Transport};
use crate::manifest::Descriptor;

/// A connection that brought this many bytes has got on: the count of failures begins again.
const PROGRESS: u64 = 256 << 10;

/// A blob as it arrives. It ends after as many bytes as its descriptor says, and never without an error before that.
///
/// **The bytes are not checked against the digest here**: whoever names what they make of it hashes it anyway, and
/// hashing twice costs as much as the download. [`Remote::blob_bytes`] does check.
#[derive(Debug)]
pub struct BlobStream {
    remote: Remote,
    descriptor: Descriptor,
    /// Bytes that were handed out.
    position: u64,
    /// What arrives at the moment.
    source: Option<Source>,
    backoff: Backoff,
    /// Where the present connection began, for the question whether it got on.
    started: u64,
}

/// A connection that brings a blob.
#[derive(Debug)]
struct Source {
    transport: Transport,
    body: Incoming,
    location: Location,
    /// Bytes that come first and are known already, where the registry does not know ranges.
    skip: u64,
}

impl Remote {
    /// The blob of `descriptor`; nothing is asked for yet.
    pub fn blob(&self, descriptor: &Descriptor) -> BlobStream {
        let attempts = self.registries.config.max_download_attempts;
        BlobStream {
            remote: self.clone(),
            descriptor: descriptor.clone(),
            position: 0,
            source: None,
            backoff: Backoff::new(attempts),
            started: 0,
        }
    }

    /// The whole of a small blob, whose digest is right.
    ///
    /// # Errors
    /// [`RegistryError::TooLong`] for more than `limit` bytes, and everything else of [`RegistryError`].
    pub async fn blob_bytes(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, RegistryError> {
        if descriptor.size > limit {
            return Err(RegistryError::TooLong { what: format!("blob {}", descriptor.digest), limit });
        }
        let mut stream = self.blob(descriptor);
        let mut bytes = BytesMut::new();
        let mut hasher = Sha256::new();
        while let Some(piece) = stream.next().await? {
            hasher.update(&piece);
            bytes.extend_from_slice(&piece);
        }
        let found = Digest::from_bytes(hasher.finalize().into());
        if found != descriptor.digest {
            let what = format!("blob {}", descriptor.digest);
            return Err(RegistryError::DigestMismatch { what, expected: descriptor.digest, found });
        }
        Ok(bytes.freeze())
    }

    /// Whether the repository has the blob; mirrors are not asked.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let endpoint = self.target()?;
        let exchange = Exchange::new(Method::HEAD);
        let path = self.path(&format!("blobs/{digest}"));
        let answer = endpoint.ask(self.claim(&endpoint), &exchange, &path).await?;
        match answer.response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(endpoint.refusal(answer).await.into_error()),
        }
    }
}

impl BlobStream {
    /// What is being fetched.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// How many bytes were handed out.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Gives the connection up; [`Self::next`] makes another one and goes on where this one was.
    pub fn pause(&mut self) {
        self.source = None;
    }

    /// The next bytes; `None` after the last ones. May be dropped while it waits, and called again: nothing is lost.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing more comes after one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.position < self.descriptor.size {
            match self.step().await {
                Ok(Some(piece)) => {
                    self.position += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Ok(None) => {}
                Err(error) => self.recover(error).await?,
            }
        }
        self.check_end().await?;
        Ok(None)
    }

    /// Connects, or reads a piece.
    async fn step(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let Some(source) = &mut self.source else {
            self.source = Some(self.open().await?);
            self.started = self.position;
            return Ok(None);
        };
        let mut piece = match source.transport.piece(&mut source.body).await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Err(self.cut()),
            Err(error) => return Err(RegistryError::exchange(&Method::GET, &source.location, error)),
        };
        let known = source.skip.min(piece.len() as u64);
        source.skip -= known;
        piece.advance(known as usize);
        if self.position + piece.len() as u64 > self.descriptor.size {
            return Err(self.wrong_length(self.position + piece.len() as u64));
        }
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    /// The connection's end came before the blob's.
    fn cut(&self) -> RegistryError {
        self.wrong_length(self.position)
    }

    fn wrong_length(&self, found: u64) -> RegistryError {
        let Descriptor { digest, size: expected, .. } = self.descriptor;
        RegistryError::LengthMismatch { digest, expected, found }
    }

    /// Waits for another try after `error`, where one makes sense.
    async fn recover(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.source = None;
        let cut = matches!(&error, RegistryError::LengthMismatch { found, .. } if *found == self.position);
        // In the middle of a blob even a registry that refuses connections may only be starting again.
        let away = matches!(&error, RegistryError::Exchange { .. });
        if !cut && !away && !error.is_temporary() {
            return Err(error);
        }
        if self.position.saturating_sub(self.started) >= PROGRESS {
            self.backoff.reset();
        }
        self.started = self.position;
        tracing::debug!(blob = %self.descriptor.digest, position = self.position, %error, "Download broke off");
        if self.backoff.wait(error.retry_after()).await {
            return Ok(());
        }
        if matches!(error, RegistryError::RateLimited { .. }) {
            return Err(error);
        }
        Err(RegistryError::BrokenOff {
            digest: self.descriptor.digest,
            received: self.position,
            size: self.descriptor.size,
            attempts: self.backoff.failures(),
            source: error.into(),
        })
    }

    /// A registry that goes on sending after the blob's end lies about its length.
    async fn check_end(&mut self) -> Result<(), RegistryError> {
        let Some(mut source) = self.source.take() else { return Ok(()) };
        match source.transport.piece(&mut source.body).await {
            Ok(Some(piece)) if !piece.is_empty() => {
                Err(self.wrong_length(self.position + piece.len() as u64))
            }
            // Everything is here: how the connection ends does not matter any more.
            _ => Ok(()),
        }
    }

    /// Asks for the blob from where it broke off; mirrors first, the registry itself at the end.
    async fn open(&self) -> Result<Source, RegistryError> {
        let mut sources = self.remote.sources()?;
        let own = sources.pop().expect("the registry itself is the last source");
        for mirror in sources {
            match self.open_at(&mirror).await {
                Ok(source) => return Ok(source),
                Err(error) => tracing::debug!(%error, "Mirror failed"),
            }
        }
        self.open_at(&own).await
    }

    async fn open_at(&self, endpoint: &Endpoint) -> Result<Source, RegistryError> {
        let Descriptor { digest, size, .. } = self.descriptor;
        let mut exchange = Exchange::new(Method::GET);
        if self.position > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.position));
            exchange = exchange.header(RANGE, range.expect("digits are a header's value"));
        }
        let path = self.remote.path(&format!("blobs/{digest}"));
        let answer = endpoint.ask(self.remote.claim(endpoint), &exchange, &path).await?;
        let headers = answer.response.headers();
        let skip = match answer.response.status() {
            StatusCode::PARTIAL_CONTENT if range_start(headers) == Some(self.position) => 0,
            // No ranges here: everything comes again.
            StatusCode::OK => self.position,
            StatusCode::PARTIAL_CONTENT => {
                return Err(RegistryError::Header {
                    method: Method::GET,
                    url: answer.location.to_string(),
                    header: "Content-Range",
                });
            }
            _ => {
                let refusal = endpoint.refusal(answer).await;
                if refusal.is_denied() {
                    let message = refusal.message.to_string();
                    return Err(RegistryError::Denied {
                        repository: self.remote.repository.familiar(),
                        message,
                    });
                }
                return Err(refusal.into_error());
            }
        };
        // A length that cannot be right need not be waited for.
        if let Some(length) = content_length(headers) {
            let found = self.position - skip + length;
            if found != size {
                return Err(RegistryError::LengthMismatch { digest, expected: size, found });
            }
        }
        let (location, body) = (answer.location, answer.response.into_body());
        Ok(Source { transport: endpoint.transport.clone(), body, location, skip })
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Where a part begins: `bytes 5-9/10` at 5.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.parse().ok()
}
