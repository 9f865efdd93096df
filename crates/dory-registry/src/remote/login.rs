//! `docker login`: whether a registry takes the credentials.

use super::Registries;
use super::endpoint::Claim;
use crate::auth::{Credentials, Secret};
use crate::config::login_domain;
use crate::error::RegistryError;

/// A registry that took the credentials.
#[derive(Debug, Clone)]
pub struct LoginOutcome {
    /// May be kept in place of the password, where the registry has such.
    pub identity_token: Option<Secret>,
}

impl Registries {
    /// Signs in to the registry that `address` means, in any form that `docker login` takes; empty for Docker Hub.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] where the credentials are wrong, and others.
    pub async fn login(
        &self,
        address: &str,
        credentials: &Credentials,
    ) -> Result<LoginOutcome, RegistryError> {
        let endpoint = self.registry(&login_domain(address))?;
        let claim = Claim { credentials, scope: None, tokens: &self.tokens };
        Ok(LoginOutcome { identity_token: endpoint.login(claim).await? })
    }
}
