//! Blobs and manifests on their way to a repository (distribution-spec, "Pushing").
//!
//! A blob whose digest is known goes up in one request, or in pieces where the registry takes none that is so large.
//! One whose digest is found out on the way, because it is compressed on the way, goes up as one stream that is closed
//! with the digest. A session that breaks is given up and another one begun: what a registry keeps of broken ones, and
//! how long, is its own business.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use dory_types::{Digest, ImageReference, Repository};
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::endpoint::{Answer, Claim, Endpoint};
use super::retry::Backoff;
use super::{Remote, retry};
use crate::error::RegistryError;
use crate::http::{Body, Exchange, Location, full};
use crate::manifest::Descriptor;

/// The largest piece where a registry takes no blob as a whole, in bytes.
const PIECE: usize = 16 << 20;
/// The smallest piece that the registry takes (distribution-spec 1.1, "Pushing a blob in chunks").
const PIECE_MIN_HEADER: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// No registry may ask for larger pieces: they are held in memory.
const PIECE_MAX: usize = 64 << 20;
/// How many times an upload is tried.
const ATTEMPTS_MAX: u32 = 5;
/// How all blobs are called.
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What is uploaded, as it is made.
pub type UploadStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What came of a try to have a blob without sending it.
#[derive(Debug)]
pub enum Mounted {
    /// The repository has it now.
    Yes,
    /// It has to be sent; the registry began a session for it.
    No(UploadSession),
}

/// Where a registry wants a blob to be sent.
#[derive(Debug)]
pub struct UploadSession {
    remote: Remote,
    endpoint: Arc<Endpoint>,
    location: Location,
    piece_min: usize,
}

impl Remote {
    /// Who asks for a blob of another repository too.
    fn mount_scope(&self, from: &Repository) -> String {
        format!("{} repository:{}:pull", self.scope, from.path())
    }

    /// Asks the registry to take `digest` over from `from`, another repository of the same registry.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn mount(&self, digest: &Digest, from: &Repository) -> Result<Mounted, RegistryError> {
        let endpoint = self.target()?;
        let scope = self.mount_scope(from);
        let claim = Claim { scope: Some(&scope), ..self.claim(&endpoint) };
        let target = Location::at(&endpoint.origin().await?, self.path("blobs/uploads/"))
            .with_query("mount", &digest.to_string())
            .with_query("from", from.path());
        let answer = endpoint.ask_at(claim, &Exchange::new(Method::POST), &target).await?;
        match answer.response.status() {
            StatusCode::CREATED => Ok(Mounted::Yes),
            _ => self.session(endpoint, answer).await.map(Mounted::No),
        }
    }

    /// Begins a session.
    async fn begin(&self) -> Result<UploadSession, RegistryError> {
        let endpoint = self.target()?;
        let exchange = Exchange::new(Method::POST);
        let answer = endpoint.ask(self.claim(&endpoint), &exchange, &self.path("blobs/uploads/")).await?;
        self.session(endpoint, answer).await
    }

    async fn session(&self, endpoint: Arc<Endpoint>, answer: Answer) -> Result<UploadSession, RegistryError> {
        if answer.response.status() != StatusCode::ACCEPTED {
            return Err(self.push_error(&endpoint, answer).await);
        }
        let location = next_location(&answer)?;
        let stated = answer.response.headers().get(PIECE_MIN_HEADER);
        let piece_min = stated.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        Ok(UploadSession { remote: self.clone(), endpoint, location, piece_min })
    }

    /// Sends a blob whose digest is known; `open` is called again for each try.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push_blob(
        &self,
        blob: &Descriptor,
        open: impl Fn() -> UploadStream,
    ) -> Result<(), RegistryError> {
        let mut backoff = Backoff::new(ATTEMPTS_MAX);
        let mut whole = true;
        loop {
            let session = self.begin().await?;
            let sent = match whole {
                true => session.send_whole(blob, open()).await,
                false => session.send_pieces(blob, open()).await,
            };
            match sent {
                Err(RegistryError::Status { status, .. }) if whole && wants_pieces(status) => whole = false,
                Err(error) if error.is_temporary() && backoff.wait(error.retry_after()).await => {}
                result => return result,
            }
        }
    }

    /// Sends a small blob.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push_bytes(&self, blob: &Descriptor, bytes: &Bytes) -> Result<(), RegistryError> {
        self.push_blob(blob, || Box::pin(futures_util::stream::iter([Ok(bytes.clone())]))).await
    }

    /// Sends a blob whose digest is known only when all of it was made: `open` makes it, again for each try, and
    /// `finish` says what it was. `first` is a session that has begun already.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push_stream<F: Future<Output = io::Result<Descriptor>>>(
        &self,
        mut first: Option<UploadSession>,
        open: impl Fn() -> (UploadStream, F),
    ) -> Result<Descriptor, RegistryError> {
        let mut backoff = Backoff::new(ATTEMPTS_MAX);
        loop {
            let session = match first.take() {
                Some(session) => session,
                None => self.begin().await?,
            };
            let (stream, finish) = open();
            match session.send_stream(stream, finish).await {
                Err(error) if error.is_temporary() && backoff.wait(error.retry_after()).await => {}
                result => return result,
            }
        }
    }

    /// Gives a manifest its name: a tag, or its own digest.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push_manifest(
        &self,
        reference: &ImageReference,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<(), RegistryError> {
        let endpoint = self.target()?;
        let content_type = HeaderValue::from_str(media_type).map_err(|_| RegistryError::Header {
            method: Method::PUT,
            url: reference.to_string(),
            header: "Content-Type",
        })?;
        retry::retrying(super::ATTEMPTS_MAX, || async {
            let exchange = Exchange::new(Method::PUT).header(CONTENT_TYPE, content_type.clone());
            let location = Location::at(&endpoint.origin().await?, self.manifest_path(reference));
            let body = || (full(bytes.clone()), Arc::default());
            let answer = endpoint.send(self.claim(&endpoint), &exchange, &location, body).await?;
            match answer.response.status() {
                status if status.is_success() => Ok(()),
                _ => Err(self.push_error(&endpoint, answer).await),
            }
        })
        .await
    }

    /// A refusal in dockerd's words.
    async fn push_error(&self, endpoint: &Endpoint, answer: Answer) -> RegistryError {
        let refusal = endpoint.refusal(answer).await;
        let repository = self.repository.familiar();
        let message = refusal.message.to_string();
        match refusal {
            refusal if refusal.is_denied() => RegistryError::PushDenied { repository, message },
            refusal if refusal.message.has("NAME_UNKNOWN") => {
                RegistryError::RepositoryUnknown { repository, message }
            }
            refusal => refusal.into_error(),
        }
    }
}

