//! The distribution protocol: how images come from registries and go to them.
//!
//! ```text
//!  RegistryConfig ── Registries ──┬─ Remote (one repository, one set of credentials)
//!                                 │     ├─ manifests: by tag or digest, HEAD, PUT; bounded, digests verified
//!                                 │     └─ blobs: streams that resume by range and verify; uploads, mounts
//!                                 ├─ auth: challenges, tokens, config.json and credential helpers
//!                                 └─ http: connections with TLS, proxies, timeouts; redirects that carry no credential
//! ```
//!
//! Everything that a registry sends is foreign: every length is bounded, every digest is checked, and an error's text
//! repeats little of it. A credential goes to the host that it is for, and to the token service that this host names in
//! its challenge, over nothing weaker than the host itself; never to where a redirect leads.
//!
//! Specifications: OCI distribution-spec 1.1, OCI image-spec 1.1, Docker Registry HTTP API V2 with its token
//! authentication (distribution's `docs/spec/auth`).

mod auth;
mod config;
mod copy;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod manifest;
mod remote;

pub use auth::{Credentials, CredentialsError, DockerConfig, DockerConfigError, HelperError, Secret};
pub use config::{ConfigError, ProxyConfig, RegistryConfig, RegistryEntry};
pub use copy::{CopyDestination, CopyError, CopyEvent, CopyOptions, CopySource, Place, copy};
pub use error::{RegistryError, RegistryErrorKind};
pub use http::AnyCertificate;
pub use manifest::{
    Descriptor, Document, ImageManifest, Index, IndexEntry, ManifestError, MediaType, Platform,
    write_manifest,
};
pub use remote::{
    Access, BlobStream, Download, FetchedManifest, FileRequest, LoginOutcome, ManifestHead, Mounted,
    Registries, Remote, ResolvedImage, UploadSession, UploadStream,
};
