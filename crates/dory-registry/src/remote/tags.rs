//! Which tags a repository has, and which repositories a registry (distribution-spec, "Listing tags"; the catalogue is
//! distribution's own).

use std::sync::Arc;

use dory_types::Tag;
use http::Method;
use http::header::LINK;
use serde::Deserialize;

use super::endpoint::{Claim, Endpoint};
use super::{Registries, Remote};
use crate::auth::Credentials;
use crate::config::login_domain;
use crate::error::RegistryError;
use crate::http::{Exchange, Location};

/// The longest page, in bytes.
const PAGE_LENGTH_MAX: u64 = 16 << 20;
/// The most pages: a registry may link from one to the next for ever.
const PAGES_MAX: usize = 1000;
/// What is asked for in one page.
const PAGE_SIZE: &str = "1000";

#[derive(Deserialize)]
struct TagPage {
    /// `null` for a repository without any.
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct CatalogPage {
    repositories: Option<Vec<String>>,
}

impl Remote {
    /// The repository's tags in the registry's order; names that are none are left out.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn tags(&self) -> Result<Vec<Tag>, RegistryError> {
        let names = self
            .ask_sources(|endpoint| async move {
                let path = self.path("tags/list");
                pages(&endpoint, self.claim(&endpoint), &path, |page: TagPage| page.tags).await
            })
            .await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

impl Registries {
    /// The names of all repositories of a registry that lists them, in its order.
    ///
    /// # Errors
    /// [`RegistryError::Status`] where the registry does not: Docker Hub and most others of its size.
    pub async fn catalog(
        &self,
        address: &str,
        credentials: &Credentials,
    ) -> Result<Vec<String>, RegistryError> {
        let endpoint: Arc<Endpoint> = self.registry(&login_domain(address))?;
        let claim = Claim { credentials, scope: Some("registry:catalog:*"), tokens: &self.tokens };
        pages(&endpoint, claim, "/v2/_catalog", |page: CatalogPage| page.repositories).await
    }
}

/// Everything on all pages from `path` on.
async fn pages<P: for<'de> Deserialize<'de>>(
    endpoint: &Endpoint,
    claim: Claim<'_>,
    path: &str,
    items: fn(P) -> Option<Vec<String>>,
) -> Result<Vec<String>, RegistryError> {
    let exchange = Exchange::new(Method::GET);
    let mut location = Location::at(&endpoint.origin().await?, path).with_query("n", PAGE_SIZE);
    let mut all = Vec::new();
    for _ in 0..PAGES_MAX {
        let answer = endpoint.ask_at(claim, &exchange, &location).await?;
        if !answer.response.status().is_success() {
            return Err(endpoint.refusal(answer).await.into_error());
        }
        let link = answer.response.headers().get(LINK).and_then(|link| next_page(link.to_str().ok()?));
        let next = link.and_then(|link| answer.location.join(link));
        let from = answer.location.to_string();
        let bytes = endpoint
            .transport
            .read(answer.response.into_body(), PAGE_LENGTH_MAX)
            .await
            .map_err(|error| RegistryError::exchange(&Method::GET, &location, error))?
            .ok_or_else(|| RegistryError::TooLong {
                what: format!("the list at {from}"),
                limit: PAGE_LENGTH_MAX,
            })?;
        let page: P = serde_json::from_slice(&bytes).map_err(|_| RegistryError::Header {
            method: Method::GET,
            url: from,
            header: "JSON body",
        })?;
        all.extend(items(page).unwrap_or_default());
        match next {
            // Only the registry itself knows how its own list goes on.
            Some(next) if next.origin == location.origin => location = next,
            _ => break,
        }
    }
    Ok(all)
}

/// The address of the next page: `</v2/x/tags/list?last=a&n=1>; rel="next"` (RFC 8288).
fn next_page(link: &str) -> Option<&str> {
    let (address, parameters) = link.strip_prefix('<')?.split_once('>')?;
    let relation = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("rel="));
    (relation?.trim_matches('"') == "next").then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(next_page("</v2/a?last=b&n=1>; rel=\"next\""), Some("/v2/a?last=b&n=1"));
        assert_eq!(next_page("</v2/a>; title=x; rel=next"), Some("/v2/a"));
        for other in ["", "</v2/a>; rel=\"prev\"", "/v2/a; rel=next", "</v2/a"] {
            assert_eq!(next_page(other), None, "{other}");
        }
    }
}
