//! What `docker login` left for a registry, as requests to an engine carry it.

use std::path::Path;

use anyhow::{Context, Result};
use dory_registry::{DockerConfig, Secret};
use dory_types::ImageReference;

/// `X-Registry-Auth` for the registry of `reference`: an empty object where nothing is kept for it.
///
/// # Errors
/// Where the configuration, or the helper that it names, fails.
pub(in crate::commands) fn header(config: &Path, reference: &str) -> Result<Secret> {
    // What is no reference the engine refuses, in its own words.
    let domain = ImageReference::parse_untagged(reference)
        .map_or_else(|_| String::new(), |reference| reference.repository().domain().to_owned());
    header_for(config, &domain)
}

/// As [`header`], for a registry by its host.
pub(super) fn header_for(config: &Path, domain: &str) -> Result<Secret> {
    let config = DockerConfig::load(config).context("cannot read what `login` left")?;
    let credentials = config.credentials(domain).with_context(|| format!("no credentials for `{domain}`"))?;
    Ok(credentials.to_header(DockerConfig::key(domain)))
}
