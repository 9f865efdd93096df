//! Web servers, by way of the registries' client: the same proxies, authorities and patience.

use std::sync::Weak;

use dory_build::{Cancel, Web, WebAnswer, WebError, WebRequest};
use dory_registry::FileRequest;

use super::pieces::Pieces;
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
        let mut download = answer.map_err(|error| WebError(dory_types::with_causes(&error)))?;
        let runtime = inner.runtime().clone();
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Ok(WebAnswer {
            status: download.status(),
            address: download.address(),
            headers: download.headers().map(owned).collect(),
            length: download.length(),
            body: Box::new(Pieces::new(move || runtime.block_on(download.next()))),
        })
    }
}
