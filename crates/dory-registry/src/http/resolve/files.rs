//! hosts(5) and resolv.conf(5).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The port of name servers.
const PORT: u16 = 53;
/// The C library's bounds (resolv.conf(5)): servers, `ndots`, `timeout` in seconds, `attempts`.
const SERVERS_MAX: usize = 3;
const NDOTS_MAX: usize = 15;
const TIMEOUT_MAX: u64 = 30;
const ATTEMPTS_MAX: usize = 5;

/// The addresses of `host` in the hosts file `text`.
pub(super) fn hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
        })
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

/// Whom to ask, and how.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    pub(super) timeout: Duration,
    pub(super) attempts: usize,
}

impl ResolvConf {
    /// Reads the file's `text`; what it does not understand is passed over, as by the C library.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.split('%').next()?.parse().ok());
                    conf.servers.extend(server.map(|server: IpAddr| SocketAddr::new(server, PORT)));
                }
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf.servers.truncate(SERVERS_MAX);
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        conf
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = NDOTS_MAX.min(value as usize),
            "timeout" => self.timeout = Duration::from_secs(u64::from(value).clamp(1, TIMEOUT_MAX)),
            "attempts" => self.attempts = (value as usize).clamp(1, ATTEMPTS_MAX),
            _ => {}
        }
    }

    /// The names to ask for where `host` is wanted, in their order.
    pub(super) fn candidates(&self, host: &str) -> Vec<String> {
        let searched = self.search.iter().map(|domain| domain.trim_matches('.'));
        let mut names: Vec<_> =
            searched.filter(|domain| !domain.is_empty()).map(|domain| format!("{host}.{domain}")).collect();
        let first = host.matches('.').count() >= self.ndots;
        names.insert(if first { 0 } else { names.len() }, host.to_owned());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_files() {
        let text =
            "::1 Localhost # registry\n127.0.0.1\tlocalhost registry\n\n# 1.2.3.4 registry\nwrong registry\n";
        assert_eq!(hosts(text, "registry"), [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(hosts(text, "localhost").len(), 2);
        assert!(hosts(text, "localhost")[0].is_ipv4());
        assert!(hosts(text, "host").is_empty());
    }

    #[test]
    fn configurations() {
        let conf = ResolvConf::parse(
            "# comment\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver x\nsearch a.example b.example.\n\
             options ndots:2 timeout:90 attempts:9 edns0\n",
        );
        assert_eq!(conf.servers, ["10.0.0.2:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()]);
        assert_eq!((conf.timeout, conf.attempts), (Duration::from_secs(30), 5));
        assert_eq!(conf.candidates("r.x"), ["r.x.a.example", "r.x.b.example", "r.x"]);
        assert_eq!(conf.candidates("r.x.y")[0], "r.x.y");
        assert_eq!(ResolvConf::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }
}
