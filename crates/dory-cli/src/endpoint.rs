//! Where the engine is: addresses, and the order in which they are tried.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::failure::hinted;
use crate::tls::ClientTls;

/// The engine's socket when it runs as root.
const SYSTEM_SOCKET: &str = "/run/dory/dory.sock";
/// Docker's ports without and with TLS, for `tcp://host`.
const DEFAULT_PORT: u16 = 2375;
const DEFAULT_TLS_PORT: u16 = 2376;

/// The address of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address, `host:port`.
    Tcp(String),
    /// The same, to be spoken with by TLS.
    Tls(String, ClientTls),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(address) | Self::Tls(address, _) => write!(formatter, "tcp://{address}"),
        }
    }
}

impl Address {
    /// Reads what `-H`, `DORY_HOST` and `DOCKER_HOST` may hold.
    ///
    /// # Errors
    /// A text with a hint for schemes that are not spoken.
    pub(crate) fn parse(text: &str, tls: Option<&ClientTls>) -> Result<Self> {
        let text = text.trim();
        match text.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(PathBuf::from(path))),
            Some(("tcp" | "http", rest)) => Ok(match tls {
                None => Self::Tcp(tcp_address(rest, DEFAULT_PORT)),
                Some(tls) => Self::Tls(tcp_address(rest, DEFAULT_TLS_PORT), tls.clone()),
            }),
            Some((scheme @ ("ssh" | "npipe" | "fd" | "https"), _)) => Err(hinted(
                format!("unable to parse docker host `{text}`: `{scheme}://` is not supported"),
                "use `unix://PATH` or `tcp://HOST:PORT`; for ssh, forward the socket with `ssh -L`",
            )),
            None if text.starts_with('/') => Ok(Self::Unix(PathBuf::from(text))),
            _ => bail!("unable to parse docker host `{text}`"),
        }
    }
}

fn tcp_address(rest: &str, port: u16) -> String {
    let host = rest.trim_end_matches('/');
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let after_bracket = host.rsplit(']').next().unwrap_or(host);
    if after_bracket.contains(':') { host.to_owned() } else { format!("{host}:{port}") }
}

/// Where to look for the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The user named it: nothing else is tried, and nothing is started in its place.
    Named(Address),
    /// The first of these that answers; if none does, an engine may be started.
    Search(Vec<Address>),
}

impl Target {
    /// `-H`, then `DORY_HOST`, then `DOCKER_HOST`, then the places where engines usually are.
    ///
    /// # Errors
    /// As [`Address::parse`].
    pub(crate) fn choose(
        host: Option<&str>,
        tls: Option<&ClientTls>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let named = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(host) = host {
            return Ok(Self::Named(Address::parse(host, tls)?));
        }
        for name in ["DORY_HOST", "DOCKER_HOST"] {
            if let Some(value) = named(name) {
                return Ok(Self::Named(Address::parse(&value.to_string_lossy(), tls)?));
            }
        }
        let mut sockets = vec![PathBuf::from(SYSTEM_SOCKET)];
        sockets.extend(named("XDG_RUNTIME_DIR").map(|directory| Path::new(&directory).join("dory.sock")));
        Ok(Self::Search(sockets.into_iter().map(Address::Unix).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::TlsFlags;

    #[test]
    fn reads_addresses() {
        for (text, expected) in [
            ("unix:///run/x.sock", Address::Unix("/run/x.sock".into())),
            ("/run/x.sock", Address::Unix("/run/x.sock".into())),
            ("tcp://127.0.0.1:5000", Address::Tcp("127.0.0.1:5000".into())),
            ("tcp://box", Address::Tcp("box:2375".into())),
            ("tcp://[::1]", Address::Tcp("[::1]:2375".into())),
            ("http://[::1]:9/", Address::Tcp("[::1]:9".into())),
        ] {
            assert_eq!(Address::parse(text, None).unwrap(), expected, "{text}");
        }
        for wrong in ["", "x", "unix://", "ssh://box", "fd://", "gopher://x"] {
            assert!(Address::parse(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_go_before_places() {
        let none = |_: &str| None;
        assert_eq!(
            Target::choose(None, None, none).unwrap(),
            Target::Search(vec![Address::Unix(SYSTEM_SOCKET.into())])
        );
        let both = |name: &str| match name {
            "DORY_HOST" => Some(OsString::from("tcp://a:1")),
            "DOCKER_HOST" => Some(OsString::from("tcp://b:1")),
            _ => None,
        };
        assert_eq!(Target::choose(None, None, both).unwrap(), Target::Named(Address::Tcp("a:1".into())));
        assert_eq!(
            Target::choose(Some("tcp://c:1"), None, both).unwrap(),
            Target::Named(Address::Tcp("c:1".into()))
        );
        let tls = ClientTls::choose(&TlsFlags::default(), |name| {
            (name == "DOCKER_TLS_VERIFY").then(|| OsString::from("1"))
        })
        .unwrap();
        assert_eq!(
            Target::choose(Some("tcp://c"), Some(&tls), none).unwrap(),
            Target::Named(Address::Tls("c:2376".into(), tls.clone())),
            "never in the clear what was to be secret"
        );
        let runtime = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| OsString::from("/run/user/7"));
        let Target::Search(places) = Target::choose(None, None, runtime).unwrap() else {
            panic!("nothing was named")
        };
        assert_eq!(places[1], Address::Unix("/run/user/7/dory.sock".into()));
    }
}
