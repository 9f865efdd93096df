//! What one container's questions are answered with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dory_types::NetworkId;

use super::directory::DnsDirectory;
use super::message::{Data, Kind, Question};

/// Names of the machine that the engine runs on, as Docker Desktop's containers know them.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];

/// From where a resolver is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsOrigin {
    /// The container's own network, as if it had asked itself.
    Container,
    /// The engine's: for a resolver on the engine's loopback, such as an outer engine's on 127.0.0.11.
    Engine,
}

/// A resolver that is asked for what is no container's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsUpstream {
    /// Its address and port.
    pub address: SocketAddr,
    /// From where it is asked.
    pub origin: DnsOrigin,
}

/// A network that a container has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsNetwork {
    /// Its id.
    pub id: NetworkId,
    /// Its name, which may stand after a container's: `web.frontend`.
    pub name: String,
    /// The container's own words for others on it (`--link web:db` is `db`, then `web`).
    pub links: Vec<(String, String)>,
}

/// How one container's questions are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsClient {
    /// The networks that it has joined, in the order in which names are looked for.
    pub networks: Vec<DnsNetwork>,
    /// Who is asked for other names, in order; nobody where no network leads outside.
    pub upstreams: Vec<DnsUpstream>,
    /// True where the container's own `ndots` leads it to try its search domains: a name without a dot is then not
    /// asked of anybody outside.
    pub keeps_single_labels: bool,
    /// The address of the machine that the engine runs on, as containers reach it.
    pub host: Option<IpAddr>,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is answered with these; without any, there is nothing of the wanted type.
    Answer(Vec<Data>),
    /// Others may know.
    Forward,
}

impl DnsClient {
    /// Decides on a question, as dockerd does: container names are the embedded server's alone, whatever type of record
    /// is asked for.
    pub(super) fn decide(&self, directory: &DnsDirectory, question: &Question) -> Decision {
        let Some(name) = question.name.as_deref().filter(|name| !name.is_empty()) else {
            return Decision::Forward;
        };
        match question.kind {
            Kind::A | Kind::Aaaa => match self.addresses(directory, name) {
                Some(addresses) => Decision::Answer(of_family(addresses, question.kind)),
                None if self.keeps_single_labels && !name.contains('.') => Decision::Answer(Vec::new()),
                None => Decision::Forward,
            },
            Kind::Mx if self.addresses(directory, name).is_some() => Decision::Answer(Vec::new()),
            Kind::Ptr => match reversed(name).and_then(|address| self.name(directory, address)) {
                Some(name) => Decision::Answer(vec![Data::Name(name)]),
                None => Decision::Forward,
            },
            Kind::Mx | Kind::Other => Decision::Forward,
        }
    }

    /// Addresses of `name`: as it stands, then with its last parts taken for a network's name.
    fn addresses(&self, directory: &DnsDirectory, name: &str) -> Option<Vec<IpAddr>> {
        let splits = name.rmatch_indices('.').map(|(at, _)| (&name[..at], Some(&name[at + 1..])));
        let found = std::iter::once((name, None))
            .chain(splits)
            .find_map(|(name, network)| self.addresses_on(directory, name, network));
        found.or_else(|| self.host.filter(|_| HOST_NAMES.contains(&name)).map(|host| vec![host]))
    }

    /// Addresses of `name` on the first network that knows it; a link's word goes before the names of containers.
    fn addresses_on(&self, directory: &DnsDirectory, name: &str, only: Option<&str>) -> Option<Vec<IpAddr>> {
        let wanted = |network: &&DnsNetwork| only.is_none_or(|only| network.name.eq_ignore_ascii_case(only));
        let linked = |network: &DnsNetwork| {
            let (_, target) = network.links.iter().find(|(word, _)| word.eq_ignore_ascii_case(name))?;
            directory.addresses(&network.id, &target.to_ascii_lowercase())
        };
        let mut networks = self.networks.iter().filter(wanted);
        self.networks
            .iter()
            .filter(wanted)
            .find_map(linked)
            .or_else(|| networks.find_map(|network| directory.addresses(&network.id, name)))
    }

    /// The name of the container at `address`, with its network's.
    fn name(&self, directory: &DnsDirectory, address: IpAddr) -> Option<String> {
        self.networks.iter().find_map(|network| {
            directory.name(&network.id, address).map(|name| format!("{name}.{}", network.name))
        })
    }
}

/// The addresses of the family that is asked for, in a new order each time: load spreads over those who share a name.
fn of_family(addresses: Vec<IpAddr>, kind: Kind) -> Vec<Data> {
    let mut chosen: Vec<_> =
        addresses.into_iter().filter(|address| address.is_ipv4() == (kind == Kind::A)).collect();
    shuffle(&mut chosen);
    chosen.into_iter().map(Data::Address).collect()
}

