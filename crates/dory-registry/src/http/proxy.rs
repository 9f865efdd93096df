//! Which proxy a connection takes: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` by Go's rules, which are Docker's.
//!
//! Source: Go's golang.org/x/net/http/httpproxy. `NO_PROXY` has host names (the host and everything below it; with a
//! dot or `*.` in front only what is below), addresses, networks, each with an optional port, or `*`. `localhost` and
//! loopback addresses never take a proxy.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::location::{Location, Origin, Scheme};
use crate::auth::Secret;

/// A proxy and how to sign in to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) origin: Origin,
    /// The value of `Proxy-Authorization`.
    pub(crate) authorization: Option<Secret>,
}

impl Proxy {
    /// Reads a proxy's address; one without a scheme is an `http` one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        // The last `@`: passwords have them too.
        let authority_end = rest.find('/').unwrap_or(rest.len());
        let (user, host) = match rest[..authority_end].rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, &rest[..authority_end]),
        };
        let origin = Location::parse(&format!("{scheme}://{host}"))?.origin;
        let authorization = user.map(|user| {
            let user = unescape(user);
            let user = if user.contains(':') { user } else { format!("{user}:") };
            Secret::new(format!("Basic {}", STANDARD.encode(user)))
        });
        Some(Self { origin, authorization })
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%')
            .then(|| {
                tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok())
            })
            .flatten();
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The proxies of one configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    pub(crate) http: Option<Proxy>,
    pub(crate) https: Option<Proxy>,
    pub(crate) exceptions: Vec<Exception>,
}

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exception {
    host: ExceptionHost,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ExceptionHost {
    All,
    Network {
        address: IpAddr,
        prefix: u8,
    },
    /// A name with a dot in front; `itself` tells whether the name without it counts too.
    Domain {
        suffix: String,
        itself: bool,
    },
}

impl Exception {
    /// Reads the entries of a list that commas separate; empty and malformed ones are none.
    pub(crate) fn parse_list(text: &str) -> Vec<Self> {
        text.split(',').filter_map(|entry| Self::parse(entry.trim())).collect()
    }

    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.to_ascii_lowercase();
        if entry.is_empty() {
            return None;
        }
        if let Some((address, prefix)) = entry.split_once('/') {
            let host =
                ExceptionHost::Network { address: address.parse().ok()?, prefix: prefix.parse().ok()? };
            return Some(Self { host, port: None });
        }
        if let Ok(address) = entry.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Self { host: whole(address), port: None });
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (entry.as_str(), None),
        };
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Self { host: whole(address), port });
        }
        let host = match host.strip_prefix("*.").or_else(|| host.strip_prefix('.')) {
            _ if host == "*" => ExceptionHost::All,
            Some(below) => ExceptionHost::Domain { suffix: format!(".{below}"), itself: false },
            None => ExceptionHost::Domain { suffix: format!(".{host}"), itself: true },
        };
        Some(Self { host, port })
    }

    fn covers(&self, origin: &Origin) -> bool {
        let host = match &self.host {
            ExceptionHost::All => true,
            ExceptionHost::Network { address, prefix } => {
                origin.host.parse().is_ok_and(|host| contains(*address, *prefix, host))
            }
            ExceptionHost::Domain { suffix, itself } => {
                origin.host.ends_with(suffix.as_str()) || (*itself && origin.host == suffix[1..])
            }
        };
        host && self.port.is_none_or(|port| port == origin.port)
    }
}

fn whole(address: IpAddr) -> ExceptionHost {
    ExceptionHost::Network { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
}

/// True where `host` lies in the network of `prefix` bits around `address`.
pub(crate) fn contains(address: IpAddr, prefix: u8, host: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let ((network, length), (host, host_length)) = (bits(address), bits(host));
    if length != host_length || prefix > length {
        return false;
    }
    let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix)) };
    network & mask == host & mask
}

impl Proxies {
    /// The proxy for connections to `origin`; `None` for a direct one.
    pub(crate) fn choose(&self, origin: &Origin) -> Option<&Proxy> {
        let loopback = origin.host == "localhost"
            || origin.host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        if loopback || self.exceptions.iter().any(|exception| exception.covers(origin)) {
            return None;
        }
        match origin.scheme {
            Scheme::Http => self.http.as_ref(),
            Scheme::Https => self.https.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_proxies() {
        let proxy = Proxy::parse("http://user:p%40ss@proxy.example:3128/").unwrap();
        assert_eq!(proxy.origin.to_string(), "http://proxy.example:3128");
        assert_eq!(proxy.authorization.unwrap().expose(), format!("Basic {}", STANDARD.encode("user:p@ss")));
        assert_eq!(Proxy::parse("proxy.example:3128").unwrap().origin.scheme, Scheme::Http);
        assert_eq!(Proxy::parse("https://proxy.example").unwrap().origin.port, 443);
        assert_eq!(Proxy::parse("socks5://proxy.example"), None);
    }

    #[test]
    fn exceptions_by_gos_rules() {
        let proxy = Proxy::parse("proxy.example:3128");
        let list = ".below.example, exact.example, *.star.example,10.0.0.0/8,192.0.2.7,ported.example:5000,::1/x,fd00::/8";
        let proxies = Proxies { http: proxy.clone(), https: proxy, exceptions: Exception::parse_list(list) };
        for (host, direct) in [
            ("a.below.example", true),
            ("below.example", false),
            ("exact.example", true),
            ("a.exact.example", true),
            ("inexact.example", false),
            ("a.star.example:8080", true),
            ("star.example", false),
            ("10.1.2.3", true),
            ("11.1.2.3", false),
            ("192.0.2.7:5000", true),
            ("192.0.2.8", false),
            ("ported.example:5000", true),
            ("ported.example", false),
            ("localhost:5000", true),
            ("127.0.0.9", true),
            ("[::1]:5000", true),
            ("[fd00::5]", true),
            ("[fe80::5]", false),
        ] {
            let origin = Origin::new(Scheme::Http, host).unwrap();
            assert_eq!(proxies.choose(&origin).is_none(), direct, "{host}");
        }
        let all = Proxies { exceptions: Exception::parse_list("*"), ..proxies };
        assert_eq!(all.choose(&Origin::new(Scheme::Https, "a.example").unwrap()), None);
    }
}
