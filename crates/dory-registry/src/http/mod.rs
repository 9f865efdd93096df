//! HTTP to registries: connections, TLS, proxies, name resolution, timeouts.
//!
//! hyper is used directly, for every rule of this crate is about what an HTTP library decides by itself: where a
//! redirect may lead and what it carries, how long silence may last, which names are resolved how (a static binary
//! must not load the C library's name service modules), and when a request may be sent again.

mod connector;
mod location;
mod proxy;
mod resolve;
mod tls;
mod transport;

pub(crate) use location::{Location, Origin, Scheme, escape};
pub(crate) use proxy::{Exception, Proxies, Proxy, contains};
pub use tls::AnyCertificate;
pub(crate) use tls::{CertificateStamp, ClientIdentity, TlsSettings};
pub(crate) use transport::{Body, Exchange, Transport, TransportError, full};