/// Statuses with which registries, and what stands before them, refuse a blob as a whole.
fn wants_pieces(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::LENGTH_REQUIRED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::NOT_IMPLEMENTED
    )
}

/// Where an upload goes on.
fn next_location(answer: &Answer) -> Result<Location, RegistryError> {
    let reference = answer.response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    reference.and_then(|reference| answer.location.join(reference)).ok_or_else(|| RegistryError::Header {
        method: answer.method.clone(),
        url: answer.location.to_string(),
        header: "Location",
    })
}

impl UploadSession {
    /// Everything in the request that ends the session.
    async fn send_whole(self, blob: &Descriptor, stream: UploadStream) -> Result<(), RegistryError> {
        let location = self.location.clone().with_query("digest", &blob.digest.to_string());
        let exchange = Exchange::new(Method::PUT)
            .header(CONTENT_TYPE, OCTETS)
            .header(CONTENT_LENGTH, HeaderValue::from(blob.size));
        let answer = self.send(&exchange, &location, stream).await?;
        self.created(answer).await
    }

    /// Piece by piece.
    async fn send_pieces(mut self, blob: &Descriptor, mut stream: UploadStream) -> Result<(), RegistryError> {
        let length = PIECE.max(self.piece_min).min(PIECE_MAX);
        let mut position = 0;
        let mut piece = BytesMut::new();
        let mut ended = false;
        while !ended {
            match stream.next().await.transpose().map_err(RegistryError::Source)? {
                Some(bytes) => piece.extend_from_slice(&bytes),
                None => ended = true,
            }
            while piece.len() >= length || (ended && !piece.is_empty()) {
                let bytes = piece.split_to(length.min(piece.len())).freeze();
                let end = position + bytes.len() as u64;
                self.send_piece(position, bytes).await?;
                position = end;
            }
        }
        self.finish(&blob.digest).await
    }

    async fn send_piece(&mut self, position: u64, bytes: Bytes) -> Result<(), RegistryError> {
        let range = format!("{position}-{}", position + bytes.len() as u64 - 1);
        let exchange = Exchange::new(Method::PATCH)
            .header(CONTENT_TYPE, OCTETS)
            .header(CONTENT_LENGTH, HeaderValue::from(bytes.len()))
            .header(CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits are a header's value"));
        let location = self.location.clone();
        let answer =
            self.send(&exchange, &location, Box::pin(futures_util::stream::iter([Ok(bytes)]))).await?;
        self.go_on(answer).await
    }

    /// One stream of a length that nobody knows yet.
    async fn send_stream(
        mut self,
        stream: UploadStream,
        finish: impl Future<Output = io::Result<Descriptor>>,
    ) -> Result<Descriptor, RegistryError> {
        let exchange = Exchange::new(Method::PATCH).header(CONTENT_TYPE, OCTETS);
        let location = self.location.clone();
        let answer = self.send(&exchange, &location, stream).await?;
        self.go_on(answer).await?;
        let blob = finish.await.map_err(RegistryError::Source)?;
        self.finish(&blob.digest).await?;
        Ok(blob)
    }

    /// Ends the session: the registry checks the digest.
    async fn finish(self, digest: &Digest) -> Result<(), RegistryError> {
        let location = self.location.clone().with_query("digest", &digest.to_string());
        let exchange = Exchange::new(Method::PUT).header(CONTENT_LENGTH, HeaderValue::from(0));
        let answer = self.send(&exchange, &location, Box::pin(futures_util::stream::empty())).await?;
        self.created(answer).await
    }

    async fn created(&self, answer: Answer) -> Result<(), RegistryError> {
        match answer.response.status() {
            status if status.is_success() => Ok(()),
            _ => Err(self.remote.push_error(&self.endpoint, answer).await),
        }
    }

    async fn go_on(&mut self, answer: Answer) -> Result<(), RegistryError> {
        if !answer.response.status().is_success() {
            return Err(self.remote.push_error(&self.endpoint, answer).await);
        }
        // Each answer says where the next piece goes; some registries keep the state of the session there.
        self.location = next_location(&answer)?;
        Ok(())
    }

    async fn send(
        &self,
        exchange: &Exchange,
        location: &Location,
        stream: UploadStream,
    ) -> Result<Answer, RegistryError> {
        let progress = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&progress);
        let body = move || (counted(stream, counter), progress);
        self.endpoint.send(self.remote.claim(&self.endpoint), exchange, location, body).await
    }
}

/// A body that counts what is taken of it.
fn counted(stream: UploadStream, counter: Arc<AtomicU64>) -> Body {
    let frames = stream.map(move |bytes| {
        let bytes = bytes?;
        counter.fetch_add(bytes.len().max(1) as u64, Ordering::Relaxed);
        Ok(Frame::data(bytes))
    });
    StreamBody::new(frames).boxed_unsync()
}
