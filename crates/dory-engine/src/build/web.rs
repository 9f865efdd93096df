//! Web servers, by way of the registries' client: the same proxies, authorities and patience.

use std::io::{self, Read};
use std::sync::Weak;

use bytes::{Buf, Bytes};
use dory_build::{Cancel, Web, WebAnswer, WebError, WebRequest};
use dory_registry::{Download, FileRequest};

use crate::engine::Inner;

/// Asks web servers for an engine.
#[derive(Debug)]
pub(super) struct EngineWeb(Weak<Inner>);

impl EngineWeb {
    pub(super) fn new(inner: Weak<Inner>) -> Self {
        Self(inner)
    }
}

impl Web for EngineWeb {
    fn ask(&self, request: &WebRequest, _cancel: &Cancel) -> Result<WebAnswer, WebError> {
        let inner = self.0.upgrade().ok_or_else(|| WebError("the engine is gone".to_owned()))?;
        let WebRequest { address, headers, body } = request.clone();
        let request = FileRequest { url: address, headers, body };
        let answer = inner.runtime().block_on(inner.registries.fetch(request));
        let download = answer.map_err(|error| WebError(dory_types::with_causes(&error)))?;
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Ok(WebAnswer {
            status: download.status(),
            address: download.address(),
            headers: download.headers().map(owned).collect(),
            length: download.length(),
            body: Box::new(Body { runtime: inner.runtime().clone(), download, piece: Bytes::new() }),
        })
    }
}

/// Waits for pieces of an answer where one reads it.
struct Body {
    runtime: tokio::runtime::Handle,
    download: Download,
    piece: Bytes,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let next = self.runtime.block_on(self.download.next());
            match next.map_err(|error| io::Error::other(dory_types::with_causes(&error)))? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
