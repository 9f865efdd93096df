//! resolv.conf(5): the host's read, a container's written.
//!
//! A container on the default network asks the host's resolvers itself, so that only those are of use that it can
//! reach: no loopback address, and no IPv6 address on a network without IPv6. Where none is left, Docker falls back to
//! Google's; here a [`crate::DnsForwarder`] may stand in, which matters most to a nested engine: in an outer container
//! with Docker's embedded server the only resolver is 127.0.0.11.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The file that programs read.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved lists the resolvers that it asks itself.
const SYSTEMD_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";
/// systemd-resolved's own address, which answers on the host's loopback only.
const SYSTEMD_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// Docker's fallback.
const FALLBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// What a resolv.conf says. Also the form of a container's own wishes (`HostConfig.Dns`, `DnsSearch`, `DnsOptions`),
/// of which an empty list means the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvConf {
    /// The resolvers, in order.
    pub nameservers: Vec<IpAddr>,
    /// The domains to search. As a wish, a single `.` means none.
    pub search: Vec<String>,
    /// The options, such as `ndots:2`.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads `text`. What makes no sense is left out, as the C library does; of several search lists the last counts.
    pub fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    read.nameservers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                Some("search" | "domain") => read.search = words.map(str::to_owned).collect(),
                Some("options") => read.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        read
    }

    /// The host's: `/etc/resolv.conf`, or, where that names nothing but systemd-resolved's stub, systemd's list of the
    /// real ones. A host without the file has no resolvers.
    ///
    /// # Errors
    /// The error of reading `/etc/resolv.conf`, other than that it does not exist.
    pub fn of_host() -> io::Result<Self> {
        let host = match std::fs::read_to_string(Path::new(RESOLV_CONF)) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(error),
        };
        if host.nameservers == [SYSTEMD_STUB]
            && let Ok(text) = std::fs::read_to_string(Path::new(SYSTEMD_RESOLV_CONF))
        {
            return Ok(Self::parse(&text));
        }
        Ok(host)
    }

    /// The resolvers that a [`crate::DnsForwarder`] must ask because no container can: all of them where a container
    /// can reach none, otherwise none.
    pub fn forwarder_upstreams(&self) -> Vec<IpAddr> {
        if self.nameservers.iter().any(reachable) { Vec::new() } else { self.nameservers.clone() }
    }

    /// A container's file on the default network, where `self` is the host's and `wishes` the container's own.
    /// `forwarder` is the address of a running [`crate::DnsForwarder`].
    pub fn for_container(&self, wishes: &Self, forwarder: Option<IpAddr>) -> Self {
        let nameservers = if wishes.nameservers.is_empty() {
            let usable: Vec<_> = self.nameservers.iter().copied().filter(reachable).collect();
            match (usable.is_empty(), forwarder) {
                (false, _) => usable,
                (true, Some(forwarder)) => vec![forwarder],
                (true, None) => FALLBACK.to_vec(),
            }
        } else {
            wishes.nameservers.clone()
        };
        let search = match wishes.search.as_slice() {
            [] => self.search.clone(),
            [dot] if dot == "." => Vec::new(),
            wanted => wanted.to_vec(),
        };
        let options = if wishes.options.is_empty() { &self.options } else { &wishes.options };
        Self { nameservers, search, options: options.clone() }
    }
}

/// True where a container on a network without IPv6 can reach the resolver.
fn reachable(address: &IpAddr) -> bool {
    address.is_ipv4() && !address.is_loopback()
}

impl fmt::Display for ResolvConf {
    /// Writes the file in Docker's order: search, nameserver, options.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.search.is_empty() {
            writeln!(formatter, "search {}", self.search.join(" "))?;
        }
        for address in &self.nameservers {
            writeln!(formatter, "nameserver {address}")?;
        }
        if !self.options.is_empty() {
            writeln!(formatter, "options {}", self.options.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(host: &str, wishes: &str, forwarder: Option<&str>) -> String {
        let forwarder = forwarder.map(|address| address.parse().unwrap());
        ResolvConf::parse(host).for_container(&ResolvConf::parse(wishes), forwarder).to_string()
    }

    #[test]
    fn containers_get_what_they_can_reach() {
        for (host, forwarder, expected) in [
            ("nameserver 10.0.0.53\n", None, "nameserver 10.0.0.53\n"),
            ("nameserver 127.0.0.1\nnameserver 10.0.0.53\n", Some("172.17.0.1"), "nameserver 10.0.0.53\n"),
            (
                "nameserver 127.0.0.11\noptions ndots:0\n",
                Some("172.17.0.1"),
                "nameserver 172.17.0.1\noptions ndots:0\n",
            ),
            ("nameserver 127.0.0.11\n", None, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
            ("nameserver ::1\nnameserver fd00::53\n", None, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
            ("", None, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
            (
                "# a comment\ndomain old\nsearch a.b  c.d ; rest\nnameserver 10.0.0.53\nnameserver nonsense\noptions edns0\noptions trust-ad\n",
                None,
                "search a.b c.d\nnameserver 10.0.0.53\noptions edns0 trust-ad\n",
            ),
        ] {
            assert_eq!(written(host, "", forwarder), expected, "{host}");
        }
    }

    #[test]
    fn wishes_come_first() {
        let host = "search a.b\nnameserver 10.0.0.53\noptions edns0\n";
        for (wishes, expected) in [
            (
                "nameserver 127.0.0.1\nnameserver 9.9.9.9\n",
                "search a.b\nnameserver 127.0.0.1\nnameserver 9.9.9.9\noptions edns0\n",
            ),
            ("search .\n", "nameserver 10.0.0.53\noptions edns0\n"),
            ("search x.y\noptions ndots:3\n", "search x.y\nnameserver 10.0.0.53\noptions ndots:3\n"),
        ] {
            assert_eq!(written(host, wishes, None), expected, "{wishes}");
        }
    }

    #[test]
    fn a_forwarder_is_for_hosts_whose_resolvers_no_container_reaches() {
        for (host, expected) in [
            ("nameserver 10.0.0.53\nnameserver 127.0.0.1\n", &[][..]),
            ("nameserver 127.0.0.11\n", &["127.0.0.11"]),
            ("nameserver fd00::53\n", &["fd00::53"]),
            ("", &[]),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(ResolvConf::parse(host).forwarder_upstreams(), expected, "{host}");
        }
    }
}