/// Without random bytes the order stays as it is, which is no harm.
fn shuffle(addresses: &mut [IpAddr]) {
    if addresses.len() < 2 {
        return;
    }
    let mut random = vec![0_u8; addresses.len() * 2];
    if rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK).is_err() {
        return;
    }
    for (last, bytes) in (1..addresses.len()).rev().zip(random.chunks_exact(2)) {
        let number = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        addresses.swap(last, number % (last + 1));
    }
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035, section 3.5; RFC 3596, section 2.5).
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut parts = octets.rsplit('.').map(|part| part.parse::<u8>().ok());
        let mut next = || parts.next().flatten();
        let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
        return parts.next().is_none().then_some(IpAddr::V4(address));
    }
    let nibbles = name.strip_suffix(".ip6.arpa")?;
    let digit = |part: &str| u128::from_str_radix(part, 16).ok().filter(|_| part.len() == 1);
    let mut parts = nibbles.rsplit('.');
    let bits = (0..32).try_fold(0_u128, |bits, _| Some(bits << 4 | digit(parts.next()?)?))?;
    parts.next().is_none().then_some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

#[cfg(test)]
mod tests {
    use super::super::directory::DnsMember;
    use super::super::message::question;
    use super::*;

    fn network(number: u8, name: &str, links: &[(&str, &str)]) -> DnsNetwork {
        let links = links.iter().map(|(word, target)| ((*word).to_owned(), (*target).to_owned())).collect();
        DnsNetwork { id: NetworkId::from_bytes([number; 32]), name: name.to_owned(), links }
    }

    fn directory() -> DnsDirectory {
        let directory = DnsDirectory::default();
        for (network, name, alias, address) in [
            (1, "web", "www", "172.18.0.2"),
            (1, "web2", "www", "172.18.0.3"),
            (2, "db", "store.main", "172.19.0.2"),
            (2, "six", "six", "fd00::6"),
            (3, "secret", "db", "172.20.0.2"),
        ] {
            let member = DnsMember {
                name: name.to_owned(),
                names: vec![name.to_owned(), alias.to_owned()],
                addresses: vec![address.parse().unwrap()],
            };
            directory.join(&NetworkId::from_bytes([network; 32]), name, member);
        }
        directory
    }

    fn asked(client: &DnsClient, name: &str, kind: u16) -> Option<Vec<String>> {
        let question = Question::parse(&question(name, kind, None)).unwrap();
        match client.decide(&directory(), &question) {
            Decision::Forward => None,
            Decision::Answer(data) => {
                let mut texts: Vec<_> = data
                    .into_iter()
                    .map(|data| match data {
                        Data::Address(address) => address.to_string(),
                        Data::Name(name) => name,
                    })
                    .collect();
                texts.sort();
                Some(texts)
            }
        }
    }

    #[test]
    fn names_are_those_of_the_containers_networks() {
        let client = DnsClient {
            networks: vec![network(1, "front", &[]), network(2, "back.net", &[("database", "db")])],
            host: Some("172.17.0.1".parse().unwrap()),
            ..DnsClient::default()
        };
        for (name, kind, expected) in [
            ("web", 1, Some(&["172.18.0.2"][..])),
            ("WEB", 1, Some(&["172.18.0.2"])),
            ("web", 28, Some(&[])),
            ("web", 15, Some(&[])),
            ("web", 16, None),
            ("www", 1, Some(&["172.18.0.2", "172.18.0.3"])),
            ("web.front", 1, Some(&["172.18.0.2"])),
            ("web.back.net", 1, None),
            ("db.back.net", 1, Some(&["172.19.0.2"])),
            ("store.main.back.net", 1, Some(&["172.19.0.2"])),
            ("database", 1, Some(&["172.19.0.2"])),
            ("six", 28, Some(&["fd00::6"])),
            ("six", 1, Some(&[])),
            ("secret", 1, None),
            ("example.org", 1, None),
            ("", 1, None),
            ("host.docker.internal", 1, Some(&["172.17.0.1"])),
            ("host.docker.internal", 28, Some(&[])),
            ("2.0.18.172.in-addr.arpa", 12, Some(&["web.front"])),
            ("2.0.20.172.in-addr.arpa", 12, None),
            (
                "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
                12,
                Some(&["six.back.net"]),
            ),
        ] {
            let expected = expected.map(|texts| texts.iter().map(|it| (*it).to_owned()).collect());
            assert_eq!(asked(&client, name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn a_single_label_stays_inside_where_search_domains_follow() {
        let mut client = DnsClient { networks: vec![network(1, "front", &[])], ..DnsClient::default() };
        assert_eq!(asked(&client, "nobody", 1), None);
        client.keeps_single_labels = true;
        assert_eq!(asked(&client, "nobody", 1), Some(Vec::new()));
        assert_eq!(asked(&client, "nobody.org", 1), None);
    }

    #[test]
    fn reads_names_of_addresses() {
        for wrong in [
            "1.2.3.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
            "256.0.0.1.in-addr.arpa",
            "in-addr.arpa",
            "1.ip6.arpa",
            "x",
        ] {
            assert_eq!(reversed(wrong), None, "{wrong}");
        }
        assert_eq!(reversed("4.3.2.1.in-addr.arpa"), Some("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn those_who_share_a_name_take_turns() {
        let addresses: Vec<IpAddr> = (0..4).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let firsts: std::collections::HashSet<_> = (0..200)
            .map(|_| of_family(addresses.clone(), Kind::A).swap_remove(0))
            .map(|data| match data {
                Data::Address(address) => address,
                Data::Name(_) => unreachable!("addresses only"),
            })
            .collect();
        assert_eq!(firsts.len(), 4);
    }
}
