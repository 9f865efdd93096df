//! Who asks: credentials, where they are kept, and how registries ask for them.

mod challenge;
mod credentials;
mod docker_config;
mod helper;
mod secret;
mod token;

pub use credentials::{Credentials, CredentialsError};
pub use docker_config::{DockerConfig, DockerConfigError};
pub use helper::HelperError;
pub use secret::Secret;

pub(crate) use challenge::{Challenge, Scheme as ChallengeScheme};
pub(crate) use token::{TokenError, TokenRequest, TokenService};
