//! A container's `/etc/hosts`, line for line as dockerd 20.10 writes it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::str::FromStr;

/// What every container's file begins with.
const BEGINNING: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    ff00::0\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The word that stands for the bridge's own address (`--add-host name:host-gateway`).
const HOST_GATEWAY: &str = "host-gateway";

/// An entry of `HostConfig.ExtraHosts` makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtraHostError {
    /// Not `name:address`, or a name that would not be one word of the file.
    #[error("bad format for add-host: \"{0}\"")]
    Format(String),
    /// Neither an address nor `host-gateway`.
    #[error("invalid IP address in add-host: \"{0}\"")]
    Address(String),
}

/// Where an extra host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostTarget {
    /// At an address.
    Address(IpAddr),
    /// At the bridge's own address, whatever it is.
    Gateway,
}

/// An entry that a container wants in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Where it is.
    pub target: HostTarget,
}

impl FromStr for ExtraHost {
    type Err = ExtraHostError;

    /// Reads `name:address`; the address may be of IPv6, in brackets or not, or the word `host-gateway`.
    fn from_str(text: &str) -> Result<Self, ExtraHostError> {
        let format = || ExtraHostError::Format(text.to_owned());
        let (name, target) = text.split_once(':').ok_or_else(format)?;
        if name.is_empty()
            || name.contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '#')
        {
            return Err(format());
        }
        let target = match target {
            HOST_GATEWAY => HostTarget::Gateway,
            address => address
                .trim_start_matches('[')
                .trim_end_matches(']')
                .parse()
                .map(HostTarget::Address)
                .map_err(|_| ExtraHostError::Address(address.to_owned()))?,
        };
        Ok(Self { name: name.to_owned(), target })
    }
}

/// What is particular to one container's file.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// The container's addresses; none without a network.
    pub addresses: &'a [IpAddr],
    /// The container's hostname.
    pub hostname: &'a str,
    /// The container's domain name; empty without one.
    pub domainname: &'a str,
    /// The entries that it wants.
    pub extra: &'a [ExtraHost],
    /// The address that `host-gateway` stands for; none where there is no bridge, and then such entries are left out.
    pub gateway: Option<IpAddr>,
}

impl Hosts<'_> {
    /// The file's text.
    pub fn render(&self) -> String {
        let mut text = BEGINNING.to_owned();
        let mut line = |address: IpAddr, names: &str| {
            writeln!(text, "{address}\t{names}").expect("writing to a string cannot fail");
        };
        for host in self.extra {
            let address = match host.target {
                HostTarget::Address(address) => Some(address),
                HostTarget::Gateway => self.gateway,
            };
            if let Some(address) = address {
                line(address, &host.name);
            }
        }
        let own = self.own_names();
        for address in self.addresses {
            line(*address, &own);
        }
        text
    }

    /// `text`, a file that [`Self::render`] wrote and that somebody may have changed since, with the container's present
    /// addresses in it. Of what is there only lines go that `render` writes for the container itself.
    pub fn update(&self, text: &str) -> String {
        let own = self.own_names();
        let is_gone = |line: &str| {
            let address = line.split_once('\t').filter(|(_, names)| *names == own);
            let address = address.and_then(|(address, _)| address.parse::<IpAddr>().ok());
            address.is_some_and(|address| !self.addresses.contains(&address))
        };
        let mut lines: Vec<_> = text.lines().filter(|line| !is_gone(line)).map(str::to_owned).collect();
        for line in self.addresses.iter().map(|address| format!("{address}\t{own}")) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// What the container calls itself.
    fn own_names(&self) -> String {
        match self.domainname {
            "" => self.hostname.to_owned(),
            domain => format!("{0}.{domain} {0}", self.hostname),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_dockers() {
        let extra =
            ["x:host-gateway", "y:1.2.3.4", "z:fd00::1", "b:[fd00::2]"].map(|text| text.parse().unwrap());
        let mut hosts = Hosts {
            addresses: &["172.17.0.5".parse().unwrap()],
            hostname: "31442407e5d3",
            domainname: "",
            extra: &extra,
            gateway: Some("172.17.0.1".parse().unwrap()),
        };
        let expected = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
            ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n172.17.0.1\tx\n1.2.3.4\ty\n\
            fd00::1\tz\nfd00::2\tb\n172.17.0.5\t31442407e5d3\n";
        assert_eq!(hosts.render(), expected);
        hosts.domainname = "example.org";
        assert!(hosts.render().ends_with("172.17.0.5\t31442407e5d3.example.org 31442407e5d3\n"));
        hosts = Hosts { addresses: &[], gateway: None, extra: &extra[..1], ..hosts };
        assert_eq!(hosts.render(), BEGINNING);
    }

    #[test]
    fn addresses_come_and_go_between_the_lines_of_others() {
        let [one, two]: [IpAddr; 2] = ["172.17.0.5", "172.18.0.2"].map(|text| text.parse().unwrap());
        let own = Hosts { addresses: &[], hostname: "h", domainname: "", extra: &[], gateway: None };
        let update = |addresses: &[IpAddr], text: &str| Hosts { addresses, ..own }.update(text);
        let text = Hosts { addresses: &[one], ..own }.render() + "10.0.0.1\tmine\n172.17.0.5 h\n";
        let both = update(&[one, two], &text);
        assert_eq!(both, text.clone() + "172.18.0.2\th\n");
        let other = update(&[two], &both);
        assert_eq!(other, BEGINNING.to_owned() + "10.0.0.1\tmine\n172.17.0.5 h\n172.18.0.2\th\n");
        assert_eq!(update(&[two], &other), other);
    }

    #[test]
    fn an_entry_cannot_bring_lines_of_its_own() {
        for wrong in ["", "x", ":1.2.3.4", "a b:1.2.3.4", "a\n8.8.8.8 b:1.2.3.4", "#:1.2.3.4"] {
            assert!(matches!(wrong.parse::<ExtraHost>(), Err(ExtraHostError::Format(_))), "{wrong:?}");
        }
        for wrong in ["x:", "x:nowhere", "x:1.2.3.4\n5.6.7.8 y"] {
            assert!(matches!(wrong.parse::<ExtraHost>(), Err(ExtraHostError::Address(_))), "{wrong:?}");
        }
    }
}
